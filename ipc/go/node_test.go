package peat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	peat "peat.internal/peat-node.git/ipc/go"
	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

// patience is how long a test waits for what must happen; only a failing one waits it out.
const patience = 60 * time.Second

// binary is the node these tests run against.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("PEAT_NODE_BINARY")
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("PEAT_NODE_BINARY is not set")
		}
		t.Skip("PEAT_NODE_BINARY is not set: it names the node to test against")
	}
	return path
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quick has a node notice within seconds what takes minutes otherwise.
var quick = []string{"--heartbeat", "1", "--stale-after", "3", "--dead-after", "60"}

func startNode(t *testing.T, flags ...string) (*testnode.Node, *peat.Client) {
	t.Helper()
	node, err := testnode.Start(binary(t), t.TempDir(), flags...)
	must(t, err)
	watch(t, node)
	return node, connect(t, node.Address())
}

// watch ends a node with its test, and prints its log if the test failed.
func watch(t *testing.T, node *testnode.Node) {
	t.Cleanup(func() {
		node.Kill()
		if t.Failed() {
			t.Log(node.Log())
		}
	})
}

func connect(t *testing.T, address string) *peat.Client {
	t.Helper()
	client, err := peat.Connect(patient(t), address)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func newAgent(t *testing.T, address string, registration peat.Registration, options ...peat.AgentOption) *peat.Agent {
	t.Helper()
	agent, err := peat.NewAgent(context.Background(), address, registration, options...)
	must(t, err)
	t.Cleanup(func() { agent.Close() })
	must(t, agent.WaitRegistered(patient(t)))
	return agent
}

func eventually(t *testing.T, what string, condition func() (bool, error)) {
	t.Helper()
	must(t, testnode.Eventually(patient(t), what, condition))
}

// shows waits until a node shows an agent like this.
func shows(t *testing.T, client *peat.Client, id string, holds func(*peat.AgentInfo) bool) {
	t.Helper()
	var last *peat.AgentInfo
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	eventually(t, "agent "+id, func() (bool, error) {
		agents, err := client.Agents(patient(t), peat.AgentFilter{})
		for _, agent := range agents {
			if agent.AgentId == id {
				last = agent
				return holds(agent), err
			}
		}
		return false, err
	})
}

func is(liveness peat.Liveness) func(*peat.AgentInfo) bool {
	return func(agent *peat.AgentInfo) bool { return agent.Liveness == liveness }
}

// proxy stands between an agent and its node, and cuts them apart.
type proxy struct {
	t        *testing.T
	path, to string
	mu       sync.Mutex
	listener net.Listener
	open     []net.Conn
}

func newProxy(t *testing.T, node *testnode.Node) *proxy {
	p := &proxy{t: t, path: filepath.Join(t.TempDir(), "proxy"), to: node.Address()[len("unix://"):]}
	p.mend()
	t.Cleanup(p.cut)
	return p
}

func (p *proxy) address() string { return "unix://" + p.path }

func (p *proxy) mend() {
	listener, err := net.Listen("unix", p.path)
	must(p.t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = listener
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			p.join(near)
		}
	}()
}

func (p *proxy) join(near net.Conn) {
	far, err := net.Dial("unix", p.to)
	if err != nil {
		near.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, near, far)
	for from, to := range map[net.Conn]net.Conn{near: far, far: near} {
		go func() {
			buffer := make([]byte, 64<<10)
			for {
				count, err := from.Read(buffer)
				if _, written := to.Write(buffer[:count]); err != nil || written != nil {
					near.Close()
					far.Close()
					return
				}
			}
		}()
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener.Close()
	for _, conn := range p.open {
		conn.Close()
	}
	p.open = nil
}

func TestAnAgentIsLiveWhileItsStreamIsUpAndItsIDKeepsItsPlace(t *testing.T) {
	node, client := startNode(t, append(quick, "--node-id", "edge")...)
	proxy := newProxy(t, node)
	agent := newAgent(t, proxy.address(), peat.Registration{ID: "radar-1", Name: "Radar", Group: "sensors", Version: "1.0",
		Capabilities: []string{"track"}, Labels: map[string]string{"site": "north"}, Status: peat.PlatformReady})
	shows(t, client, "radar-1", func(a *peat.AgentInfo) bool {
		return a.Liveness == peat.LivenessLive && a.Group == "sensors" && a.Version == "1.0" && a.Via == "edge" && a.AttachedHere &&
			a.Labels["site"] == "north" && a.Status == peat.PlatformReady
	})
	proxy.cut()
	shows(t, client, "radar-1", is(peat.LivenessStale))
	proxy.mend()
	shows(t, client, "radar-1", is(peat.LivenessLive))
	must(t, agent.Update(patient(t), func(r *peat.Registration) { r.Version = "1.1" }))
	shows(t, client, "radar-1", func(a *peat.AgentInfo) bool { return a.Liveness == peat.LivenessLive && a.Version == "1.1" })
	agents, err := client.Agents(patient(t), peat.AgentFilter{Group: "sensors"})
	must(t, err)
	if len(agents) != 1 {
		t.Fatal(agents)
	}
	// Its heartbeats keep it LIVE for longer than silence would.
	longer, cancel := context.WithTimeout(patient(t), 4*time.Second)
	defer cancel()
	for change, err := range client.WatchAgents(longer) {
		if err == nil && change.Agent != nil && change.Agent.Liveness != peat.LivenessLive {
			t.Fatal(change.Agent)
		}
	}
	must(t, agent.Close())
	shows(t, client, "radar-1", is(peat.LivenessStale))
}

func TestTheFleetShowsWhatAnAgentReports(t *testing.T) {
	node, client := startNode(t)
	agent := newAgent(t, node.Address(), peat.Registration{ID: "a1",
		Workloads: []peat.Workload{{Name: "old", Version: "1"}}, Capacity: &peat.Capacity{CPUTotal: 8}})
	must(t, agent.Heartbeat(patient(t), peat.State{Status: peat.PlatformDegraded, Workloads: []peat.Workload{{Name: "tracker", Version: "1"}}}))
	must(t, agent.ReportDeployment(patient(t), peat.Workload{Name: "map", Version: "2", Status: "running"}))
	deployed := func(want ...string) {
		t.Helper()
		eventually(t, fmt.Sprint(want), func() (bool, error) {
			deployments, err := client.FleetDeployments(patient(t))
			var have []string
			for _, d := range deployments {
				have = append(have, d.AgentID+"/"+d.Package+"/"+d.Version)
			}
			return fmt.Sprint(have) == fmt.Sprint(want), err
		})
	}
	deployed("a1/map/2", "a1/tracker/1")
	must(t, agent.RemoveDeployment(patient(t), "tracker"))
	deployed("a1/map/2")
	platforms, err := client.FleetPlatforms(patient(t))
	must(t, err)
	if len(platforms) != 1 || platforms[0].AgentID != "a1" || platforms[0].Liveness != peat.LivenessLive {
		t.Fatal(platforms)
	}
}

func TestWhatTheNodeRefusesOfAnAgentIsToldAndTakenBack(t *testing.T) {
	node, client := startNode(t)
	agent := newAgent(t, node.Address(), peat.Registration{ID: "a1", Version: "1"})
	if err := agent.ReportDeployment(patient(t), peat.Workload{Name: ""}); !errors.Is(err, peat.InvalidArgument) {
		t.Fatal(err)
	}
	err := agent.Update(patient(t), func(r *peat.Registration) { r.Labels = map[string]string{"k": string(make([]byte, 3<<20))} })
	if err == nil {
		t.Fatal("a label of 3 MiB")
	}
	must(t, agent.ReportDeployment(patient(t), peat.Workload{Name: "w", Version: "1"}))
	shows(t, client, "a1", func(a *peat.AgentInfo) bool { return a.Liveness == peat.LivenessLive && a.Version == "1" })
}

func TestAnIDThatNoDocumentCanHaveIsRefused(t *testing.T) {
	node, _ := startNode(t)
	if agent, err := peat.NewAgent(context.Background(), node.Address(), peat.Registration{ID: "a\nb"}); err == nil {
		defer agent.Close()
		if err := agent.WaitRegistered(patient(t)); !errors.Is(err, peat.InvalidArgument) {
			t.Fatal(err)
		}
	}
}

func TestWatchAgentsGivesAllOfThemAndThenEveryChange(t *testing.T) {
	node, client := startNode(t)
	newAgent(t, node.Address(), peat.Registration{ID: "a1"})
	var seen []string
	for change, err := range client.WatchAgents(patient(t)) {
		must(t, err)
		if change.Type == peat.ChangeSnapshotEnd {
			seen = append(seen, "end")
			newAgent(t, node.Address(), peat.Registration{ID: "a2"})
			continue
		}
		seen = append(seen, change.Agent.AgentId)
		if change.Agent.AgentId == "a2" {
			break
		}
	}
	if len(seen) < 3 || seen[0] != "a1" || seen[1] != "end" {
		t.Fatal(seen)
	}
}

// runtime is what commands have an effect on.
type runtime struct {
	mu      sync.Mutex
	running map[string]string
	starts  atomic.Int32
}

func (r *runtime) deploy(_ context.Context, command *peat.Command) (any, error) {
	var wanted struct{ Name, Version string }
	if err := command.Decode(&wanted); err != nil {
		return nil, err
	}
	if wanted.Version == "" {
		return nil, errors.New("which version?")
	}
	r.starts.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[wanted.Name] = wanted.Version
	return map[string]string{"deployed": wanted.Name}, nil
}

func (r *runtime) version(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[name]
}

func outcome(t *testing.T, client *peat.Client, id string) *peat.CommandRecord {
	t.Helper()
	record, err := client.WaitCommand(patient(t), id)
	must(t, err)
	return record
}

const (
	completed = pb.CommandStatus_COMMAND_STATUS_COMPLETED
	failed    = pb.CommandStatus_COMMAND_STATUS_FAILED
	cancelled = pb.CommandStatus_COMMAND_STATUS_CANCELLED
	executing = pb.CommandStatus_COMMAND_STATUS_EXECUTING
)

func TestACommandHasItsEffectAndItsResultIsToldOnAnotherNode(t *testing.T) {
	edge, hub, err := testnode.Pair(binary(t), t.TempDir(), nil, nil)
	must(t, err)
	watch(t, edge)
	watch(t, hub)
	client := connect(t, hub.Address())
	agent := newAgent(t, edge.Address(), peat.Registration{ID: "a1", Group: "g"}, peat.WithDirectory(t.TempDir()))
	world := &runtime{running: map[string]string{}}
	go agent.Handle(patient(t), world.deploy)
	shows(t, client, "a1", is(peat.LivenessLive))

	id, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "deploy",
		Payload: map[string]string{"name": "radar", "version": "2"}})
	must(t, err)
	if record := outcome(t, client, id); record.Status != completed || record.ResultJson != `{"deployed":"radar"}` {
		t.Fatal(record)
	}
	if world.version("radar") != "2" {
		t.Fatal(world.running)
	}
	id, err = client.SendCommand(patient(t), peat.NewCommand{Group: "g", Type: "deploy", Payload: `{"name": "radar"}`})
	must(t, err)
	if record := outcome(t, client, id); record.Status != failed || record.Error != "which version?" {
		t.Fatal(record)
	}
	_, err = client.SendCommand(patient(t), peat.NewCommand{Group: "nobody", Type: "deploy"})
	if !errors.Is(err, peat.FailedPrecondition) {
		t.Fatal(err)
	}
}

func TestACutInTheMiddleOfTheWorkIsOneExecutionAndTheResultComesAfterwards(t *testing.T) {
	node, client := startNode(t, quick...)
	proxy := newProxy(t, node)
	agent := newAgent(t, proxy.address(), peat.Registration{ID: "a1"}, peat.WithDirectory(t.TempDir()))
	begun, finish := make(chan struct{}, 2), make(chan struct{})
	var runs atomic.Int32
	go agent.Handle(patient(t), func(ctx context.Context, command *peat.Command) (any, error) {
		return command.Once(ctx, "deploy radar 2", func(ctx context.Context) (json.RawMessage, error) {
			runs.Add(1)
			begun <- struct{}{}
			select {
			case <-finish:
				return json.RawMessage(`{"took":"a while"}`), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
	})
	first, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "deploy"})
	must(t, err)
	<-begun
	proxy.cut()
	shows(t, client, "a1", is(peat.LivenessStale))
	// The sender gets no result and sends the command again.
	retry, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "deploy"})
	must(t, err)
	record, err := client.Command(patient(t), first)
	must(t, err)
	if record.Status != executing {
		t.Fatal(record)
	}
	close(finish)
	proxy.mend()
	for _, id := range []string{first, retry} {
		if record := outcome(t, client, id); record.Status != completed || record.ResultJson != `{"took":"a while"}` {
			t.Fatal(record)
		}
	}
	if runs.Load() != 1 {
		t.Fatal(runs.Load())
	}
}

func TestANodeThatCrashesInTheMiddleOfTheWorkLosesNothing(t *testing.T) {
	node, client := startNode(t)
	agent := newAgent(t, node.Address(), peat.Registration{ID: "a1"})
	begun, finish := make(chan struct{}, 2), make(chan struct{})
	var runs atomic.Int32
	go agent.Handle(patient(t), func(context.Context, *peat.Command) (any, error) {
		runs.Add(1)
		begun <- struct{}{}
		<-finish
		return "1", nil
	})
	id, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "work", TTL: peat.NoExpiry})
	must(t, err)
	<-begun
	node.Kill()
	close(finish)
	must(t, node.Resume())
	if record := outcome(t, client, id); record.Status != completed || record.ResultJson != "1" || runs.Load() != 1 {
		t.Fatal(record, runs.Load())
	}
}

func TestAnAgentThatIsRestartedDoesNotRunTheSameCommandAgain(t *testing.T) {
	node, client := startNode(t)
	dir := t.TempDir()
	proxy := newProxy(t, node)
	before := newAgent(t, proxy.address(), peat.Registration{ID: "a1"}, peat.WithDirectory(dir))
	id, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "work", TTL: peat.NoExpiry})
	must(t, err)
	for command, err := range before.Commands(patient(t)) {
		must(t, err)
		must(t, command.Accept(patient(t)))
		break
	}
	proxy.cut()
	if err := before.Close(); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Close with a command that runs returns %v, want DeadlineExceeded", err)
	}
	after := newAgent(t, node.Address(), peat.Registration{ID: "a1"}, peat.WithDirectory(dir))
	var runs atomic.Int32
	go after.Handle(patient(t), func(context.Context, *peat.Command) (any, error) { runs.Add(1); return nil, nil })
	if record := outcome(t, client, id); record.Status != failed || runs.Load() != 0 {
		t.Fatal(record, runs.Load())
	}
}

func TestACancelIsRequestedUntilTheAgentConfirmsIt(t *testing.T) {
	node, client := startNode(t)
	agent := newAgent(t, node.Address(), peat.Registration{ID: "a1"})
	begun := make(chan struct{})
	go agent.Handle(patient(t), func(ctx context.Context, _ *peat.Command) (any, error) {
		close(begun)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	id, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "work"})
	must(t, err)
	<-begun
	targets, err := client.CancelCommand(patient(t), id)
	must(t, err)
	if len(targets) != 1 || targets[0].AgentId != "a1" {
		t.Fatal(targets)
	}
	if record := outcome(t, client, id); record.Status != cancelled {
		t.Fatal(record)
	}
}

func TestACommandThatExpiredIsNotRun(t *testing.T) {
	node, client := startNode(t)
	agent := newAgent(t, node.Address(), peat.Registration{ID: "a1"})
	id, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "work", TTL: time.Second})
	must(t, err)
	if record := outcome(t, client, id); record.Status != pb.CommandStatus_COMMAND_STATUS_EXPIRED {
		t.Fatal(record)
	}
	next, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "work"})
	must(t, err)
	for command, err := range agent.Commands(patient(t)) {
		must(t, err)
		if command.ID != next {
			t.Fatal(command.ID)
		}
		break
	}
}

func TestCommandsRunOnceAndAllEndWhateverIsCutAndCrashes(t *testing.T) {
	const commands = 60
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	node, _ := startNode(t)
	proxy, dir := newProxy(t, node), t.TempDir()
	var mu sync.Mutex
	runs := map[string]int{}
	start := func() *peat.Agent {
		agent := newAgent(t, proxy.address(), peat.Registration{ID: "a1"}, peat.WithDirectory(dir))
		go agent.Handle(patient(t), func(ctx context.Context, command *peat.Command) (any, error) {
			mu.Lock()
			runs[command.ID]++
			mu.Unlock()
			select {
			case <-time.After(time.Duration(len(command.ID)) * time.Millisecond):
				return `{"ran": true}`, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		return agent
	}
	agent := start()
	ids := make([]string, commands)
	for i := range ids {
		var err error
		// The proxy is the agent's; the sender's own connection ends with the node.
		for ok := false; !ok; ok = err == nil {
			ids[i], err = connect(t, node.Address()).SendCommand(patient(t),
				peat.NewCommand{Agent: "a1", Type: "work", TTL: peat.NoExpiry, ID: fmt.Sprint("c", i)})
		}
		switch random.IntN(12) {
		case 0, 1, 2:
			proxy.cut()
			proxy.mend()
		case 3:
			node.Kill()
			must(t, node.Resume())
		case 4:
			must(t, agent.Close())
			agent = start()
		}
	}
	client := connect(t, node.Address())
	for _, id := range ids {
		record := outcome(t, client, id)
		if record.Status != completed && record.Status != failed {
			t.Fatal(record)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for id, count := range runs {
		if count != 1 {
			t.Fatalf("%s ran %d times", id, count)
		}
	}
}

func TestManyGoroutinesShareOneConnectionAndCancelWhatTheyLike(t *testing.T) {
	_, client := startNode(t)
	var all sync.WaitGroup
	for worker := range 32 {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := range 40 {
				ctx, cancel := context.WithCancel(patient(t))
				if n%4 == 0 {
					time.AfterFunc(time.Duration(n)*10*time.Microsecond, cancel)
				}
				_, err := client.Put(ctx, "tracks", fmt.Sprint("t", worker, "-", n), fmt.Sprintf(`{"n": %d}`, n))
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		}()
	}
	all.Wait()
	if ids, err := client.List(patient(t), "tracks"); err != nil || len(ids) < 32*30 {
		t.Fatal(len(ids), err)
	}
}

func TestASecondAgentOfTheSameIDTakesOver(t *testing.T) {
	node, client := startNode(t)
	first := newAgent(t, node.Address(), peat.Registration{ID: "a1", Version: "1"})
	newAgent(t, node.Address(), peat.Registration{ID: "a1", Version: "2"})
	shows(t, client, "a1", func(a *peat.AgentInfo) bool { return a.Liveness == peat.LivenessLive && a.Version == "2" })
	eventually(t, "the first knows", func() (bool, error) { return !first.Connected(), nil })
}

func TestAnAgentThatPollsWorksAsWell(t *testing.T) {
	node, client := startNode(t)
	agent := newAgent(t, node.Address(), peat.Registration{ID: "a1", Name: "poller"}, peat.WithPolling(20*time.Millisecond))
	world := &runtime{running: map[string]string{}}
	go agent.Handle(patient(t), world.deploy)
	shows(t, client, "a1", is(peat.LivenessLive))
	for _, command := range []peat.NewCommand{{Agent: "a1"}, {All: true}} {
		command.Type, command.Payload = "deploy", `{"name": "radar", "version": "2"}`
		id, err := client.SendCommand(patient(t), command)
		must(t, err)
		if record := outcome(t, client, id); record.Status != completed || world.version("radar") != "2" {
			t.Fatal(record)
		}
	}
	if world.starts.Load() != 2 {
		t.Fatal(world.starts.Load())
	}
}

func TestAnAgentThatPollsIsRegisteredWithAllItSays(t *testing.T) {
	node, client := startNode(t, "--heartbeat", "2")
	registration := peat.Registration{ID: "a1", Name: "poller", Group: "north", Version: "1", Capabilities: []string{"x"},
		Labels: map[string]string{"site": "k", "old": "1"}, Routes: []string{"http://10.0.0.1"}, Status: peat.PlatformBusy,
		Workloads: []peat.Workload{{Name: "web", Version: "3"}}, Capacity: &peat.Capacity{CPUTotal: 4}}
	agent := newAgent(t, node.Address(), registration, peat.WithPolling(20*time.Millisecond))
	if terms := agent.Terms(); terms.HeartbeatInterval != 2*time.Second || len(terms.NodePublicKey) != 32 {
		t.Fatal(terms)
	}
	shows(t, client, "a1", func(agent *peat.AgentInfo) bool {
		return agent.Group == "north" && agent.Version == "1" && agent.Labels["site"] == "k" && len(agent.Routes) == 1
	})
	id, err := client.SendCommand(patient(t), peat.NewCommand{Group: "north", Type: "deploy"})
	must(t, err)
	if record, err := client.Command(patient(t), id); err != nil || len(record.Targets) != 1 {
		t.Fatal(record, err)
	}
	_, err = client.Patch(patient(t), "platforms", "a1", `{"latitude": 2.5}`)
	must(t, err)
	must(t, agent.ReportDeployment(patient(t), peat.Workload{Name: "db", Version: "1"}))
	must(t, agent.RemoveDeployment(patient(t), "web"))
	must(t, agent.Update(patient(t), func(r *peat.Registration) {
		r.Version, r.Labels, r.Group = "2", map[string]string{"site": "j"}, ""
	}))
	deployed, err := client.List(patient(t), "deployments")
	must(t, err)
	if len(deployed) != 1 || deployed[0] != "a1:db" {
		t.Fatal(deployed)
	}
	platforms, err := client.FleetPlatforms(patient(t))
	must(t, err)
	if p := platforms[0]; p.Group != "" || p.Version != "2" || len(p.Labels) != 1 || p.Labels["site"] != "j" || len(p.Routes) != 1 {
		t.Fatal(p)
	}
	if !strings.Contains(string(platforms[0].Document), "2.5") {
		t.Fatal("a sign of life wrote over what others say")
	}
	err = agent.Update(patient(t), func(r *peat.Registration) { r.Name = strings.Repeat("x", 2<<20) })
	if !errors.Is(err, peat.InvalidArgument) && !errors.Is(err, peat.ResourceExhausted) {
		t.Fatal("what the node cannot hold is an error:", err)
	}
}

func TestResultsOfEarlierCommandsKeepNoPollingAgentFromItsWork(t *testing.T) {
	node, client := startNode(t)
	agent := newAgent(t, node.Address(), peat.Registration{ID: "a1"}, peat.WithPolling(20*time.Millisecond))
	result := `"` + strings.Repeat("r", 200_000) + `"`
	go agent.Handle(patient(t), func(context.Context, *peat.Command) (any, error) { return result, nil })
	for range 25 {
		id, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "work"})
		must(t, err)
		if record := outcome(t, client, id); record.Status != completed {
			t.Fatal(record.Status, record.Error)
		}
	}
	all, err := client.Commands(patient(t), peat.CommandFilter{Agent: "a1"})
	must(t, err)
	if len(all) != 25 {
		t.Fatal(len(all))
	}
}

func TestASubscriptionMissesNothingWhileTheNodeIsRestarted(t *testing.T) {
	node, client := startNode(t)
	ctx, cancel := context.WithCancel(patient(t))
	defer cancel()
	changes := make(chan *peat.Change, 16)
	go func() {
		for change, err := range client.Subscribe(ctx, peat.WithCollections("notes"), peat.WithSnapshot()) {
			if err == nil {
				changes <- change
			}
		}
	}()
	next := func(kind peat.ChangeType, id string) {
		t.Helper()
		select {
		case change := <-changes:
			if change.Type != kind || change.ID != id {
				t.Fatalf("%+v", change)
			}
		case <-patient(t).Done():
			t.Fatal("nothing comes")
		}
	}
	next(peat.ChangeSnapshotEnd, "")
	put := func(id string) {
		t.Helper()
		_, err := connect(t, node.Address()).Put(patient(t), "notes", id, `{}`)
		must(t, err)
	}
	put("n1")
	next(peat.ChangeUpsert, "n1")
	node.Stop()
	must(t, node.Resume())
	put("n2")
	next(peat.ChangeUpsert, "n2")
}

func TestTheCallsOfTheInterfaceWorkAgainstANode(t *testing.T) {
	node, client := startNode(t)
	ctx := patient(t)
	must(t, client.PutPlatform(ctx, &peat.Platform{Id: "p1", Name: "first", Status: peat.PlatformReady}))
	must(t, client.PutCell(ctx, &peat.Cell{Id: "c1", Name: "cell"}))
	must(t, client.PutTrack(ctx, &peat.Track{Id: "t1", Classification: "car"}))
	platforms, err := client.Platforms(ctx)
	must(t, err)
	cells, err := client.Cells(ctx)
	must(t, err)
	tracks, err := client.Tracks(ctx)
	must(t, err)
	if platforms[0].Name != "first" || cells[0].Name != "cell" || tracks[0].Classification != "car" {
		t.Fatal(platforms, cells, tracks)
	}
	written, err := client.Put(ctx, "tracks", "t2", `{"n": 1}`)
	must(t, err)
	_, err = client.Put(ctx, "tracks", "t2", `{"n": 2}`, peat.WithBase(written.Version), peat.WithDurable())
	must(t, err)
	if _, err := client.Put(ctx, "tracks", "t2", `{"n": 3}`, peat.WithBase(written.Version)); !errors.Is(err, peat.Aborted) {
		t.Fatal(err)
	}
	_, err = client.Put(ctx, "notes", "n1", `{"n": 1}`)
	must(t, err)
	_, _, err = client.Compact(ctx, "notes", "n1")
	must(t, err)
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := client.Put(short, "notes", "n2", `{}`, peat.WithWaitPeers(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	must(t, client.StopSync(ctx))
	status, err := client.Status(ctx)
	must(t, err)
	if status.SyncActive || status.EndpointAddr != node.ID {
		t.Fatal(status)
	}
	must(t, client.StartSync(ctx))
	if stats, err := client.SyncStats(ctx); err != nil || !stats.SyncActive {
		t.Fatal(stats, err)
	}
	other := fmt.Sprintf("%064x", 1)
	if err := client.ConnectPeer(ctx, peat.PeerTarget{EndpointID: other}); !errors.Is(err, peat.FailedPrecondition) && !errors.Is(err, peat.InvalidArgument) {
		t.Fatal(err)
	}
	must(t, client.ConnectPeer(ctx, peat.PeerTarget{EndpointID: peerID, Addresses: []string{"127.0.0.1:9"}}))
	if peers, err := client.Peers(ctx, peat.PeerFilter{}); err != nil || len(peers) != 1 || peers[0].Connected {
		t.Fatal(peers, err)
	}
	waiting, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	unreachable := peat.PeerTarget{EndpointID: peerID, Addresses: []string{"127.0.0.1:9"}, Wait: true}
	if err := client.ConnectPeer(waiting, unreachable); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	must(t, client.DisconnectPeer(ctx, peerID))
	for all, want := range map[bool]int{false: 0, true: 1} {
		if peers, err := client.Peers(ctx, peat.PeerFilter{All: all}); err != nil || len(peers) != want {
			t.Fatalf("Peers with All %v: %v %v, want %d", all, peers, err, want)
		}
	}
}

// peerID is an endpoint id of a node that does not exist.
const peerID = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"

func TestASubscriptionOmitsWhatItExcludesAndNamesWhatIsTooLong(t *testing.T) {
	_, client := startNode(t)
	ctx := patient(t)
	for collection, text := range map[string]string{"notes": "short", "long": strings.Repeat("x", 2000), "secret": "s"} {
		_, err := client.Put(ctx, collection, "d", map[string]string{"text": text})
		must(t, err)
	}
	got := map[string]peat.ChangeType{}
	for change, err := range client.Subscribe(ctx, peat.WithSnapshot(), peat.WithExclude("secret"), peat.WithMaxChangeBytes(1000)) {
		must(t, err)
		if change.Type == peat.ChangeSnapshotEnd {
			break
		}
		got[change.Collection] = change.Type
		if change.Type == peat.ChangeOversized && !strings.Contains(change.Error, "max_change_bytes") {
			t.Fatal(change.Error)
		}
	}
	if want := map[string]peat.ChangeType{"notes": peat.ChangeUpsert, "long": peat.ChangeOversized}; !maps.Equal(got, want) {
		t.Fatalf("the subscription has %v, want %v", got, want)
	}
}

func TestCommandsAreFilteredByStatusAndByWhatAnAgentMayStillRun(t *testing.T) {
	_, client := startNode(t)
	ctx := patient(t)
	for id, ttl := range map[string]time.Duration{"over": time.Second, "open": peat.NoExpiry} {
		_, err := client.SendCommand(ctx, peat.NewCommand{Agent: "a1", Type: "work", ID: id, TTL: ttl})
		must(t, err)
	}
	_, err := client.WaitCommand(ctx, "over")
	must(t, err)
	for want, filter := range map[string]peat.CommandFilter{
		"[open over]": {}, "[over]": {Status: []peat.CommandStatus{peat.CommandExpired, peat.CommandFailed}},
		"[open]": {Agent: "a1", PendingOnly: true}, "[]": {Agent: "a2"},
	} {
		commands, err := client.Commands(ctx, filter)
		must(t, err)
		ids := []string{}
		for _, command := range commands {
			ids = append(ids, command.Id)
		}
		slices.Sort(ids)
		if fmt.Sprint(ids) != want {
			t.Errorf("%+v selects %v, want %s", filter, ids, want)
		}
	}
}

func TestAnAgentGivesSignsOfLifeMoreOftenThanItPolls(t *testing.T) {
	node, client := startNode(t, quick...)
	newAgent(t, node.Address(), peat.Registration{ID: "a1"}, peat.WithPolling(time.Hour))
	var last uint64
	shows(t, client, "a1", func(agent *peat.AgentInfo) bool {
		renewed := agent.AgeMs < last
		last = agent.AgeMs
		return renewed
	})
}
