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
//	for change, err := range client.Subscribe(ctx, peat.Collections("notes"), peat.Snapshot()) {
//		...
//	}
//
// A [Client] holds one connection and any number of goroutines may use it. An application that reports state and takes
// commands is an [Agent].
//
// A context's deadline travels with the call; when the context ends, the call is cancelled at the node as well. Errors carry
// one of gRPC's canonical codes: errors.Is(err, peat.NotFound) and [CodeOf] tell which.
package peat
