// Query prints the fleet that a node knows: the machines of agents and their workloads. With --node-binary it starts a fleet of
// two nodes and two agents and checks the answers; with --node it queries a running node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	peat "peat.internal/peat-node.git/ipc/go"
	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

var node = flag.String("node", "", "`address` of a node that runs, unix:///PATH or tcp://HOST:PORT")

func main() {
	flag.Parse()
	if *node == "" {
		testnode.Main("query", run)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := peat.Connect(ctx, *node)
	if err == nil {
		err = show(ctx, client, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// show prints both tables.
func show(ctx context.Context, client *peat.Client, out io.Writer) error {
	platforms, err := client.FleetPlatforms(ctx)
	if err != nil {
		return err
	}
	deployments, err := client.FleetDeployments(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AGENT\tGROUP\tVERSION\tLIVENESS\tVIA\tAGE")
	for _, p := range platforms {
		fmt.Fprintf(table, "%s\t%s\t%s\t%v\t%s\t%v\n", p.AgentID, p.Group, p.Version, p.Liveness, p.Via, p.Age.Round(time.Second))
	}
	fmt.Fprintln(table, "\nAGENT\tRUNS\tVERSION\tSTATUS")
	for _, d := range deployments {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", d.AgentID, d.Package, d.Version, d.Status)
	}
	return table.Flush()
}

func run(s *testnode.Steps) error {
	a, b, err := testnode.Pair(s.Binary, s.Home, []string{"--node-id", "north"}, []string{"--node-id", "south"})
	if err != nil {
		return err
	}
	s.Use(a, b)
	for _, at := range []struct {
		id   string
		node *testnode.Node
	}{{"radar", a}, {"drone", b}} {
		agent, err := peat.NewAgent(s.Context, at.node.Address(), peat.Registration{ID: at.id, Group: "sensors", Version: "1.4", Status: peat.PlatformReady})
		if err != nil {
			return err
		}
		defer agent.Close()
		err = s.Do(at.id+" registers and reports what it runs", func(ctx context.Context) error {
			workload := peat.Workload{Name: "tracker", Version: "2.0", Status: "running"}
			return errors.Join(agent.WaitRegistered(ctx), agent.ReportDeployment(ctx, workload))
		})
		if err != nil {
			return err
		}
	}
	for _, from := range []*testnode.Node{a, b} {
		if err := query(s, from); err != nil {
			return err
		}
	}
	return nil
}

// query checks that one node knows the whole fleet.
func query(s *testnode.Steps, from *testnode.Node) error {
	client, err := peat.Connect(s.Context, from.Address())
	if err != nil {
		return err
	}
	defer client.Close()
	err = s.Do("a node shows both agents LIVE, and what both run", func(ctx context.Context) error {
		return testnode.Eventually(ctx, "the whole fleet", func() (bool, error) {
			platforms, err := client.FleetPlatforms(ctx)
			live := 0
			for _, platform := range platforms {
				if platform.Liveness == peat.LivenessLive {
					live++
				}
			}
			deployments, other := client.FleetDeployments(ctx)
			return live == 2 && len(deployments) == 2 && deployments[0].Version == "2.0", errors.Join(err, other)
		})
	})
	return errors.Join(err, show(s.Context, client, os.Stdout))
}
