// An agent: it registers, reports its state, and carries out commands.
// usage: agent [ADDRESS [DIRECTORY]]
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	peat "peat.internal/peat-node.git/ipc/go"
)

func main() {
	address, dir := "unix:///run/peat-node/peat-node.sock", "radar-1.state"
	for i, into := range []*string{&address, &dir} {
		if len(os.Args) > i+1 {
			*into = os.Args[i+1]
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, address, dir); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, dir string) error {
	agent, err := peat.NewAgent(ctx, address, peat.Registration{ID: "radar-1", Group: "sensors", Version: "1.4", Status: peat.PlatformReady},
		peat.WithDirectory(dir), peat.WithLogger(slog.Default()))
	if err != nil {
		return err
	}
	defer agent.Close()
	if err := agent.ReportDeployment(ctx, peat.Workload{Name: "tracker", Version: "2.0", Status: "running"}); err != nil {
		return err
	}
	// Each command runs once, through lost connections, crashes of the node, and restarts of this process.
	return agent.Handle(ctx, func(ctx context.Context, command *peat.Command) (any, error) {
		switch command.Type {
		case "ping":
			return map[string]string{"pong": agent.ID()}, nil
		case "rollout": // what this agent manages is a file
			return map[string]bool{"rolled_out": true}, os.WriteFile(filepath.Join(dir, "rollout.json"), command.Payload, 0o600)
		default:
			return nil, fmt.Errorf("this agent does not know %q", command.Type)
		}
	})
}
