// Package hub copies the state of a peat fleet into PostgreSQL and issues commands and documents from there.
//
// For each source (one fleet, followed through one of its nodes) a hub runs up to four tasks:
//
//   - follow: reads the node's subscription and writes rows and resume token in one transaction;
//   - liveness: keeps LIVE, STALE and DEAD of each agent;
//   - outbox: sends the rows of peat.outbox to the node;
//   - publish: publishes peat.history to NATS JetStream.
//
// Any number of hubs may share a database. An advisory lock per task makes one of them do it; when that one ends or loses
// its database session, another one continues.
//
// Each change that the node delivers becomes one row of peat.history, also across crashes: token and rows are committed
// together, and a node that no longer knows the token sends a snapshot, of which only the differences become rows.
package hub
