package peat

import (
	"net"
	"strconv"
	"strings"
)

// target is where a node listens.
type target struct {
	network, address string
}

// parseTarget reads unix:///path or tcp://HOST:PORT.
func parseTarget(text string) (target, error) {
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		if len(path) < 2 || path[0] != '/' {
			return target{}, invalid("%q has no absolute path (three slashes); expected unix:///path", text)
		}
		return target{"unix", path}, nil
	}
	if address, ok := strings.CutPrefix(text, "tcp://"); ok {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || !isPort(port) {
			return target{}, invalid("%q has no HOST:PORT", text)
		}
		return target{"tcp", address}, nil
	}
	return target{}, invalid("%q is not an address of a node; expected unix:///path or tcp://HOST:PORT", text)
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}
