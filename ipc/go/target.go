package peat

import (
	"net"
	"strconv"
	"strings"
)

// target is the network address of a node.
type target struct {
	network, address string
}

// parseTarget parses unix:///PATH, tcp://HOST:PORT or http://HOST:PORT. The last two are one address: the node tells frames
// from HTTP by the first bytes of a connection.
func parseTarget(text string) (target, error) {
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		if len(path) < 2 || path[0] != '/' {
			return target{}, invalid("%q has no absolute path (three slashes); expected unix:///path", text)
		}
		return target{"unix", path}, nil
	}
	address, ok := strings.CutPrefix(text, "tcp://")
	if !ok {
		address, ok = strings.CutPrefix(strings.TrimSuffix(text, "/"), "http://")
	}
	if ok {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || !isPort(port) {
			return target{}, invalid("%q has no HOST:PORT", text)
		}
		return target{"tcp", address}, nil
	}
	return target{}, invalid("%q is not an address of a node; expected unix:///path, tcp://HOST:PORT or http://HOST:PORT", text)
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}
