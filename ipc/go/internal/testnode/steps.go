package testnode

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Steps prints each step of a command and ends the command at the first one that fails.
type Steps struct {
	Binary, Home string
	Context      context.Context

	nodes []*Node
}

// patience limits the time of a whole command.
const patience = 2 * time.Minute

var binary = flag.String("node-binary", "", "`path` of peat-node")

// Main runs a command: it parses the flags, creates a private directory, and exits with 0 only if every step succeeds.
func Main(name string, run func(*Steps) error) {
	flag.Parse()
	if *binary == "" || flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "usage: %s --node-binary PATH\n", name)
		flag.PrintDefaults()
		os.Exit(2)
	}
	if err := inPrivate(name, *binary, run); err != nil {
		fmt.Fprintf(os.Stderr, "FAILED %s: %v\n", name, err)
		os.Exit(1)
	}
	fmt.Printf("%s: every step held\n", name)
}

func inPrivate(name, binary string, run func(*Steps) error) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	home, err := os.MkdirTemp("", "peat-"+name+".")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	steps := &Steps{Binary: binary, Home: home, Context: ctx}
	defer steps.end()
	return run(steps)
}

// Use ends nodes together with the command.
func (s *Steps) Use(nodes ...*Node) { s.nodes = append(s.nodes, nodes...) }

func (s *Steps) end() {
	for _, node := range s.nodes {
		node.Kill()
	}
}

// Do runs one step and prints its name.
func (s *Steps) Do(what string, step func(context.Context) error) error {
	if err := step(s.Context); err != nil {
		for _, node := range s.nodes {
			fmt.Fprintf(os.Stderr, "--- %s\n%s", node.home, node.Log())
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Println("ok ", what)
	return nil
}

// All runs steps in order.
func (s *Steps) All(steps ...Step) error {
	for _, step := range steps {
		if err := s.Do(step.What, step.Do); err != nil {
			return err
		}
	}
	return nil
}

// Step is one check.
type Step struct {
	What string
	Do   func(context.Context) error
}
