package peat

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

// ErrCancelRequested is the cause of the end of a command's context after its sender cancelled it.
var ErrCancelRequested = errors.New("the command was cancelled")

// errRestarted is the error of a command that a restart of the agent interrupted.
const errRestarted = "the agent was restarted while the command ran"

const (
	// The node's limits of a result and of texts.
	resultBytes   = 256 << 10
	errorBytes    = 4 << 10
	progressBytes = 1 << 10
)

const (
	// againMin is the pause before an update is sent again to a node that does not have the command. It doubles each time, up
	// to againMax.
	againMin = 5 * time.Second
	againMax = 10 * time.Minute
	// absentFor is how long every node may lack a command before the agent drops its update.
	absentFor = 24 * time.Hour
)

type jobStage int

const (
	jobWaiting   jobStage = iota // waits for Commands
	jobTaken                     // delivered by Commands, not accepted
	jobAccepting                 // waits for the node to confirm the acceptance
	jobRunning                   // the handler runs; a restart reports it as interrupted
	jobDone                      // ended; the node has not confirmed the end
)

// job is an unfinished command. The agent's mutex guards it, except its context.
type job struct {
	command *pb.Command
	stage   jobStage
	// The time after which the node rejects its acceptance; zero: none.
	deadline time.Time
	// The ledger has the acceptance, and registrations report it.
	accepted bool
	// The update that the node has not confirmed, nil without one, and whether this connection has sent it.
	update *agentpb.CommandUpdate
	sent   bool
	// The node's answer to ACCEPTED.
	confirmed bool
	refused   string
	progress  *agentpb.CommandUpdate
	// The link was lost between the acceptance and the confirmation of the end.
	interrupted bool
	keys        []string // keys of Once
	// The node lacks the command: the time of the next attempt, the time of the first, and the number of attempts.
	again, absent time.Time
	told          int

	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (a *Agent) newJob(command *pb.Command) *job {
	job := &job{command: command}
	job.ctx, job.cancel = context.WithCancelCause(a.life)
	return job
}

func (j *job) id() string { return j.command.Id }

// resume restores the commands in the ledger.
func (a *Agent) resume() {
	for id, line := range a.ledger.open {
		command := &pb.Command{Id: id}
		readable := line.Command == nil || proto.Unmarshal(line.Command, command) == nil
		job := a.newJob(command)
		job.accepted, job.interrupted = true, true
		a.jobs[id] = job
		switch {
		case line.Kind == ledgerDone:
			job.stage = jobDone
			job.update = &agentpb.CommandUpdate{CommandId: id, Stage: line.Stage, ResultJson: line.Result, Error: line.Error}
		case line.Kind == ledgerStarted || !readable || line.Command == nil:
			job.stage = jobRunning
			failed := &agentpb.CommandUpdate{CommandId: id, Stage: agentpb.CommandUpdate_STAGE_FAILED, Error: errRestarted}
			// When the ledger cannot be written now, the next start repeats this.
			_ = a.finish(job, failed)
		default:
			job.update = acceptance(id)
			a.inbox = append(a.inbox, job)
		}
	}
}

func acceptance(id string) *agentpb.CommandUpdate {
	return &agentpb.CommandUpdate{CommandId: id, Stage: agentpb.CommandUpdate_STAGE_ACCEPTED}
}

// pushed handles the node's request to run a command, which may arrive any number of times. It returns the update to send at
// once.
func (a *Agent) pushed(push *agentpb.CommandPush) *agentpb.CommandUpdate {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := push.GetCommand().GetId()
	if stage, over := a.ledger.settled[id]; over {
		return &agentpb.CommandUpdate{CommandId: id, Stage: stage}
	}
	var deadline time.Time
	if push.TimeLeftMs > 0 {
		deadline = time.Now().Add(time.Duration(min(push.TimeLeftMs, 1<<42)) * time.Millisecond)
	}
	if known := a.jobs[id]; known != nil {
		known.deadline = deadline
		if known.stage != jobWaiting && known.stage != jobTaken {
			// The node repeats its request because it lacks the update.
			return known.said()
		}
		return nil
	}
	if id == "" || len(a.jobs) >= openCommands || a.closed {
		return nil
	}
	job := a.newJob(push.Command)
	job.deadline = deadline
	a.jobs[id] = job
	a.inbox = append(a.inbox, job)
	a.notify()
	return nil
}

// said returns the newest update of a job.
func (j *job) said() *agentpb.CommandUpdate {
	if j.update != nil {
		return j.update
	}
	return acceptance(j.id())
}

// cancelled handles the node's request to cancel a command. It returns the update to send at once.
func (a *Agent) cancelled(id string) *agentpb.CommandUpdate {
	a.mu.Lock()
	defer a.mu.Unlock()
	confirmed := &agentpb.CommandUpdate{CommandId: id, Stage: agentpb.CommandUpdate_STAGE_CANCELLED}
	job := a.jobs[id]
	switch {
	case job == nil:
		if stage, over := a.ledger.settled[id]; over {
			confirmed.Stage = stage
		} else if a.ledger.append(&ledgerLine{Kind: ledgerSettled, ID: id, Stage: confirmed.Stage}) != nil {
			return nil
		}
		return confirmed
	case job.stage == jobDone:
		return job.update
	case job.stage == jobRunning:
		job.cancel(ErrCancelRequested)
		return nil
	}
	job.cancel(ErrCancelRequested)
	job.refused = ErrCancelRequested.Error()
	// The command has not begun, so it ends here. On failure the node repeats its request.
	_ = a.finish(job, confirmed)
	return nil
}

// outlasts schedules the next attempt for a command that may still reach the node. False: the agent gives up.
func (j *job) outlasts(now time.Time) bool {
	if j.absent.IsZero() {
		j.absent = now
	}
	j.again = now.Add(min(againMin<<min(j.told, 10), againMax))
	j.told++
	return now.Sub(j.absent) < absentFor
}

// repeat sends the updates again that the node could not match to a command and may match by now.
func (a *Agent) repeat(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, job := range sorted(a.jobs) {
		if job.again.IsZero() || now.Before(job.again) {
			continue
		}
		job.again, job.sent = time.Time{}, false
		a.queue(job)
		a.tell()
		a.notify()
	}
}

// answered handles the node's answer to an update.
func (a *Agent) answered(ack *agentpb.UpdateAck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	job := a.jobs[ack.CommandId]
	if job == nil || job.update == nil || job.update.Stage != ack.Stage {
		return
	}
	if ack.Refused != "" {
		a.options.logger.Warn("the node rejected an update", "command", ack.CommandId, "stage", ack.Stage, "error", ack.Refused)
	}
	if ack.NotHere && job.outlasts(time.Now()) {
		a.notify()
		return
	}
	job.again, job.absent, job.told = time.Time{}, time.Time{}, 0
	switch {
	case job.stage == jobDone:
		a.settle(job, ack.Stage)
	case ack.Refused != "":
		// The command expired, was cancelled or is not for this agent: it must not begin.
		job.refused = ack.Refused
		a.settle(job, agentpb.CommandUpdate_STAGE_UNSPECIFIED)
	default:
		job.update, job.confirmed = nil, true
	}
	a.notify()
}

// settle removes a job and keeps its id; without a stage, the node rejected its acceptance and the id is forgotten too.
func (a *Agent) settle(job *job, stage agentpb.CommandUpdate_Stage) {
	lines := []*ledgerLine{{Kind: ledgerSettled, ID: job.id(), Stage: stage}}
	for _, key := range job.keys {
		if !job.interrupted && a.forgetWork(key, job) {
			lines = append(lines, &ledgerLine{Kind: ledgerForget, ID: key})
		}
	}
	// On failure the next start sends the update again.
	_ = a.ledger.append(lines...)
	a.drop(job)
}

// drop removes a job.
func (a *Agent) drop(job *job) {
	delete(a.jobs, job.id())
	for i, other := range a.inbox {
		if other == job {
			a.inbox = append(a.inbox[:i], a.inbox[i+1:]...)
			break
		}
	}
	job.cancel(context.Canceled)
	a.notify()
}

// take returns the next command that may still begin.
func (a *Agent) take(now time.Time) *job {
	for len(a.inbox) > 0 {
		job := a.inbox[0]
		a.inbox = a.inbox[1:]
		if !job.accepted && job.late(now) {
			a.drop(job)
			continue
		}
		job.stage = jobTaken
		return job
	}
	return nil
}

func (j *job) late(now time.Time) bool { return !j.deadline.IsZero() && !now.Before(j.deadline) }

// putBack queues a command again that was not begun.
func (a *Agent) putBack(job *job) {
	if a.jobs[job.id()] == job && job.stage < jobRunning {
		job.stage = jobWaiting
		if job.again.IsZero() {
			a.queue(job)
		}
		a.notify()
	}
}

// queue makes a waiting job available to Commands.
func (a *Agent) queue(job *job) {
	if job.stage == jobWaiting && !slices.Contains(a.inbox, job) {
		a.inbox = append(a.inbox, job)
	}
}

// finish records the end of a job and queues it for the node.
func (a *Agent) finish(job *job, update *agentpb.CommandUpdate) error {
	line := &ledgerLine{Kind: ledgerDone, ID: job.id(), Stage: update.Stage, Result: update.ResultJson, Error: update.Error}
	if err := a.ledger.append(line); err != nil {
		return err
	}
	job.stage, job.update, job.sent, job.progress = jobDone, update, false, nil
	for i, other := range a.inbox {
		if other == job {
			a.inbox = append(a.inbox[:i], a.inbox[i+1:]...)
			break
		}
	}
	a.tell()
	a.notify()
	return nil
}

// unsettled reports whether a job is at this stage; a.mu is held.
func (a *Agent) unsettled(stage jobStage) bool {
	for _, job := range a.jobs {
		if job.stage == stage {
			return true
		}
	}
	return false
}

// outgoing returns the updates that this connection has not sent; a.mu is held.
func (a *Agent) outgoing() []*agentpb.CommandUpdate {
	var updates []*agentpb.CommandUpdate
	for _, job := range sorted(a.jobs) {
		if job.update != nil && !job.sent {
			job.sent = true
			updates = append(updates, job.update)
		}
		if job.progress != nil {
			updates = append(updates, job.progress)
			job.progress = nil
		}
	}
	return updates
}

// lostLink marks all unconfirmed updates as not sent.
func (a *Agent) lostLink() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected = false
	for _, job := range a.jobs {
		if !job.again.IsZero() {
			a.queue(job)
		}
		job.sent, job.progress, job.again = false, nil, time.Time{}
		job.interrupted = job.interrupted || job.accepted
	}
	a.notify()
}
