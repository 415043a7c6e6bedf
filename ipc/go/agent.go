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

	"peat.dev/peat/gen/agentpb"
	pb "peat.dev/peat/gen/sidecarpb"
)

const (
	// openCommands may be unfinished at an agent; further ones stay PENDING at the node.
	openCommands = 1_000
	// closePatience is how long Close waits for the node to take the last results.
	closePatience = 5 * time.Second
)

// Registration is what an agent says of itself.
type Registration struct {
	// ID is the agent's own, kept across restarts.
	ID           string
	Name         string
	Group        string
	Version      string
	Capabilities []string
	Labels       map[string]string
	// Routes say where the application can be reached by others, in its own words.
	Routes    []string
	Status    PlatformStatus
	Workloads []Workload
	Capacity  *Capacity
}

// State is what becomes platforms/{id} and deployments/{id}:{name}. It replaces what the registration or an earlier state said.
type State struct {
	Status    PlatformStatus
	Labels    map[string]string
	Workloads []Workload
	Capacity  *Capacity
}

// PlatformStatus is how ready an agent is.
type PlatformStatus = pb.PlatformStatus

const (
	Ready    = pb.PlatformStatus_PLATFORM_STATUS_READY
	Busy     = pb.PlatformStatus_PLATFORM_STATUS_BUSY
	Degraded = pb.PlatformStatus_PLATFORM_STATUS_DEGRADED
	Offline  = pb.PlatformStatus_PLATFORM_STATUS_OFFLINE
)

// Workload is something the agent runs.
type Workload struct {
	// Name is the last part of deployments/{agent}:{name}.
	Name, Version, Status string
	Labels                map[string]string
}

// Capacity is what the machine has, and how much of it is in use.
type Capacity struct {
	CPUUsed, CPUTotal                 float64
	MemoryUsedBytes, MemoryTotalBytes uint64
	DiskUsedBytes, DiskTotalBytes     uint64
}

// Agent is an application's end of the agent link. It keeps itself registered and alive at the node, through lost
// connections and restarts of either side, and runs each command once.
//
// A lost connection does not cancel accepted work: its result is delivered when the node is back.
type Agent struct {
	id      string
	address string
	options agentOptions
	client  *Client

	life    context.Context // of the work; ends with Close
	endLife context.CancelCauseFunc
	leave   chan struct{} // closed to say goodbye
	gone    chan struct{} // closed when the link's goroutine has ended

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when anything below changes
	dirty   chan struct{} // holds a token while something is to be told to the node
	closed  bool

	registration Registration
	// Each change counts up; reached is what the node has confirmed.
	registered, registeredReached     uint64
	state, stateReached, stateRefused uint64
	stateError                        error
	connected                         bool
	granted                           *agentpb.Registered
	refused                           error // why the node does not take the registration

	ledger *ledger
	jobs   map[string]*job
	inbox  []*job
	once   map[string]*onceWork
}

type agentOptions struct {
	dir    string
	token  string
	poll   time.Duration
	logger *slog.Logger
}

// AgentOption changes how an Agent works.
type AgentOption func(*agentOptions)

// Remember gives the agent a directory of its own, where it keeps the ids of commands, so that none runs twice even when the
// agent is restarted in the middle of it. Without it ids are forgotten with the process.
func Remember(dir string) AgentOption { return func(o *agentOptions) { o.dir = dir } }

// Polling asks for commands every interval instead of holding a stream.
func Polling(interval time.Duration) AgentOption { return func(o *agentOptions) { o.poll = interval } }

// AgentToken is WithToken for an agent.
func AgentToken(token string) AgentOption { return func(o *agentOptions) { o.token = token } }

// Logger gets a line when the node is lost, found again, or refuses something. Default: nothing is logged.
func Logger(logger *slog.Logger) AgentOption { return func(o *agentOptions) { o.logger = logger } }

// NewAgent starts an agent that registers with the node at address as soon as that can be reached. It fails when the
// registration or the directory cannot be right.
func NewAgent(address string, registration Registration, options ...AgentOption) (*Agent, error) {
	if registration.ID == "" {
		return nil, invalid("an agent needs an id")
	}
	a := &Agent{id: registration.ID, address: address, registration: registration.clone(), options: agentOptions{logger: slog.New(slog.NewTextHandler(io.Discard, nil))},
		leave: make(chan struct{}), gone: make(chan struct{}), changed: make(chan struct{}), dirty: make(chan struct{}, 1),
		registered: 1, jobs: map[string]*job{}, once: map[string]*onceWork{}}
	if registration.Status != 0 {
		a.state = 1
	}
	for _, option := range options {
		option(&a.options)
	}
	var err error
	if a.client, err = newClient(address, []ClientOption{WithToken(a.options.token)}); err != nil {
		return nil, err
	}
	if a.ledger, err = openLedger(a.options.dir, registration.ID); err != nil {
		return nil, err
	}
	a.life, a.endLife = context.WithCancelCause(context.Background())
	a.resume()
	go a.run()
	return a, nil
}

// Client is a client of the same node, for everything that is not the agent's own.
func (a *Agent) Client() *Client { return a.client }

// ID is the agent's id.
func (a *Agent) ID() string { return a.id }

// Close ends the work of commands that are running, delivers what can be delivered within five seconds, and takes leave of
// the node. What could not be delivered is delivered after the next start, if the agent has a directory.
func (a *Agent) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		<-a.gone
		return nil
	}
	a.closed = true
	a.notify()
	a.mu.Unlock()
	a.endLife(ErrClosed)
	a.settleAll()
	close(a.leave)
	<-a.gone
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ledger.close()
	return a.client.Close()
}

// settleAll waits until everything that was begun has ended and, while the node can be told, it knows.
func (a *Agent) settleAll() {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	_ = a.await(ctx, func() bool { return !a.unsettled(jobRunning) && (!a.connected || !a.unsettled(jobDone)) })
}

// Connected says whether the node has the agent's registration and its stream is up.
func (a *Agent) Connected() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connected
}

// Terms are what the node answered to the registration, or has told since.
type Terms struct {
	HeartbeatInterval, StaleAfter, DeadAfter time.Duration
	// EventsURL is where this agent's server-sent events are; empty when the node does not listen on TCP.
	EventsURL string
	NodeID    string
	// NodePublicKey is the Ed25519 key that the node's own commands are signed with.
	NodePublicKey []byte
}

// Terms are zero before the node has taken a registration. An agent that polls has no events.
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

// WaitRegistered waits until the node has taken the newest registration. When the node refuses it, that is the error.
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

// Update changes what the agent says of itself, and waits until the node has taken it. The id stays. What the node refuses is
// taken back.
func (a *Agent) Update(ctx context.Context, change func(*Registration)) error {
	return a.apply(ctx, true, change)
}

// Heartbeat reports a new state, and waits until the node has taken it. What the node refuses is taken back. Signs of life
// without state need no call: the agent gives them by itself, as often as the node wants them.
func (a *Agent) Heartbeat(ctx context.Context, state State) error {
	return a.apply(ctx, false, func(r *Registration) {
		r.Status, r.Labels, r.Workloads, r.Capacity = state.Status, state.Labels, state.Workloads, state.Capacity
	})
}

// ReportDeployment adds a workload to the state, or changes the one of its name, and waits until the node has taken it.
func (a *Agent) ReportDeployment(ctx context.Context, workload Workload) error {
	return a.apply(ctx, false, func(r *Registration) {
		r.Workloads = append(without(r.Workloads, workload.Name), workload)
	})
}

// RemoveDeployment takes a workload out of the state, and waits until the node has taken that.
func (a *Agent) RemoveDeployment(ctx context.Context, name string) error {
	return a.apply(ctx, false, func(r *Registration) { r.Workloads = without(r.Workloads, name) })
}

func without(workloads []Workload, name string) []Workload {
	return slices.DeleteFunc(slices.Clone(workloads), func(w Workload) bool { return w.Name == name })
}

// apply changes the registration, or only the state in it, and waits until the node has taken or refused that.
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

// changedRegistration has the node told of a change, and gives the counts that it is then to have reached; a.mu is held.
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

// notify wakes everything that waits; a.mu is held.
func (a *Agent) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// tell has the link look for what the node does not know; a.mu is held.
func (a *Agent) tell() {
	select {
	case a.dirty <- struct{}{}:
	default:
	}
}

// clone is a copy that shares nothing with what its caller may still change.
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

// message is the registration as it travels.
func (r Registration) message() *agentpb.Register {
	r = r.clone()
	return &agentpb.Register{AgentId: r.ID, Name: r.Name, Group: r.Group, Version: r.Version, Capabilities: r.Capabilities,
		Labels: r.Labels, Routes: r.Routes, Workloads: workloadMessages(r.Workloads), Capacity: r.Capacity.message()}
}

// state is the whole state as it travels.
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
