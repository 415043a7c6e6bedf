// Synctest checks that two real nodes exchange documents in both directions, also those written while they were disconnected.
package main

import (
	"context"
	"errors"
	"fmt"

	peat "peat.internal/peat-node.git/ipc/go"
	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

func main() { testnode.Main("synctest", run) }

func run(s *testnode.Steps) error {
	nodeA, nodeB, err := testnode.Pair(s.Binary, s.Home, nil, nil)
	if err != nil {
		return err
	}
	s.Use(nodeA, nodeB)
	a, err := peat.Connect(s.Context, nodeA.Address())
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := peat.Connect(s.Context, nodeB.Address())
	if err != nil {
		return err
	}
	defer b.Close()
	return s.All(
		testnode.Step{What: "what is put on A waits until B has it on disk", Do: func(ctx context.Context) error {
			_, err := a.Put(ctx, "notes", "shared", `{"from": "a"}`, peat.WithWaitPeers(1))
			return errors.Join(err, shows(ctx, b, "shared", `{"from":"a"}`))
		}},
		testnode.Step{What: "what is put on B arrives on A", Do: func(ctx context.Context) error {
			_, err := b.Put(ctx, "notes", "back", `{"from": "b"}`)
			return errors.Join(err, shows(ctx, a, "back", `{"from":"b"}`))
		}},
		testnode.Step{What: "under radio silence nothing arrives", Do: func(ctx context.Context) error {
			if err := a.StopSync(ctx); err != nil {
				return err
			}
			_, errA := a.Patch(ctx, "notes", "shared", `{"a": 1}`)
			_, errB := b.Patch(ctx, "notes", "shared", `{"b": 2}`)
			return errors.Join(errA, errB, shows(ctx, a, "shared", `{"a":1,"from":"a"}`), shows(ctx, b, "shared", `{"b":2,"from":"a"}`))
		}},
		testnode.Step{What: "after it both edits are on both sides", Do: func(ctx context.Context) error {
			const both = `{"a":1,"b":2,"from":"a"}`
			return errors.Join(a.StartSync(ctx), shows(ctx, a, "shared", both), shows(ctx, b, "shared", both))
		}},
		testnode.Step{What: "what is deleted on B is deleted on A", Do: func(ctx context.Context) error {
			return errors.Join(b.Delete(ctx, "notes", "shared"), shows(ctx, a, "shared", ""))
		}},
	)
}

// shows waits until a document has this content; empty: it does not exist.
func shows(ctx context.Context, client *peat.Client, id, want string) error {
	return testnode.Eventually(ctx, fmt.Sprintf("%s is %q", id, want), func() (bool, error) {
		document, err := client.Get(ctx, "notes", id)
		if errors.Is(err, peat.NotFound) {
			return want == "", nil
		}
		return err == nil && string(document.JSON) == want, err
	})
}
