package peat

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

const (
	// openCommands is the limit of unfinished commands at an agent; further ones stay PENDING at the node.
	openCommands = 1_000
	// closePatience bounds Close.
	closePatience = 5 * time.Second
	// goodbyePatience is how long the node may take to answer a goodbye.
	goodbyePatience = time.Second
)

// Registration describes an agent to the node.
type Registration struct {
	// ID identifies the agent across restarts.
	ID           string
	Name         string
	Group        string
	Version      string
	Capabilities []string
	Labels       map[string]string
	// Routes are addresses of the application in a form of its choice.
	Routes    []string
	Status    PlatformStatus
	Workloads []Workload
	Capacity  *Capacity
}

// State becomes platforms/{id} and deployments/{id}:{name}. It replaces the state of the registration and of earlier calls.
type State struct {
	Status    PlatformStatus
	Labels    map[string]string
	Workloads []Workload
	Capacity  *Capacity
}

// PlatformStatus is the readiness of an agent.
type PlatformStatus = pb.PlatformStatus

// Platform statuses.
const (
	PlatformReady    = pb.PlatformStatus_PLATFORM_STATUS_READY
	PlatformBusy     = pb.PlatformStatus_PLATFORM_STATUS_BUSY
	PlatformDegraded = pb.PlatformStatus_PLATFORM_STATUS_DEGRADED
	PlatformOffline  = pb.PlatformStatus_PLATFORM_STATUS_OFFLINE
)

// Workload is a piece of software that the agent runs.
type Workload struct {
	// Name is the last part of deployments/{agent}:{name}.
	Name, Version, Status string
	Labels                map[string]string
}

// Capacity is the size of the machine's resources and their use.
type Capacity struct {
	CPUUsed, CPUTotal                 float64
	MemoryUsedBytes, MemoryTotalBytes uint64
	DiskUsedBytes, DiskTotalBytes     uint64
}

// Agent is an application's end of the agent link. It stays registered and alive at the node through lost connections and
// restarts of either side, and runs each command once.
//
// A lost connection does not cancel accepted commands: their results are delivered when the node is back.
type Agent struct {
	id      string
	address string
	options agentOptions
	client  *Client

	life    context.Context // of the handlers; ends when Shutdown begins
	endLife context.CancelCauseFunc
	unbind  func() bool   // detaches the agent from the context of NewAgent
	leave   chan struct{} // closed to send the goodbye
	gone    chan struct{} // closed when the link's goroutine has ended
	ended   chan struct{} // closed when Shutdown has released everything

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when anything below changes
	dirty   chan struct{} // full while the node lacks something
	closed  bool

	registration Registration
	// Each change increments a count; the node has confirmed everything up to the one that ends in Reached.
	registered, registeredReached     uint64
	state, stateReached, stateRefused uint64
	stateError                        error
	connected                         bool
	granted                           *agentpb.Registered
	refused                           error // the node's reason to reject the registration

	ledger *ledger
	jobs   map[string]*job
	inbox  []*job
	once   map[string]*onceWork
}

// NewAgent starts an agent that registers with the node at address as soon as it reaches that node. It fails for an invalid
// address, a registration without an id, or a directory that it cannot use. The end of the context closes the agent as Close
// does; handlers inherit the context's values.
func NewAgent(ctx context.Context, address string, registration Registration, options ...AgentOption) (*Agent, error) {
	if registration.ID == "" {
		return nil, invalid("the registration has no id")
	}
	a := &Agent{id: registration.ID, address: address, registration: registration.clone(), options: agentOptions{logger: slog.New(slog.NewTextHandler(io.Discard, nil))},
		leave: make(chan struct{}), gone: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{}), dirty: make(chan struct{}, 1),
		registered: 1, jobs: map[string]*job{}, once: map[string]*onceWork{}}
	if registration.Status != 0 {
		a.state = 1
	}
	for _, option := range options {
		option.configureAgent(&a.options)
	}
	if a.options.polls && a.options.pollingInterval <= 0 {
		return nil, invalid("the polling interval is %v; it must be positive", a.options.pollingInterval)
	}
	var err error
	if a.client, err = newClient(address, a.options.clientOptions); err != nil {
		return nil, err
	}
	if a.ledger, err = openLedger(a.options.directory, registration.ID); err != nil {
		return nil, err
	}
	// The goodbye and the last results go out after ctx has ended.
	detached := context.WithoutCancel(ctx)
	a.life, a.endLife = context.WithCancelCause(detached)
	a.resume()
	go a.run(detached)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unbind = context.AfterFunc(ctx, func() { _ = a.Close() })
	return a, nil
}

// Client returns a client of the same node, for all other calls. It closes with the agent.
func (a *Agent) Client() *Client { return a.client }

// ID returns the agent's id.
func (a *Agent) ID() string { return a.id }

// Close is Shutdown with a limit of five seconds.
func (a *Agent) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	return a.Shutdown(ctx)
}

// Shutdown ends the contexts of running commands, delivers their results to a connected node, and says goodbye, which takes up to
// a second. It returns an error when the context ends first. A result that was not delivered is delivered after the next start, if
// the agent has a directory.
func (a *Agent) Shutdown(ctx context.Context) error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		select {
		case <-a.ended:
			return nil
		case <-ctx.Done():
			return contextError(ctx)
		}
	}
	a.closed = true
	a.notify()
	a.mu.Unlock()
	defer close(a.ended)
	a.unbind()
	a.endLife(ErrClosed)
	err := a.await(ctx, func() bool { return !a.unsettled(jobRunning) && (!a.connected || !a.unsettled(jobDone)) })
	close(a.leave)
	<-a.gone
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ledger.close()
	return errors.Join(err, a.client.Close())
}

// Connected reports whether the node has accepted the registration and the stream is open.
func (a *Agent) Connected() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connected
}

// Terms are the node's answer to the registration and its later updates.
type Terms struct {
	HeartbeatInterval, StaleAfter, DeadAfter time.Duration
	// EventsURL is the address of this agent's server-sent events; empty when the node does not listen on TCP.
	EventsURL string
	NodeID    string
	// NodePublicKey is the Ed25519 key that signs the node's own commands.
	NodePublicKey []byte
}

// Terms returns zero values before the node has accepted a registration. An agent that polls has no events.
func (a *Agent) Terms() Terms {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.granted
	if g == nil {
		return Terms{}
	}
	return Terms{HeartbeatInterval: milliseconds(g.HeartbeatIntervalMs), StaleAfter: milliseconds(g.StaleAfterMs),
		DeadAfter: milliseconds(g.DeadAfterMs), EventsURL: g.EventsUrl, NodeID: g.NodeId, NodePublicKey: g.NodePublicKey}
}

func milliseconds(count uint32) time.Duration { return time.Duration(count) * time.Millisecond }

// WaitRegistered waits until the node has accepted the newest registration. A rejection is the error.
func (a *Agent) WaitRegistered(ctx context.Context) error {
	a.mu.Lock()
	wanted := a.registered
	a.mu.Unlock()
	var refused error
	err := a.await(ctx, func() bool {
		refused = a.refused
		return a.connected && a.registeredReached >= wanted || refused != nil
	})
	return errors.Join(err, refused)
}

// Update changes the registration, except its id, and waits until the node has accepted it. A rejected change is reverted.
func (a *Agent) Update(ctx context.Context, change func(*Registration)) error {
	return a.apply(ctx, true, change)
}

// Heartbeat reports a new state and waits until the node has accepted it. A rejected state is reverted. Plain signs of life
// need no call: the agent sends them at the node's interval.
func (a *Agent) Heartbeat(ctx context.Context, state State) error {
	return a.apply(ctx, false, func(r *Registration) {
		r.Status, r.Labels, r.Workloads, r.Capacity = state.Status, state.Labels, state.Workloads, state.Capacity
	})
}

// ReportDeployment adds a workload to the state, or replaces the one of the same name, and waits until the node has accepted
// it.
func (a *Agent) ReportDeployment(ctx context.Context, workload Workload) error {
	return a.apply(ctx, false, func(r *Registration) {
		r.Workloads = append(without(r.Workloads, workload.Name), workload)
	})
}

// RemoveDeployment removes a workload from the state and waits until the node has accepted that.
func (a *Agent) RemoveDeployment(ctx context.Context, name string) error {
	return a.apply(ctx, false, func(r *Registration) { r.Workloads = without(r.Workloads, name) })
}

func without(workloads []Workload, name string) []Workload {
	return slices.DeleteFunc(slices.Clone(workloads), func(w Workload) bool { return w.Name == name })
}

// apply changes the registration, or only its state, and waits until the node has accepted or rejected that.
func (a *Agent) apply(ctx context.Context, register bool, change func(*Registration)) error {
	a.mu.Lock()
	before := a.registration.clone()
	change(&a.registration)
	a.registration.ID = a.id
	a.registration = a.registration.clone()
	state, registered := a.changedRegistration(register)
	a.mu.Unlock()

	var refused error
	err := a.await(ctx, func() bool {
		if refused = a.refused; refused == nil && a.stateRefused >= state {
			refused = a.stateError
		}
		return refused != nil || a.stateReached >= state && a.registeredReached >= registered
	})
	if refused == nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == state {
		a.registration, a.refused = before, nil
		a.changedRegistration(true)
	}
	return refused
}

// changedRegistration queues a change for the node and returns the counts that confirm it; a.mu is held.
func (a *Agent) changedRegistration(register bool) (state, registered uint64) {
	a.state++
	if register {
		a.registered++
		registered = a.registered
	}
	a.tell()
	return a.state, registered
}

// await waits until a condition on the agent's state holds.
func (a *Agent) await(ctx context.Context, condition func() bool) error {
	for {
		a.mu.Lock()
		holds, closed, changed := condition(), a.closed, a.changed
		a.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return contextError(ctx)
		case <-a.gone:
			if closed {
				return &Error{Code: Canceled, Message: "the agent was closed", cause: ErrClosed}
			}
		}
	}
}

// notify wakes all goroutines in await; a.mu is held.
func (a *Agent) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// tell makes the link send what the node lacks; a.mu is held.
func (a *Agent) tell() {
	select {
	case a.dirty <- struct{}{}:
	default:
	}
}

// clone returns a copy that shares nothing with the caller's value.
func (r Registration) clone() Registration {
	r.Capabilities, r.Routes, r.Labels = slices.Clone(r.Capabilities), slices.Clone(r.Routes), maps.Clone(r.Labels)
	r.Workloads = slices.Clone(r.Workloads)
	for i := range r.Workloads {
		r.Workloads[i].Labels = maps.Clone(r.Workloads[i].Labels)
	}
	if r.Capacity != nil {
		capacity := *r.Capacity
		r.Capacity = &capacity
	}
	return r
}

// message returns the registration as a message.
func (r Registration) message() *agentpb.Register {
	r = r.clone()
	return &agentpb.Register{AgentId: r.ID, Name: r.Name, Group: r.Group, Version: r.Version, Capabilities: r.Capabilities,
		Labels: r.Labels, Routes: r.Routes, Workloads: workloadMessages(r.Workloads), Capacity: r.Capacity.message()}
}

// state returns the whole state as a message.
func (r Registration) state() *agentpb.State {
	r = r.clone()
	return &agentpb.State{Status: r.Status, Labels: r.Labels, WorkloadsComplete: true,
		Workloads: workloadMessages(r.Workloads), Capacity: r.Capacity.message()}
}

func workloadMessages(workloads []Workload) []*agentpb.Workload {
	messages := make([]*agentpb.Workload, len(workloads))
	for i, w := range workloads {
		messages[i] = &agentpb.Workload{Name: w.Name, Version: w.Version, Status: w.Status, Labels: w.Labels}
	}
	return messages
}

func (c *Capacity) message() *agentpb.Capacity {
	if c == nil {
		return nil
	}
	return &agentpb.Capacity{CpuUsed: c.CPUUsed, CpuTotal: c.CPUTotal, MemoryUsedBytes: c.MemoryUsedBytes,
		MemoryTotalBytes: c.MemoryTotalBytes, DiskUsedBytes: c.DiskUsedBytes, DiskTotalBytes: c.DiskTotalBytes}
}
