// A hub that has every live agent of a group do something, and waits until it is done everywhere.
// usage: rollout ADDRESS GROUP TYPE [JSON]
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	peat "peat.internal/peat-node.git/ipc/go"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: rollout ADDRESS GROUP TYPE [JSON]")
		os.Exit(2)
	}
	payload := "{}"
	if len(os.Args) > 4 {
		payload = os.Args[4]
	}
	if err := run(os.Args[1], peat.NewCommand{Group: os.Args[2], Type: os.Args[3], Payload: payload}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address string, command peat.NewCommand) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	client, err := peat.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := client.SendCommand(ctx, command)
	if err != nil {
		return err
	}
	done, err := client.WaitCommand(ctx, id)
	if err != nil {
		return err
	}
	for _, target := range done.Targets {
		fmt.Println(target.AgentId, target.Status, target.ResultJson, target.Error)
	}
	return nil
}
