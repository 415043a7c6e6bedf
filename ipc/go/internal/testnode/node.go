// Package testnode runs real nodes for tests and for the commands beside it: each with a directory of its own, on loopback
// ports the system chooses, without anything of the caller's configuration.
package testnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// startPatience is how long a node may take to say that it is ready, and to end.
const startPatience = 60 * time.Second

// Node is a node in a process of its own.
type Node struct {
	// ID is its endpoint id; Bind is where other nodes reach it.
	ID, Bind string

	binary, home string
	flags        []string
	process      *exec.Cmd
	ended        chan error
}

// Start runs a node whose things are under home, and waits until it is ready.
func Start(binary, home string, flags ...string) (*Node, error) {
	n := &Node{binary: binary, home: home, flags: flags, Bind: "127.0.0.1:0"}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	return n, n.Resume()
}

// Identity is the endpoint id that a node started under home will have.
func Identity(binary, home string) (string, error) {
	out, err := command(binary, "id", "--data-dir", filepath.Join(home, "data")).Output()
	return strings.TrimSpace(string(out)), err
}

func command(binary string, arguments ...string) *exec.Cmd {
	command := exec.Command(binary, arguments...)
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		ours := strings.HasPrefix(name, "PEAT_NODE_") || strings.HasPrefix(name, "XDG_") || strings.HasSuffix(name, "_DIRECTORY")
		if !ours && name != "JOURNAL_STREAM" {
			command.Env = append(command.Env, variable)
		}
	}
	return command
}

// Address is where clients connect.
func (n *Node) Address() string { return "unix://" + filepath.Join(n.home, "socket") }

// Spec is how a peer names this node.
func (n *Node) Spec() string { return n.ID + "@" + n.Bind }

// Log is what the node has said since it was started last.
func (n *Node) Log() string {
	text, err := os.ReadFile(filepath.Join(n.home, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Resume starts the node again, on the data and the port it had.
func (n *Node) Resume() error {
	log, err := os.Create(filepath.Join(n.home, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	arguments := append([]string{"run", "--data-dir", filepath.Join(n.home, "data"), "--listen", n.Address(), "--bind", n.Bind},
		n.flags...)
	n.process = command(n.binary, arguments...)
	n.process.Stderr = log
	if err := n.process.Start(); err != nil {
		return err
	}
	return n.awaitReady()
}

var readyLine = regexp.MustCompile(`ready: .*nodes at ([^,\s]+),.*endpoint id ([0-9a-f]{64})`)

func (n *Node) awaitReady() error {
	process, ended := n.process, make(chan error, 1)
	go func() { ended <- process.Wait() }()
	for end := time.Now().Add(startPatience); time.Now().Before(end); {
		if found := readyLine.FindStringSubmatch(n.Log()); found != nil {
			n.Bind, n.ID = found[1], found[2]
			n.ended = ended
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the node ended (%v):\n%s", err, n.Log())
		case <-time.After(10 * time.Millisecond):
		}
	}
	// It has not become ready: there is nothing it could lose.
	_ = process.Process.Kill()
	return fmt.Errorf("the node is not ready after %v:\n%s", startPatience, n.Log())
}

// Kill ends the node as a crash would.
func (n *Node) Kill() { n.signal(syscall.SIGKILL) }

// Stop asks the node to end, and waits until it has.
func (n *Node) Stop() { n.signal(syscall.SIGTERM) }

func (n *Node) signal(signal syscall.Signal) {
	if n.ended == nil {
		return
	}
	// One that has ended already needs no signal, and how it ended is in its log.
	_ = n.process.Process.Signal(signal)
	<-n.ended
	n.ended = nil
}

// Pair starts two nodes that are linked with each other.
func Pair(binary, home string, flagsA, flagsB []string) (a, b *Node, err error) {
	homeA, homeB := filepath.Join(home, "a"), filepath.Join(home, "b")
	idB, err := Identity(binary, homeB)
	if err != nil {
		return nil, nil, err
	}
	if a, err = Start(binary, homeA, append(flagsA, "--peer", idB)...); err != nil {
		return nil, nil, err
	}
	if b, err = Start(binary, homeB, append(flagsB, "--peer", a.Spec())...); err != nil {
		a.Kill()
		return nil, nil, err
	}
	return a, b, nil
}

// Eventually waits until a condition holds.
func Eventually(ctx context.Context, what string, condition func() (bool, error)) error {
	var last error
	for {
		holds, err := condition()
		if holds && err == nil {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it did not happen: %s", what), last, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Lines of a process's stdout, until it has said so many.
func Lines(process *exec.Cmd, count int) ([]string, error) {
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	var said []byte
	for bytes.Count(said, []byte("\n")) < count {
		part := make([]byte, 1024)
		read, err := out.Read(part)
		said = append(said, part[:read]...)
		if err != nil {
			return nil, err
		}
	}
	return strings.Split(string(said), "\n")[:count], nil
}
