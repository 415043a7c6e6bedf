package peat

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

// pollingBeat is the interval of signs of life of an agent that polls, where the node gives none.
const pollingBeat = 30 * time.Second

// attendPolling is attend for an agent without a stream: unary calls at each interval. Nil: the agent was closed.
func (a *Agent) attendPolling(ctx context.Context, pause *backoff) error {
	poll := time.NewTicker(a.options.pollingInterval)
	defer poll.Stop()
	interval := pollingBeat
	beat := time.NewTimer(interval)
	defer beat.Stop()
	due, look := time.Now(), true
	for {
		if now := time.Now(); a.stateWaits() || !now.Before(due) {
			terms, err := a.signOfLife(ctx)
			if err != nil {
				return err
			}
			if terms.HeartbeatIntervalMs > 0 {
				interval = milliseconds(terms.HeartbeatIntervalMs)
			}
			due = now.Add(interval)
			beat.Reset(time.Until(due))
		}
		if look {
			if err := a.pollOnce(ctx); err != nil {
				return err
			}
		}
		pause.reset()
		select {
		case <-poll.C:
			look = true
		case <-a.dirty:
			look = true
		case <-beat.C:
			look = false
		case <-a.leave:
			return nil
		}
	}
}

// signOfLife renews the agent's liveness and writes its registration if the node lacks it.
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

// pollOnce reports all updates of commands and reads the open commands.
func (a *Agent) pollOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	a.repeat(time.Now())
	if err := a.reportAll(ctx); err != nil {
		return err
	}
	// Ended commands may be many and need no work.
	open := []CommandStatus{CommandPending, CommandExecuting}
	request := &pb.GetCommandsRequest{TargetId: a.ID(), Status: open}
	return a.client.eachCommand(ctx, request, func(command *CommandRecord) error { return a.look(ctx, command) })
}

// said returns the current registration and its counts.
func (a *Agent) said() (Registration, uint64, uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.registration.clone(), a.registered, a.state
}

func (a *Agent) polled(status *Status, registered, state uint64) {
	// The endpoint id is the node's key in hexadecimal.
	key, _ := hex.DecodeString(status.EndpointAddr)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected, a.refused = true, nil
	a.granted = &agentpb.Registered{HeartbeatIntervalMs: status.HeartbeatIntervalMs, StaleAfterMs: status.StaleAfterMs,
		DeadAfterMs: status.DeadAfterMs, NodeId: status.NodeId, NodePublicKey: key}
	a.registeredReached, a.stateReached = registered, state
	a.notify()
}

// pollRefused passes a rejection to the callers that wait.
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

// look starts or ends a command as its record requires.
func (a *Agent) look(ctx context.Context, command *CommandRecord) error {
	status, _ := statusOf(command, a.ID())
	switch {
	case terminal(status):
	case command.CancelRequested:
		return a.reportOne(ctx, a.cancelled(command.Id))
	case status == CommandPending:
		// The node rejects the acceptance of an expired command.
		return a.reportOne(ctx, a.pushed(&agentpb.CommandPush{Command: command}))
	}
	return nil
}

func statusOf(command *CommandRecord, agent string) (CommandStatus, *TargetStatus) {
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

// reportOne sends one update by PutCommand; the answer confirms or rejects it.
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

// reported returns the command with the target's status and outcome.
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
