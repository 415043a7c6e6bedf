// Package peat is a client for a peat-node: calls, subscriptions, fleet queries, and the agent's side of the agent link.
//
//	client, err := peat.Connect(ctx, "unix:///run/peat-node/peat-node.sock")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	if _, err := client.Put(ctx, "notes", "n1", map[string]any{"text": "hello"}); err != nil {
//		return err
//	}
//	for change, err := range client.Subscribe(ctx, peat.WithCollections("notes"), peat.WithSnapshot()) {
//		...
//	}
//
// A [Client] is one connection, which goroutines share. An application that reports its state and runs
// commands is an [Agent]. The options of both have names that begin with With.
//
// A context's deadline travels with the call, and its end cancels the call at the node. Errors carry
// one of gRPC's canonical codes, which errors.Is(err, peat.NotFound) tests and [CodeOf] returns.
package peat
