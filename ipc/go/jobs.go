package peat

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"peat.dev/peat/gen/agentpb"
	pb "peat.dev/peat/gen/sidecarpb"
)

// ErrCancelRequested is the cause of a command's context after its sender cancelled it.
var ErrCancelRequested = errors.New("the command was cancelled")

// errRestarted is what a command fails with whose agent was restarted in the middle of it.
const errRestarted = "the agent was restarted while the command ran"

const (
	// resultBytes, errorBytes and progressBytes are what the node takes of a result and of words.
	resultBytes   = 256 << 10
	errorBytes    = 4 << 10
	progressBytes = 1 << 10
)

const (
	// againMin after a node has said that it does not hold a command it is told again, and twice as long after each time, up
	// to againMax.
	againMin = 5 * time.Second
	againMax = 10 * time.Minute
	// absentFor is how long a command may be unknown to every node the agent meets before its report is dropped.
	absentFor = 24 * time.Hour
)

type jobStage int

const (
	jobWaiting   jobStage = iota // to be given to Commands
	jobTaken                     // given, not begun
	jobAccepting                 // the node is asked whether it may begin
	jobRunning                   // begun: it ends, or is reported as interrupted
	jobDone                      // over; the node is to be told
)

// job is an unfinished command. Guarded by the agent's mutex; its context is not.
type job struct {
	command *pb.Command
	stage   jobStage
	// When it can no longer be accepted; zero: never.
	deadline time.Time
	// The ledger has it as accepted, and the node is told so from then on.
	accepted bool
	// What the node is to be told, nil once it has confirmed that; sent on this connection already.
	update *agentpb.CommandUpdate
	sent   bool
	// The node's word on ACCEPTED.
	confirmed bool
	refused   string
	progress  *agentpb.CommandUpdate
	// The link was lost between acceptance and the node's confirmation of the end.
	interrupted bool
	keys        []string // of the work done once
	// The node does not hold the command: when it is told again, since when that is so, and how often it was told.
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

// resume takes up what the ledger has from before.
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
			// If that cannot be written down now, it is found again at the next start.
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

// pushed is the node's wish that a command be run; it may come any number of times. What it gives is to be said at once.
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
			// Said again: the node does not know it.
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

// said is the newest of what the node should know of a job.
func (j *job) said() *agentpb.CommandUpdate {
	if j.update != nil {
		return j.update
	}
	return acceptance(j.id())
}

// cancelled is the node's wish that a command end. What it gives is to be said at once.
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
	// Not begun, so its end can be confirmed here. Failing that, the node asks again.
	_ = a.finish(job, confirmed)
	return nil
}

// outlasts says whether the node is to be told again, because the command may come to it yet, and notes when.
func (j *job) outlasts(now time.Time) bool {
	if j.absent.IsZero() {
		j.absent = now
	}
	j.again = now.Add(min(againMin<<min(j.told, 10), againMax))
	j.told++
	return now.Sub(j.absent) < absentFor
}

// repeat makes the agent tell again what the node did not hold and may hold by now.
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

// answered is the node's word on an update.
func (a *Agent) answered(ack *agentpb.UpdateAck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	job := a.jobs[ack.CommandId]
	if job == nil || job.update == nil || job.update.Stage != ack.Stage {
		return
	}
	if ack.Refused != "" {
		a.options.logger.Warn("the node refused an update", "command", ack.CommandId, "stage", ack.Stage, "why", ack.Refused)
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
		// It expired, was cancelled or is not for this agent: it must not begin.
		job.refused = ack.Refused
		a.settle(job, agentpb.CommandUpdate_STAGE_UNSPECIFIED)
	default:
		job.update, job.confirmed = nil, true
	}
	a.notify()
}

// settle forgets a job but for its id; one that was refused before it began (no stage) is forgotten altogether.
func (a *Agent) settle(job *job, stage agentpb.CommandUpdate_Stage) {
	lines := []*ledgerLine{{Kind: ledgerSettled, ID: job.id(), Stage: stage}}
	for _, key := range job.keys {
		if !job.interrupted && a.forgetWork(key, job) {
			lines = append(lines, &ledgerLine{Kind: ledgerForget, ID: key})
		}
	}
	// Failing that, the node is told once more after a restart.
	_ = a.ledger.append(lines...)
	a.drop(job)
}

// drop takes a job off the lists.
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

// take gives the next command that may still begin.
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

// putBack makes a command that was not begun available again.
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

// finish writes a job's end down and has the node told.
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

// unsettled says whether there is a job at this stage; a.mu is held.
func (a *Agent) unsettled(stage jobStage) bool {
	for _, job := range a.jobs {
		if job.stage == stage {
			return true
		}
	}
	return false
}

// outgoing is what the node is to be told of commands and was not on this connection; a.mu is held.
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

// lostLink notes that what was said may not have arrived.
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
