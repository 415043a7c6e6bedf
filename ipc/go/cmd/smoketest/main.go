// Smoketest puts, gets, deletes and watches a document on a real node.
package main

import (
	"context"
	"errors"
	"fmt"

	peat "peat.internal/peat-node.git/ipc/go"
	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

func main() { testnode.Main("smoketest", run) }

func run(s *testnode.Steps) error {
	node, err := testnode.Start(s.Binary, s.Home)
	if err != nil {
		return err
	}
	s.Use(node)
	client, err := peat.Connect(s.Context, node.Address())
	if err != nil {
		return err
	}
	defer client.Close()
	watched := watch(s.Context, client)
	return s.All(
		testnode.Step{What: "the node says who it is", Do: func(ctx context.Context) error {
			status, err := client.Status(ctx)
			if err == nil && status.EndpointAddr != node.ID {
				err = fmt.Errorf("another node: %v", status)
			}
			return err
		}},
		testnode.Step{What: "it is well", Do: func(ctx context.Context) error {
			health, err := client.Health(ctx)
			if err == nil && !health.Healthy {
				err = fmt.Errorf("%v", health.Problems)
			}
			return err
		}},
		testnode.Step{What: "a subscription begins with a snapshot", Do: watched(peat.ChangeSnapshotEnd)},
		testnode.Step{What: "a document is put", Do: func(ctx context.Context) error {
			written, err := client.Put(ctx, "notes", "n1", map[string]any{"text": "hello", "n": 1}, peat.WithDurable())
			if err == nil && !written.Durable {
				err = errors.New("not durable")
			}
			return err
		}},
		testnode.Step{What: "the subscription hears of it", Do: watched(peat.ChangeUpsert)},
		testnode.Step{What: "it is patched and got", Do: func(ctx context.Context) error {
			if _, err := client.Patch(ctx, "notes", "n1", `{"n": 2}`); err != nil {
				return err
			}
			return is(ctx, client, `{"n":2,"text":"hello"}`)
		}},
		testnode.Step{What: "the subscription hears of that", Do: watched(peat.ChangeUpsert)},
		testnode.Step{What: "it is listed", Do: func(ctx context.Context) error {
			ids, err := client.List(ctx, "notes")
			if err == nil && (len(ids) != 1 || ids[0] != "n1") {
				err = fmt.Errorf("%v", ids)
			}
			return err
		}},
		testnode.Step{What: "it is deleted, and then not found", Do: func(ctx context.Context) error {
			if err := client.Delete(ctx, "notes", "n1"); err != nil {
				return err
			}
			if _, err := client.Get(ctx, "notes", "n1"); !errors.Is(err, peat.NotFound) {
				return fmt.Errorf("not NOT_FOUND: %w", err)
			}
			return nil
		}},
		testnode.Step{What: "the subscription hears of its end", Do: watched(peat.ChangeDelete)},
	)
}

func is(ctx context.Context, client *peat.Client, want string) error {
	document, err := client.Get(ctx, "notes", "n1")
	if err == nil && string(document.JSON) != want {
		err = fmt.Errorf("it is %s", document.JSON)
	}
	return err
}

// watch subscribes and returns steps that wait for the next change of a type.
func watch(ctx context.Context, client *peat.Client) func(peat.ChangeType) func(context.Context) error {
	type heard struct {
		change *peat.Change
		err    error
	}
	changes := make(chan heard, 16)
	go func() {
		for change, err := range client.Subscribe(ctx, peat.WithCollections("notes"), peat.WithSnapshot()) {
			changes <- heard{change, err}
		}
	}()
	return func(kind peat.ChangeType) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case next := <-changes:
				if next.err == nil && next.change.Type != kind {
					return fmt.Errorf("it heard of %+v", next.change)
				}
				return next.err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}
