//go:build !unix

package peat

import "os"

// lockFile does not exclude a second process on this system.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
