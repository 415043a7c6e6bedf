//go:build !unix

package peat

import "os"

// lockFile does not keep a second process out on this system.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
