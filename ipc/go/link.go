package peat

import (
	"context"
	"errors"
	"io"
	"time"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	"peat.internal/peat-node.git/ipc/go/internal/ipcpb"
)

const (
	// linkPatience limits the time to dial the node, to get the answer to a registration, and to send a message.
	linkPatience = 10 * time.Second
	// beatPatience is the least time that a heartbeat may go unanswered, for any interval.
	beatPatience = 5 * time.Second
	// leastBeat is the shortest interval that a node can set.
	leastBeat = 100 * time.Millisecond
	// registerBytes limits the command results in a registration; further ones follow it one by one.
	registerBytes = 1 << 20
)

// link is one stream to the node, from Register to its end. It belongs to the agent's goroutine.
type link struct {
	agent  *Agent
	stream *stream

	number, acked uint64    // the last heartbeat, and the last that was answered
	waiting       time.Time // time of the oldest unanswered heartbeat
	// The number of the heartbeat that carried a state, and the state's count.
	stateNumber, state uint64
	registered         uint64 // count of the registration that was sent last
	interval           time.Duration
}

// run keeps the agent linked until Shutdown.
func (a *Agent) run(ctx context.Context) {
	defer close(a.gone)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		<-a.leave
		// The link says goodbye first.
		time.AfterFunc(goodbyePatience, cancel)
	}()
	attend := a.attend
	if a.options.polls {
		attend = a.attendPolling
	}
	var pause backoff
	for {
		err := attend(ctx, &pause)
		a.lostLink()
		if err == nil {
			return
		}
		a.options.logger.Warn("the link to the node is down", "agent", a.ID(), "error", err)
		if errors.Is(err, Aborted) {
			// Another process uses the id. Two that compete for it must not do so twice a second.
			pause.next = backoffMost
		}
		if !a.rest(&pause) {
			return
		}
	}
}

// rest pauses and reports whether the agent is still open.
func (a *Agent) rest(pause *backoff) bool {
	timer := time.NewTimer(pause.pause())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.leave:
		return false
	}
}

// attend keeps one link until it fails. Nil: the agent was closed.
func (a *Agent) attend(ctx context.Context, pause *backoff) error {
	dialing, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	conn, err := dial(dialing, a.client.target, a.options.token)
	if err != nil {
		return err
	}
	defer conn.close(&Error{Code: Canceled, Message: "the agent was closed", cause: ErrClosed})
	l := &link{agent: a, interval: linkPatience}
	if err := l.open(dialing, conn); err != nil {
		l.noteRefusal(err)
		return of(methodConnect, err)
	}
	return of(methodConnect, l.follow(ctx, pause))
}

// open starts the stream with a registration.
func (l *link) open(ctx context.Context, conn *conn) error {
	stream, err := conn.stream(ctx, methodConnect, &agentpb.AgentMessage{Body: l.register()})
	l.stream = stream
	return err
}

func (l *link) register() *agentpb.AgentMessage_Register {
	a := l.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	l.registered = a.registered
	message := a.registration.message()
	message.Commands = a.unfinished()
	return &agentpb.AgentMessage_Register{Register: message}
}

// unfinished returns an update for each accepted command without a confirmed end; a.mu is held. Results beyond registerBytes
// follow the registration.
func (a *Agent) unfinished() []*agentpb.CommandUpdate {
	var updates []*agentpb.CommandUpdate
	bytes := 0
	for _, job := range sorted(a.jobs) {
		if !job.accepted && job.stage < jobRunning {
			continue
		}
		update := job.said()
		size := len(update.ResultJson) + len(update.Error)
		if bytes+size > registerBytes {
			update = acceptance(job.id())
		} else {
			bytes += size
			job.sent = job.update != nil
		}
		updates = append(updates, update)
	}
	return updates
}

// follow runs the stream until it ends. Nil: the agent was closed.
func (l *link) follow(ctx context.Context, pause *backoff) error {
	registration := time.NewTimer(linkPatience)
	defer registration.Stop()
	beat := time.NewTimer(time.Hour)
	defer beat.Stop()
	leave := l.agent.leave
	for {
		l.stream.grant()
		var err error
		select {
		case frame := <-l.stream.call.arrived:
			var registered bool
			registered, err = l.arrived(ctx, frame)
			if registered {
				pause.reset()
				registration.Stop()
				beat.Reset(l.interval)
			}
		case <-l.stream.conn.ended:
			err = l.stream.conn.err
		case <-registration.C:
			err = &Error{Code: Unavailable, Message: "the node did not answer the registration"}
		case <-beat.C:
			err = l.beat(ctx)
			beat.Reset(l.interval)
			l.agent.repeat(time.Now())
		case <-l.agent.dirty:
			err = l.tell(ctx)
		case <-leave:
			return l.goodbye(ctx)
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// arrived handles one frame of the node and reports whether it answers a registration.
func (l *link) arrived(ctx context.Context, frame *ipcpb.Frame) (bool, error) {
	message := new(agentpb.NodeMessage)
	if err := l.stream.take(frame, message); err != nil {
		if errors.Is(err, io.EOF) {
			err = &Error{Code: Unavailable, Message: "the node ended the link"}
		}
		l.noteRefusal(err)
		return false, err
	}
	switch body := message.Body.(type) {
	case *agentpb.NodeMessage_Registered:
		l.interval = interval(body.Registered.HeartbeatIntervalMs)
		return true, l.granted(ctx, body.Registered)
	case *agentpb.NodeMessage_ConfigUpdate:
		l.interval = interval(body.ConfigUpdate.HeartbeatIntervalMs)
		l.agent.reconfigured(body.ConfigUpdate)
	case *agentpb.NodeMessage_CommandPush:
		return false, l.answer(ctx, l.agent.pushed(body.CommandPush))
	case *agentpb.NodeMessage_CancelPush:
		return false, l.answer(ctx, l.agent.cancelled(body.CancelPush.CommandId))
	case *agentpb.NodeMessage_HeartbeatAck:
		l.heard(body.HeartbeatAck.Number)
	case *agentpb.NodeMessage_UpdateAck:
		l.agent.answered(body.UpdateAck)
	}
	// Messages of unknown types are ignored.
	return false, nil
}

func interval(count uint32) time.Duration {
	return max(milliseconds(count), leastBeat)
}

// granted notes that the node has the registration and sends what it lacks.
func (l *link) granted(ctx context.Context, registered *agentpb.Registered) error {
	a := l.agent
	a.mu.Lock()
	first := !a.connected
	a.connected, a.refused, a.granted = true, nil, registered
	a.registeredReached = max(a.registeredReached, l.registered)
	a.notify()
	a.mu.Unlock()
	if first {
		a.options.logger.Info("the agent is registered", "agent", a.ID(), "node", registered.NodeId)
	}
	return l.tell(ctx)
}

// tell sends everything that the node lacks.
func (l *link) tell(ctx context.Context) error {
	a := l.agent
	a.mu.Lock()
	if !a.connected {
		a.mu.Unlock()
		return nil
	}
	updates := a.outgoing()
	stale, state := a.registered > l.registered, a.state > max(l.state, a.stateRefused)
	a.mu.Unlock()
	for _, update := range updates {
		if err := l.answer(ctx, update); err != nil {
			return err
		}
	}
	if stale {
		return l.send(ctx, &agentpb.AgentMessage{Body: l.register()})
	}
	if state {
		return l.beatWithState(ctx)
	}
	return nil
}

// beat sends a sign of life. It fails when the node has not answered an earlier one in time.
func (l *link) beat(ctx context.Context) error {
	if l.number > l.acked && time.Since(l.waiting) > max(l.interval, beatPatience) {
		return &Error{Code: Unavailable, Message: "the node did not answer a heartbeat"}
	}
	return l.heartbeat(ctx, nil)
}

func (l *link) beatWithState(ctx context.Context) error {
	a := l.agent
	a.mu.Lock()
	l.stateNumber, l.state = l.number+1, a.state
	state := a.registration.state()
	a.mu.Unlock()
	return l.heartbeat(ctx, state)
}

func (l *link) heartbeat(ctx context.Context, state *agentpb.State) error {
	if l.number == l.acked {
		l.waiting = time.Now()
	}
	l.number++
	heartbeat := &agentpb.Heartbeat{Number: l.number, State: state}
	return l.send(ctx, &agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: heartbeat}})
}

func (l *link) heard(number uint64) {
	if number > l.acked {
		l.acked, l.waiting = min(number, l.number), time.Now()
	}
	if l.stateNumber > 0 && l.acked >= l.stateNumber {
		l.agent.stateArrived(l.state)
	}
}

func (l *link) answer(ctx context.Context, update *agentpb.CommandUpdate) error {
	if update == nil {
		return nil
	}
	return l.send(ctx, &agentpb.AgentMessage{Body: &agentpb.AgentMessage_CommandUpdate{CommandUpdate: update}})
}

// send fails when the node takes no bytes for linkPatience.
func (l *link) send(ctx context.Context, message *agentpb.AgentMessage) error {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	err := l.stream.send(ctx, message)
	if errors.Is(err, ResourceExhausted) {
		l.noteRefusal(err)
	}
	if errors.Is(err, errNotSent) {
		// The end of the connection has the reason.
		<-l.stream.conn.ended
		return l.stream.conn.err
	}
	return err
}

// goodbye takes leave and waits until the node has ended the stream.
func (l *link) goodbye(ctx context.Context) error {
	goodbye := &agentpb.AgentMessage{Body: &agentpb.AgentMessage_Goodbye{Goodbye: &agentpb.Goodbye{}}}
	if err := l.send(ctx, goodbye); err != nil {
		return nil
	}
	l.stream.conn.out.force(&ipcpb.Frame{Call: l.stream.call.id, Body: &ipcpb.Frame_HalfClose{HalfClose: &ipcpb.End{}}})
	for {
		message := new(agentpb.NodeMessage)
		if l.stream.receive(ctx, message) != nil {
			return nil
		}
	}
}

// noteRefusal passes a rejection to the callers that wait. The agent repeats a rejected registration, since an operator may
// change what the node accepts.
func (l *link) noteRefusal(err error) {
	a := l.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if full := errors.Is(err, ResourceExhausted); passing(err) && !full || errors.Is(err, Aborted) {
		return
	}
	if a.registeredReached < l.registered || !a.connected {
		a.refused = of(methodConnect, err)
	} else if l.state > a.stateReached {
		a.stateRefused, a.stateError = l.state, of(methodConnect, err)
	}
	a.notify()
}

func (a *Agent) reconfigured(update *agentpb.ConfigUpdate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.granted == nil {
		return
	}
	a.granted.HeartbeatIntervalMs, a.granted.StaleAfterMs = update.HeartbeatIntervalMs, update.StaleAfterMs
	a.granted.DeadAfterMs, a.granted.EventsUrl = update.DeadAfterMs, update.EventsUrl
	a.notify()
}

func (a *Agent) stateArrived(state uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if state > a.stateReached {
		a.stateReached = state
		a.notify()
	}
}
