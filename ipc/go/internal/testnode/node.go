// Package testnode runs real nodes for tests and for the commands in cmd: each in its own directory, on loopback
// ports that the system chooses, without the caller's configuration.
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

// startPatience limits the time of a node's start and of its shutdown.
const startPatience = 60 * time.Second

// Node is the process of a node.
type Node struct {
	// ID is the endpoint id; Bind is the address for other nodes.
	ID, Bind string

	binary, home string
	flags        []string
	process      *exec.Cmd
	ended        chan error
}

// Start runs a node with its files in home and waits until it is ready.
func Start(binary, home string, flags ...string) (*Node, error) {
	n := &Node{binary: binary, home: home, flags: flags, Bind: "127.0.0.1:0"}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	return n, n.Resume()
}

// Identity returns the endpoint id of a node with its files in home.
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

// Address is the address for clients.
func (n *Node) Address() string { return "unix://" + filepath.Join(n.home, "socket") }

// Spec is the value of --peer that names this node.
func (n *Node) Spec() string { return n.ID + "@" + n.Bind }

// Log returns the node's log since its last start.
func (n *Node) Log() string {
	text, err := os.ReadFile(filepath.Join(n.home, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Resume starts the node again with its data and its port.
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
	// A node that never was ready has nothing to lose.
	_ = process.Process.Kill()
	return fmt.Errorf("the node is not ready after %v:\n%s", startPatience, n.Log())
}

// Kill ends the node without a shutdown.
func (n *Node) Kill() { n.signal(syscall.SIGKILL) }

// Stop shuts the node down and waits for its end.
func (n *Node) Stop() { n.signal(syscall.SIGTERM) }

func (n *Node) signal(signal syscall.Signal) {
	if n.ended == nil {
		return
	}
	// A node that has ended needs no signal; its log has the reason.
	_ = n.process.Process.Signal(signal)
	<-n.ended
	n.ended = nil
}

// Pair starts two nodes that are peers.
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

// Lines starts a process and returns the first count lines of its output.
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
