//go:build unix

package peat

import (
	"fmt"
	"os"
	"syscall"
)

// lockFile excludes a second process while the file is open.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another agent uses the directory: %w", err)
	}
	return file, nil
}
