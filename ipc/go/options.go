package peat

import (
	"log/slog"
	"time"
)

// ClientOption configures [Connect].
type ClientOption interface{ configureClient(*clientOptions) }

// AgentOption configures [NewAgent].
type AgentOption interface{ configureAgent(*agentOptions) }

// ConnectionOption configures both a client and an agent.
type ConnectionOption interface {
	ClientOption
	AgentOption
}

// WriteOption configures [Client.Put] and [Client.Patch].
type WriteOption interface{ configureWrite(*writeOptions) }

// SubscribeOption configures [Client.Subscribe].
type SubscribeOption interface{ configureSubscription(*subscription) }

type clientOptions struct {
	token string
}

type agentOptions struct {
	clientOptions
	directory       string
	polls           bool
	pollingInterval time.Duration
	logger          *slog.Logger
}

type writeOptions struct {
	base      Version
	waitPeers uint32
	durable   bool
}

type connectionOption func(*clientOptions)

func (f connectionOption) configureClient(o *clientOptions) { f(o) }
func (f connectionOption) configureAgent(o *agentOptions)   { f(&o.clientOptions) }

type agentOption func(*agentOptions)

func (f agentOption) configureAgent(o *agentOptions) { f(o) }

type writeOption func(*writeOptions)

func (f writeOption) configureWrite(o *writeOptions) { f(o) }

type subscribeOption func(*subscription)

func (f subscribeOption) configureSubscription(s *subscription) { f(s) }

// WithToken sends a bearer token with every call, as --api-token-file of a TCP listener requires.
func WithToken(token string) ConnectionOption {
	return connectionOption(func(o *clientOptions) { o.token = token })
}

// WithDirectory keeps the record of commands in a directory that no other agent uses, so that no command runs twice, even when
// the agent restarts during one. Without a directory the record ends with the process.
func WithDirectory(directory string) AgentOption {
	return agentOption(func(o *agentOptions) { o.directory = directory })
}

// WithPolling asks the node for commands at each interval instead of holding a stream. The interval must be positive.
func WithPolling(interval time.Duration) AgentOption {
	return agentOption(func(o *agentOptions) { o.polls, o.pollingInterval = true, interval })
}

// WithLogger logs the loss and the return of the node and what the node rejects. Without it the agent logs nothing.
func WithLogger(logger *slog.Logger) AgentOption {
	return agentOption(func(o *agentOptions) { o.logger = logger })
}

// WithBase names the version that the writer has read. A merged document takes only the fields that differ from it; for a
// latest document that has another version by now, the write fails with Aborted. Without a base, Put replaces the stored
// document.
func WithBase(version Version) WriteOption {
	return writeOption(func(o *writeOptions) { o.base = version })
}

// WithWaitPeers delays the answer until count peers hold this or a later version on disk. When the deadline passes first, the
// call fails and the write stands.
func WithWaitPeers(count uint32) WriteOption {
	return writeOption(func(o *writeOptions) { o.waitPeers = count })
}

// WithDurable delays the answer until the write is on disk, for every kind of collection.
func WithDurable() WriteOption {
	return writeOption(func(o *writeOptions) { o.durable = true })
}

// WithCollections limits a subscription to these collections. Without it, or with no name, the subscription has all of them.
func WithCollections(names ...string) SubscribeOption {
	return subscribeOption(func(s *subscription) { s.collections = append(s.collections, names...) })
}

// WithExclude omits these collections, also when WithCollections names them.
func WithExclude(names ...string) SubscribeOption {
	return subscribeOption(func(s *subscription) { s.exclude = append(s.exclude, names...) })
}

// WithSnapshot begins the subscription with all existing documents, followed by a change of type ChangeSnapshotEnd.
func WithSnapshot() SubscribeOption {
	return subscribeOption(func(s *subscription) { s.snapshot = true })
}

// WithResumeAfter continues after the [Token] of a change. When the node no longer knows that point, the subscription delivers a
// ChangeReset and a snapshot.
func WithResumeAfter(token Token) SubscribeOption {
	return subscribeOption(func(s *subscription) { s.token, s.known = token, true })
}

// WithMaxChangeBytes limits the length of a change; a longer one has the type ChangeOversized. Without it the limit is 64 MiB.
func WithMaxChangeBytes(limit uint32) SubscribeOption {
	return subscribeOption(func(s *subscription) { s.maxChangeBytes = limit })
}
