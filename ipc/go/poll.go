package peat

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"peat.dev/peat/gen/agentpb"
	pb "peat.dev/peat/gen/sidecarpb"
)

// pollingBeat is how often an agent that polls gives a sign of life where the node does not say.
const pollingBeat = 30 * time.Second

// attendPolling is what attend is for an agent that holds no stream: calls of the plain interface, every interval. No
// error: the agent has left.
func (a *Agent) attendPolling(ctx context.Context, pause *backoff) error {
	tick := time.NewTicker(a.options.poll)
	defer tick.Stop()
	var beat time.Time
	interval := pollingBeat
	for {
		if now := time.Now(); a.stateWaits() || now.Sub(beat) >= interval {
			terms, err := a.signOfLife(ctx)
			if err != nil {
				return err
			}
			beat = now
			if terms.HeartbeatIntervalMs > 0 {
				interval = milliseconds(terms.HeartbeatIntervalMs)
			}
		}
		if err := a.pollOnce(ctx); err != nil {
			return err
		}
		pause.reset()
		select {
		case <-tick.C:
		case <-a.dirty:
		case <-a.leave:
			return nil
		}
	}
}

// signOfLife tells the node that the agent lives, and what it is if the node does not know that yet.
func (a *Agent) signOfLife(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	waits := a.stateWaits()
	registration, registered, state := a.said()
	status, err := a.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	if waits {
		err = a.client.putRegistration(ctx, &registration)
	} else {
		_, err = a.client.Patch(ctx, platformsCollection, registration.ID, map[string]any{"agent_id": registration.ID})
	}
	if err != nil {
		a.pollRefused(err, registered, state)
		return nil, err
	}
	a.polled(status, registered, state)
	return status, nil
}

func (a *Agent) stateWaits() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.connected || a.state > max(a.stateReached, a.stateRefused) || a.registered > a.registeredReached
}

// pollOnce tells everything there is to tell, and looks at what there is to do.
func (a *Agent) pollOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	a.repeat(time.Now())
	if err := a.reportAll(ctx); err != nil {
		return err
	}
	// What is over may be much, and is nothing to do.
	open := []pb.CommandStatus{pb.CommandStatus_COMMAND_STATUS_PENDING, pb.CommandStatus_COMMAND_STATUS_EXECUTING}
	request := &pb.GetCommandsRequest{TargetId: a.ID(), Status: open}
	return a.client.eachCommand(ctx, request, func(command *CommandRecord) error { return a.look(ctx, command) })
}

// said is what the agent says of itself now, and the counts of it.
func (a *Agent) said() (Registration, uint64, uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.registration.clone(), a.registered, a.state
}

func (a *Agent) polled(status *Status, registered, state uint64) {
	// The node's id is its key in hexadecimal.
	key, _ := hex.DecodeString(status.EndpointAddr)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected, a.refused = true, nil
	a.granted = &agentpb.Registered{HeartbeatIntervalMs: status.HeartbeatIntervalMs, StaleAfterMs: status.StaleAfterMs,
		DeadAfterMs: status.DeadAfterMs, NodeId: status.NodeId, NodePublicKey: key}
	a.registeredReached, a.stateReached = registered, state
	a.notify()
}

// pollRefused tells who waits that the node refused what was said last.
func (a *Agent) pollRefused(err error, registered, state uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if passing(err) && !errors.Is(err, ResourceExhausted) || errors.Is(err, Aborted) {
		return
	}
	if !a.connected || a.registeredReached < registered {
		a.refused = err
	} else if state > a.stateReached {
		a.stateRefused, a.stateError = state, err
	}
	a.notify()
}

// look sees what a command asks of the agent.
func (a *Agent) look(ctx context.Context, command *CommandRecord) error {
	status, _ := statusOf(command, a.ID())
	switch {
	case terminal(status):
	case command.CancelRequested:
		return a.reportOne(ctx, a.cancelled(command.Id))
	case status == pb.CommandStatus_COMMAND_STATUS_PENDING:
		// Whether it is still in time the node decides, when it is accepted.
		return a.reportOne(ctx, a.pushed(&agentpb.CommandPush{Command: command}))
	}
	return nil
}

func statusOf(command *CommandRecord, agent string) (pb.CommandStatus, *TargetStatus) {
	for _, target := range command.Targets {
		if target.AgentId == agent {
			return target.Status, target
		}
	}
	return command.Status, nil
}

func (a *Agent) reportAll(ctx context.Context) error {
	a.mu.Lock()
	updates := a.outgoing()
	a.mu.Unlock()
	for _, update := range updates {
		if err := a.reportOne(ctx, update); err != nil {
			return err
		}
	}
	return nil
}

// reportOne tells the node of one update by PutCommand, whose answer is its confirmation or refusal.
func (a *Agent) reportOne(ctx context.Context, update *agentpb.CommandUpdate) error {
	if update == nil || update.Stage == agentpb.CommandUpdate_STAGE_PROGRESS {
		return nil
	}
	command, err := a.client.Command(ctx, update.CommandId)
	absent := errors.Is(err, NotFound)
	if err == nil {
		err = a.client.PutCommand(ctx, reported(command, a.ID(), update))
	}
	ack := &agentpb.UpdateAck{CommandId: update.CommandId, Stage: update.Stage, NotHere: absent}
	if err != nil {
		if passing(err) || ctx.Err() != nil {
			return err
		}
		ack.Refused = err.Error()
	}
	a.answered(ack)
	return nil
}

// reported is the command with the target's status and outcome.
func reported(command *CommandRecord, agent string, update *agentpb.CommandUpdate) *CommandRecord {
	status := map[agentpb.CommandUpdate_Stage]pb.CommandStatus{
		agentpb.CommandUpdate_STAGE_ACCEPTED:  pb.CommandStatus_COMMAND_STATUS_EXECUTING,
		agentpb.CommandUpdate_STAGE_COMPLETED: pb.CommandStatus_COMMAND_STATUS_COMPLETED,
		agentpb.CommandUpdate_STAGE_FAILED:    pb.CommandStatus_COMMAND_STATUS_FAILED,
		agentpb.CommandUpdate_STAGE_CANCELLED: pb.CommandStatus_COMMAND_STATUS_CANCELLED,
	}[update.Stage]
	report := proto.Clone(command).(*CommandRecord)
	report.Status, report.ResultJson, report.Error = status, update.ResultJson, update.Error
	report.Targets = []*TargetStatus{{AgentId: agent, Status: status, ResultJson: update.ResultJson, Error: update.Error}}
	return report
}
