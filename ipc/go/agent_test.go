package peat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

const (
	accepted  = agentpb.CommandUpdate_STAGE_ACCEPTED
	completed = agentpb.CommandUpdate_STAGE_COMPLETED
	failed    = agentpb.CommandUpdate_STAGE_FAILED
	stopped   = agentpb.CommandUpdate_STAGE_CANCELLED
)

func startAgent(t *testing.T, node *fakeNode, options ...AgentOption) *Agent {
	t.Helper()
	agent, err := NewAgent(context.Background(), node.address(), Registration{ID: "a1", Group: "g"}, options...)
	must(t, err)
	t.Cleanup(func() {
		// No node takes a goodbye.
		agent.lostLink()
		agent.Close()
	})
	return agent
}

// handle has commands carried out; it ends with the test.
func handle(t *testing.T, agent *Agent, handler Handler) {
	go agent.Handle(testContext(t), handler)
}

func TestARegistrationSaysAllThereIs(t *testing.T) {
	node := newFakeNode(t)
	agent, err := NewAgent(context.Background(), node.address(), Registration{ID: "a1", Name: "n", Group: "g", Version: "1", Capabilities: []string{"c"},
		Labels: map[string]string{"k": "v"}, Routes: []string{"r"}, Status: PlatformReady,
		Workloads: []Workload{{Name: "w", Version: "2", Status: "up"}}, Capacity: &Capacity{CPUTotal: 4}})
	must(t, err)
	defer agent.Close()
	link := node.link()
	r := link.register
	if r.AgentId != "a1" || r.Name != "n" || r.Group != "g" || r.Version != "1" || r.Capabilities[0] != "c" ||
		r.Labels["k"] != "v" || r.Routes[0] != "r" || r.Workloads[0].Name != "w" || r.Capacity.CpuTotal != 4 {
		t.Fatal(r)
	}
	must(t, agent.WaitRegistered(testContext(t)))
	// What a registration has no place for comes with the first heartbeat.
	if state := link.hear().GetHeartbeat().GetState(); state.GetStatus() != PlatformReady {
		t.Fatal(state)
	}
	if terms := agent.Terms(); terms.NodeID != "fake" || terms.HeartbeatInterval != time.Minute {
		t.Fatal(terms)
	}
	link.drop()
}

func TestAPollingIntervalIsPositive(t *testing.T) {
	for _, interval := range []time.Duration{0, -time.Second} {
		_, err := NewAgent(context.Background(), "unix:///x", Registration{ID: "a1"}, WithPolling(interval))
		if !errors.Is(err, InvalidArgument) {
			t.Errorf("an interval of %v gives %v, want InvalidArgument", interval, err)
		}
	}
}

func TestAnAgentNeedsAnID(t *testing.T) {
	if _, err := NewAgent(context.Background(), "unix:///x", Registration{}); !errors.Is(err, InvalidArgument) {
		t.Fatal(err)
	}
}

func TestARefusedRegistrationIsToldAndTriedAgain(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	link := node.unansweredLink()
	link.fail(link.call, PermissionDenied, "another user's")
	if err := agent.WaitRegistered(testContext(t)); !errors.Is(err, PermissionDenied) {
		t.Fatal(err)
	}
	node.link()
	eventually(t, "it is registered", agent.Connected)
}

func TestHeartbeatsComeAsOftenAsTheNodeWants(t *testing.T) {
	node := newFakeNode(t)
	startAgent(t, node)
	link := node.unansweredLink()
	link.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_Registered{
		Registered: &agentpb.Registered{HeartbeatIntervalMs: 100}}})
	for number := uint64(1); number <= 3; number++ {
		beat := link.hear().GetHeartbeat()
		if beat.GetNumber() != number || beat.State != nil {
			t.Fatal(beat)
		}
		link.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_HeartbeatAck{
			HeartbeatAck: &agentpb.HeartbeatAck{Number: number}}})
	}
}

func TestANodeThatDoesNotAnswerHeartbeatsIsLeft(t *testing.T) {
	node := newFakeNode(t)
	startAgent(t, node)
	link := node.unansweredLink()
	link.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_Registered{
		Registered: &agentpb.Registered{HeartbeatIntervalMs: 1000}}})
	link.hear()
	node.link()
}

func TestAStateIsReportedOnceTheNodeHasTakenIt(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	link := node.link()
	reported := make(chan error, 1)
	go func() { reported <- agent.ReportDeployment(testContext(t), Workload{Name: "w", Version: "1"}) }()
	beat := link.hear().GetHeartbeat()
	if s := beat.GetState(); !s.GetWorkloadsComplete() || len(s.Workloads) != 1 || s.Workloads[0].Name != "w" {
		t.Fatal(beat)
	}
	select {
	case err := <-reported:
		t.Fatal("before the node has it", err)
	case <-time.After(20 * time.Millisecond):
	}
	// The update was lost with the connection and is sent again on the next one.
	link.drop()
	link = node.link()
	if len(link.register.Workloads) != 1 {
		t.Fatal(link.register)
	}
	beat = link.hear().GetHeartbeat()
	link.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_HeartbeatAck{HeartbeatAck: &agentpb.HeartbeatAck{Number: beat.Number}}})
	must(t, receive(t, reported))
}

func TestAStateTheNodeRefusesIsToldAndTakenBack(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	link := node.link()
	reported := make(chan error, 1)
	go func() { reported <- agent.ReportDeployment(testContext(t), Workload{Name: ""}) }()
	link.hear()
	link.fail(link.call, InvalidArgument, "a workload without a name")
	if err := receive(t, reported); !errors.Is(err, InvalidArgument) {
		t.Fatal(err)
	}
	if link = node.link(); len(link.register.Workloads) != 0 {
		t.Fatal(link.register)
	}
}

func TestARegistrationThatFitsNoMessageIsToldAtOnce(t *testing.T) {
	node := newFakeNode(t)
	huge := Registration{ID: "a1", Labels: map[string]string{"huge": strings.Repeat("x", frameBytes)}}
	agent, err := NewAgent(context.Background(), node.address(), huge)
	must(t, err)
	defer agent.Close()
	if err := agent.WaitRegistered(testContext(t)); !errors.Is(err, ResourceExhausted) {
		t.Fatal(err)
	}
}

func TestACommandRunsOnceTheNodeHasConfirmedItsAcceptance(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	var runs atomic.Int32
	handle(t, agent, func(_ context.Context, command *Command) (any, error) {
		runs.Add(1)
		return map[string]string{"got": string(command.Payload)}, nil
	})
	link := node.link()
	link.push("c1", `{"n":1}`)
	link.update("c1", accepted)
	if runs.Load() != 0 {
		t.Fatal("it runs already")
	}
	link.ack("c1", accepted, "")
	if update := link.completed("c1"); update.ResultJson != `{"got":"{\"n\":1}"}` {
		t.Fatal(update)
	}
	// Pushed again, it is answered from memory.
	link.push("c1", `{"n":1}`)
	link.update("c1", completed)
	if runs.Load() != 1 {
		t.Fatal(runs.Load())
	}
}

func TestACommandWhoseAcceptanceIsRefusedDoesNotRun(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	ran := make(chan string, 2)
	handle(t, agent, func(_ context.Context, command *Command) (any, error) {
		ran <- command.ID
		return nil, nil
	})
	link := node.link()
	link.push("late", "{}")
	link.update("late", accepted)
	link.ack("late", accepted, "it has expired")
	link.push("next", "{}")
	link.accepted("next")
	if id := receive(t, ran); id != "next" {
		t.Fatal(id)
	}
}

func TestACommandThatWaitedTooLongIsNotGiven(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	link := node.link()
	command := &CommandRecord{Id: "short"}
	link.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_CommandPush{
		CommandPush: &agentpb.CommandPush{Command: command, TimeLeftMs: 1}}})
	link.push("long", "{}")
	eventually(t, "both are here", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return len(agent.inbox) == 2
	})
	time.Sleep(2 * time.Millisecond)
	for command, err := range agent.Commands(testContext(t)) {
		must(t, err)
		if command.ID != "long" {
			t.Fatal(command.ID)
		}
		break
	}
}

func TestADroppedLinkDoesNotCancelWorkAndTheResultComesAfterwards(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node, WithDirectory(t.TempDir()))
	begun, finish := make(chan struct{}), make(chan struct{})
	var runs atomic.Int32
	handle(t, agent, func(ctx context.Context, _ *Command) (any, error) {
		runs.Add(1)
		begun <- struct{}{}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-finish:
			return "1", nil
		}
	})
	link := node.link()
	link.push("c1", "{}")
	link.accepted("c1")
	receive(t, begun)
	link.drop()
	link = node.link()
	if c := link.register.Commands; len(c) != 1 || c[0].CommandId != "c1" || c[0].Stage != accepted {
		t.Fatal(c)
	}
	link.push("c1", "{}")
	link.update("c1", accepted)
	link.drop()
	close(finish)
	eventually(t, "the work has ended", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return agent.jobs["c1"].stage == jobDone
	})
	link = node.link()
	if c := link.register.Commands; len(c) != 1 || c[0].Stage != completed || c[0].ResultJson != "1" {
		t.Fatal(c)
	}
	link.ack("c1", completed, "")
	eventually(t, "it is settled", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return len(agent.jobs) == 0
	})
	if runs.Load() != 1 {
		t.Fatal(runs.Load())
	}
}

func TestAResultForACommandTheNodeDoesNotHoldIsToldAgainLater(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	handle(t, agent, func(context.Context, *Command) (any, error) { return 7, nil })
	link := node.link()
	link.push("c1", "{}")
	link.accepted("c1")
	link.update("c1", completed)
	link.notHere("c1", completed)
	waits := func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return agent.jobs["c1"] != nil && !agent.jobs["c1"].again.IsZero()
	}
	eventually(t, "the agent keeps it", waits)
	agent.repeat(time.Now().Add(againMin))
	link.update("c1", completed)
	link.notHere("c1", completed)
	eventually(t, "the agent keeps it", waits)
	link.drop()
	link = node.unansweredLink()
	if commands := link.register.GetCommands(); len(commands) != 1 || commands[0].ResultJson != "7" {
		t.Fatal(commands)
	}
	link.ack("c1", completed, "")
	eventually(t, "it is over", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return agent.jobs["c1"] == nil
	})
}

func TestAnAcceptedCommandTheNodeDoesNotHoldRunsOnceItDoes(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	var runs atomic.Int32
	handle(t, agent, func(context.Context, *Command) (any, error) { return runs.Add(1), nil })
	link := node.link()
	link.push("c1", "{}")
	link.update("c1", accepted)
	link.notHere("c1", accepted)
	eventually(t, "it waits", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return agent.jobs["c1"].stage == jobWaiting
	})
	agent.repeat(time.Now().Add(againMin))
	link.accepted("c1")
	link.completed("c1")
	if runs.Load() != 1 {
		t.Fatal(runs.Load())
	}
}

func TestACancelEndsTheHandlersContextAndIsConfirmedThen(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	begun := make(chan struct{})
	handle(t, agent, func(ctx context.Context, _ *Command) (any, error) {
		close(begun)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), ErrCancelRequested) {
			return nil, fmt.Errorf("for another reason: %w", context.Cause(ctx))
		}
		return nil, ctx.Err()
	})
	link := node.link()
	link.push("c1", "{}")
	link.accepted("c1")
	receive(t, begun)
	link.cancelPush("c1")
	link.update("c1", stopped)
}

func TestACancelOfWhatNeverBeganIsConfirmedAtOnceAndItNeverRuns(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	link := node.link()
	link.push("waiting", "{}")
	link.cancelPush("waiting")
	link.update("waiting", stopped)
	link.ack("waiting", stopped, "")
	link.cancelPush("unknown")
	link.update("unknown", stopped)
	link.push("unknown", "{}")
	link.update("unknown", stopped)
	agent.mu.Lock()
	defer agent.mu.Unlock()
	if len(agent.inbox) != 0 {
		t.Fatal(agent.inbox)
	}
}

func TestFailuresAndPanicsAreTheCommandsOwn(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	handle(t, agent, func(_ context.Context, command *Command) (any, error) {
		switch command.ID {
		case "fails":
			return nil, errors.New("no such package")
		case "panics":
			panic("at the disco")
		case "talks":
			command.Progress(50, "half")
			time.Sleep(10 * time.Millisecond)
			return "not JSON", nil
		}
		return strings.Repeat("1", resultBytes+1), nil
	})
	link := node.link()
	for id, words := range map[string]string{"fails": "no such package", "panics": "at the disco", "huge": "262144"} {
		link.push(id, "{}")
		link.accepted(id)
		if update := link.update(id, failed); !strings.Contains(update.Error, words) {
			t.Fatal(update)
		}
	}
	link.push("talks", "{}")
	link.accepted("talks")
	if update := link.update("talks", agentpb.CommandUpdate_STAGE_PROGRESS); update.Percent != 50 || update.Progress != "half" {
		t.Fatal(update)
	}
	link.update("talks", failed)
}

func TestARestartReportsWhatItInterruptedAndNeverRunsItAgain(t *testing.T) {
	node, dir := newFakeNode(t), t.TempDir()
	before, err := NewAgent(context.Background(), node.address(), Registration{ID: "a1"}, WithDirectory(dir))
	must(t, err)
	link := node.link()
	link.push("running", "{}")
	link.push("done", "{}")
	link.push("over", "{}")
	link.push("accepted", `{"n":1}`)
	next := func() *Command {
		command, err := before.nextCommand(testContext(t))
		must(t, err)
		return command
	}
	begin := func() *Command {
		command := next()
		go link.accepted(command.ID)
		must(t, command.Accept(testContext(t)))
		return command
	}
	begin()
	must(t, begin().Complete(`"kept"`))
	link.update("done", completed)
	must(t, begin().Complete(`"told"`))
	link.completed("over")
	eventually(t, "it is settled", func() bool {
		before.mu.Lock()
		defer before.mu.Unlock()
		return before.jobs["over"] == nil
	})
	last := next()
	must(t, last.announce())
	link.update("accepted", accepted)
	crash(before)
	link.drop()

	after := startAgent(t, node, WithDirectory(dir))
	ran := make(chan string, 4)
	handle(t, after, func(_ context.Context, command *Command) (any, error) {
		ran <- command.ID + string(command.Payload)
		return nil, nil
	})
	link = node.link()
	said := map[string]*agentpb.CommandUpdate{}
	for _, update := range link.register.Commands {
		said[update.CommandId] = update
	}
	if len(said) != 3 || said["running"].GetStage() != failed || said["done"].GetResultJson() != `"kept"` ||
		said["accepted"].GetStage() != accepted {
		t.Fatal(said)
	}
	link.push("over", "{}")
	link.update("over", completed)
	// It was accepted and not begun: once the node confirms that, it runs.
	link.ack("accepted", accepted, "")
	if got := receive(t, ran); got != `accepted{"n":1}` {
		t.Fatal(got)
	}
	link.completed("accepted")
	if len(ran) != 0 {
		t.Fatal(<-ran)
	}
}

// crash leaves the agent's directory as a kill would.
func crash(agent *Agent) {
	agent.mu.Lock()
	agent.ledger.close()
	agent.mu.Unlock()
	agent.lostLink()
	go agent.Close()
}

func TestOnceJoinsWorkThatRunsUnderAnotherID(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	var runs atomic.Int32
	begun, finish := make(chan struct{}), make(chan struct{})
	handle(t, agent, func(ctx context.Context, command *Command) (any, error) {
		return command.Once(ctx, "deploy x", func(context.Context) (json.RawMessage, error) {
			runs.Add(1)
			close(begun)
			<-finish
			return json.RawMessage(`"deployed"`), nil
		})
	})
	link := node.link()
	link.push("first", "{}")
	link.accepted("first")
	receive(t, begun)
	link.push("second", "{}")
	link.accepted("second")
	eventually(t, "both wait", func() bool {
		agent.mu.Lock()
		defer agent.mu.Unlock()
		return agent.once["deploy x"].waiting == 2
	})
	// The end of one that waits is not the end of the work.
	link.cancelPush("first")
	link.update("first", stopped)
	close(finish)
	if update := link.update("second", completed); update.ResultJson != `"deployed"` || runs.Load() != 1 {
		t.Fatal(update, runs.Load())
	}
}

func TestOnceUsesTheResultOfInterruptedWorkAgainAndOtherwiseBeginsAnew(t *testing.T) {
	node, dir := newFakeNode(t), t.TempDir()
	agent, err := NewAgent(context.Background(), node.address(), Registration{ID: "a1"}, WithDirectory(dir))
	must(t, err)
	var runs atomic.Int32
	handler := func(ctx context.Context, command *Command) (any, error) {
		return command.Once(ctx, "k", func(context.Context) (json.RawMessage, error) {
			return fmt.Appendf(nil, "%d", runs.Add(1)), nil
		})
	}
	handle(t, agent, handler)
	link := node.link()
	run := func(id, result string) {
		t.Helper()
		link.push(id, "{}")
		link.accepted(id)
		if update := link.completed(id); update.ResultJson != result {
			t.Fatal(update)
		}
		eventually(t, "it is settled", func() bool {
			agent.mu.Lock()
			defer agent.mu.Unlock()
			return agent.jobs[id] == nil
		})
	}
	run("c1", "1")
	run("c2", "2") // c1 got through: a new command is new work
	link.push("c3", "{}")
	link.accepted("c3")
	link.update("c3", completed)
	link.drop() // before the node confirmed the result
	link = node.link()
	link.ack("c3", completed, "")
	run("c4", "3") // the retry
	run("c5", "4")
	link.push("c6", "{}")
	link.accepted("c6")
	link.update("c6", completed)
	crash(agent)
	link.drop()
	agent = startAgent(t, node, WithDirectory(dir))
	handle(t, agent, handler)
	link = node.link()
	link.ack("c6", completed, "")
	run("c7", "5")
}

func TestTheEndOfTheContextOfOnceEndsTheWork(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node)
	handle(t, agent, func(ctx context.Context, command *Command) (any, error) {
		waits, cancel := context.WithCancelCause(ctx)
		return command.Once(waits, "deploy x", func(ctx context.Context) (json.RawMessage, error) {
			cancel(errors.New("out of patience"))
			<-ctx.Done()
			return nil, errors.New("stopped")
		})
	})
	link := node.link()
	link.push("c1", "{}")
	link.accepted("c1")
	if update := link.update("c1", failed); update.Error != "stopped" {
		t.Fatal(update)
	}
}

func TestTheEndOfTheContextClosesTheAgent(t *testing.T) {
	node := newFakeNode(t)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), inherited{}, "value"))
	defer cancel()
	agent, err := NewAgent(ctx, node.address(), Registration{ID: "a1"})
	must(t, err)
	begun := make(chan any, 1)
	handle(t, agent, func(ctx context.Context, _ *Command) (any, error) {
		begun <- ctx.Value(inherited{})
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	link := node.link()
	link.push("c1", "{}")
	link.accepted("c1")
	if value := receive(t, begun); value != "value" {
		t.Fatalf("the handler's context has value %v, want that of NewAgent's", value)
	}
	cancel()
	if update := link.update("c1", failed); update.Error != ErrClosed.Error() {
		t.Fatal(update)
	}
	link.ack("c1", failed, "")
	if message := link.hear(); message.GetGoodbye() == nil {
		t.Fatalf("the agent sends %v, want a goodbye", message)
	}
	link.drop()
	must(t, agent.Close())
}

// inherited is the key of a value that handlers inherit from the context of NewAgent.
type inherited struct{}

func TestTheContextBoundsShutdown(t *testing.T) {
	node, directory := newFakeNode(t), t.TempDir()
	agent, err := NewAgent(context.Background(), node.address(), Registration{ID: "a1"}, WithDirectory(directory))
	must(t, err)
	begun, finish := make(chan struct{}), make(chan struct{})
	handle(t, agent, func(context.Context, *Command) (any, error) {
		close(begun)
		<-finish
		return nil, nil
	})
	defer close(finish)
	link := node.link()
	link.push("c1", "{}")
	link.accepted("c1")
	receive(t, begun)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := agent.Shutdown(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("Shutdown returns %v, want the end of its context", err)
	}
	// The directory is free for the next agent, which reports the interrupted command.
	startAgent(t, node, WithDirectory(directory))
	if commands := node.link().register.GetCommands(); len(commands) != 1 || commands[0].Stage != failed {
		t.Fatal(commands)
	}
}

func TestTheLedgerSurvivesATornEndAndRefusesWhatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ledgerName)
	write := func() {
		l, err := openLedger(dir, "a1")
		must(t, err)
		must(t, l.append(&ledgerLine{Kind: ledgerAccepted, ID: "c1"}, &ledgerLine{Kind: ledgerStarted, ID: "c1"}))
		l.close()
	}
	write()
	whole, err := os.ReadFile(path)
	must(t, err)
	for cut := range len(whole) {
		must(t, os.WriteFile(path, whole[:len(whole)-cut], 0o600))
		l, err := openLedger(dir, "a1")
		must(t, err)
		l.close()
	}
	damaged := append([]byte(nil), whole...)
	damaged[len(damaged)/2] ^= 1
	must(t, os.WriteFile(path, damaged, 0o600))
	if _, err := openLedger(dir, "a1"); err == nil {
		t.Fatal("damage went unnoticed")
	}
}

func TestALedgerBelongsToOneAgentAtATime(t *testing.T) {
	dir := t.TempDir()
	l, err := openLedger(dir, "a1")
	must(t, err)
	if _, err := openLedger(dir, "a1"); err == nil {
		t.Fatal("two at once")
	}
	l.close()
	if _, err := openLedger(dir, "a2"); err == nil {
		t.Fatal("another agent")
	}
}

func TestTheLedgerIsBounded(t *testing.T) {
	l, err := openLedger(t.TempDir(), "a1")
	must(t, err)
	defer l.close()
	result := strings.Repeat("1", resultBytes)
	var most int64
	for n := range 40 {
		id := fmt.Sprint("c", n)
		must(t, l.append(&ledgerLine{Kind: ledgerDone, ID: id, Stage: completed, Result: result}))
		must(t, l.append(&ledgerLine{Kind: ledgerSettled, ID: id, Stage: completed}))
		most = max(most, l.size)
	}
	if most > 2<<20 {
		t.Fatalf("%d bytes", most)
	}
	for n := range rememberedIDs + 10 {
		l.note(&ledgerLine{Kind: ledgerSettled, ID: fmt.Sprint("d", n), Stage: completed})
	}
	if len(l.settled) != rememberedIDs || len(l.order) != rememberedIDs {
		t.Fatal(len(l.settled))
	}
}

func TestAnAgentThatPollsRunsCommandsAndReports(t *testing.T) {
	node := newFakeNode(t)
	agent := startAgent(t, node, WithPolling(10*time.Millisecond))
	handle(t, agent, func(context.Context, *Command) (any, error) { return `"done"`, nil })
	conn := node.next()
	command := &CommandRecord{Id: "c1", TargetId: "a1", CommandType: "work", PayloadJson: "{}",
		Status: pb.CommandStatus_COMMAND_STATUS_PENDING}
	var seen []pb.CommandStatus
	for command.Status != pb.CommandStatus_COMMAND_STATUS_COMPLETED {
		frame := conn.frame()
		switch methodNumber(frame.GetRequest().GetMethod()) {
		case methodGetStatus:
			conn.respond(frame.Call, &pb.GetStatusResponse{})
		case methodGetDocument:
			conn.respond(frame.Call, &pb.GetDocumentResponse{})
		case methodPutDocument:
			conn.respond(frame.Call, &pb.PutDocumentResponse{})
		case methodPatchDocument:
			conn.respond(frame.Call, &pb.PatchDocumentResponse{})
		case methodListDocuments:
			conn.respond(frame.Call, &pb.ListDocumentsResponse{})
		case methodGetCommands:
			conn.respond(frame.Call, &pb.GetCommandsResponse{Commands: []*CommandRecord{command}})
		case methodPutCommand:
			put := new(pb.PutCommandRequest)
			must(t, proto.Unmarshal(frame.GetRequest().Payload, put))
			command = put.Command
			seen = append(seen, command.Status)
			conn.respond(frame.Call, &pb.PutCommandResponse{})
		}
	}
	if len(seen) != 2 || seen[0] != pb.CommandStatus_COMMAND_STATUS_EXECUTING || command.ResultJson != `"done"` {
		t.Fatal(seen, command)
	}
	go func() {
		for frame := range conn.frames {
			conn.fail(frame.Call, InvalidArgument, "the test is over")
		}
	}()
}
