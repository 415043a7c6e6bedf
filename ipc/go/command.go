package peat

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"peat.dev/peat/gen/agentpb"
)

// Command is a command for this agent. It begins with Accept and ends with Complete, Fail or Cancelled.
type Command struct {
	ID   string
	Type string
	// Payload is JSON.
	Payload json.RawMessage
	// Issuer is the endpoint id of the node that issued and signed it.
	Issuer string
	// How it was addressed; neither: to this agent alone.
	Group string
	All   bool

	agent *Agent
	job   *job
}

func (a *Agent) command(job *job) *Command {
	c := job.command
	return &Command{ID: c.Id, Type: c.CommandType, Payload: json.RawMessage(c.PayloadJson), Issuer: c.Issuer, Group: c.Group,
		All: c.All, agent: a, job: job}
}

// Commands gives the commands for this agent, each once, until ctx or the agent ends, which is its last error. A command
// that is not accepted in time is not given, or its Accept fails.
func (a *Agent) Commands(ctx context.Context) iter.Seq2[*Command, error] {
	return func(yield func(*Command, error) bool) {
		for {
			var job *job
			err := a.await(ctx, func() bool {
				if job == nil && ctx.Err() == nil && !a.closed {
					job = a.take(time.Now())
				}
				return job != nil || a.closed
			})
			if err == nil && job == nil {
				err = &Error{Code: Canceled, Message: "the agent was closed", cause: ErrClosed}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(a.command(job), nil) {
				return
			}
		}
	}
}

// Context ends when the command is cancelled (its cause is then ErrCancelRequested) and when the agent is closed, not when
// the connection is lost.
func (c *Command) Context() context.Context { return c.job.ctx }

// Decode unmarshals the payload.
func (c *Command) Decode(into any) error { return json.Unmarshal(c.Payload, into) }

// Accept begins the command: once it returns nil, the node and this agent have it on disk, and it will not be given again.
// An error: it must not be carried out. The node refused it (it expired, or was cancelled); or ctx ended first, or the node the
// agent has moved to does not hold it yet, and the command is given again by Commands.
func (c *Command) Accept(ctx context.Context) error {
	if err := c.announce(); err != nil {
		return err
	}
	err := c.agent.await(ctx, func() bool { return c.job.confirmed || c.job.refused != "" || !c.job.again.IsZero() })
	return c.begin(err)
}

// announce writes the acceptance down and has the node told.
func (c *Command) announce() error {
	a, job := c.agent, c.job
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case job.refused != "":
		return refusedError(job)
	case job.stage != jobTaken:
		return &Error{Code: FailedPrecondition, Message: "command " + c.ID + " has been accepted already"}
	case job.accepted:
		job.stage = jobAccepting
		return nil
	case job.late(time.Now()):
		a.drop(job)
		return &Error{Code: DeadlineExceeded, Message: "command " + c.ID + " expired before it was accepted"}
	}
	body, err := proto.Marshal(job.command)
	if err == nil {
		err = a.ledger.append(&ledgerLine{Kind: ledgerAccepted, ID: c.ID, Command: body})
	}
	if err != nil {
		a.putBack(job)
		return fmt.Errorf("accepting command %s: %w", c.ID, err)
	}
	job.stage, job.accepted, job.update, job.sent = jobAccepting, true, acceptance(c.ID), false
	a.tell()
	return nil
}

// begin marks the point from which the work may have had effects.
func (c *Command) begin(waited error) error {
	a, job := c.agent, c.job
	a.mu.Lock()
	defer a.mu.Unlock()
	if job.refused != "" {
		return refusedError(job)
	}
	if waited == nil && !job.confirmed {
		waited = &Error{Code: Unavailable, Message: "the node does not hold command " + c.ID + " yet"}
	}
	if waited == nil {
		waited = a.ledger.append(&ledgerLine{Kind: ledgerStarted, ID: c.ID})
	}
	if waited != nil {
		a.putBack(job)
		return waited
	}
	job.stage = jobRunning
	return nil
}

func refusedError(job *job) error {
	return &Error{Code: Aborted, Message: fmt.Sprintf("command %s must not begin: %s", job.id(), job.refused)}
}

// Progress tells whoever watches the command how far it is, if the node can be reached: the newest words, every five seconds at
// most, up to 1 KiB.
func (c *Command) Progress(percent int, words string) {
	a := c.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.job.stage == jobRunning && a.connected {
		c.job.progress = &agentpb.CommandUpdate{CommandId: c.ID, Stage: agentpb.CommandUpdate_STAGE_PROGRESS,
			Progress: clip(words, progressBytes), Percent: uint32(min(max(percent, 0), 100))}
		a.tell()
	}
}

// Complete ends the command with a result: JSON text (string, []byte, json.RawMessage), nil, or anything that marshals to
// JSON, up to 256 KiB. Once it returns nil the result is on disk, and is delivered now or when the node is back.
func (c *Command) Complete(result any) error {
	text := ""
	if result != nil {
		var err error
		if text, err = toJSON(result); err != nil {
			return err
		}
		if !json.Valid([]byte(text)) {
			return invalid("the result of command %s is not JSON", c.ID)
		}
		if len(text) > resultBytes {
			return &Error{Code: ResourceExhausted,
				Message: fmt.Sprintf("the result of command %s has %d bytes; the limit is %d", c.ID, len(text), resultBytes)}
		}
	}
	return c.end(&agentpb.CommandUpdate{CommandId: c.ID, Stage: agentpb.CommandUpdate_STAGE_COMPLETED, ResultJson: text})
}

// Fail ends the command with words on why.
func (c *Command) Fail(why error) error {
	return c.end(&agentpb.CommandUpdate{CommandId: c.ID, Stage: agentpb.CommandUpdate_STAGE_FAILED, Error: clip(why.Error(), errorBytes)})
}

// Cancelled ends the command because its context said so.
func (c *Command) Cancelled() error {
	return c.end(&agentpb.CommandUpdate{CommandId: c.ID, Stage: agentpb.CommandUpdate_STAGE_CANCELLED})
}

func (c *Command) end(update *agentpb.CommandUpdate) error {
	a := c.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.job.stage != jobRunning {
		return &Error{Code: FailedPrecondition, Message: "command " + c.ID + " is not running"}
	}
	return a.finish(c.job, update)
}

// clip shortens words to what the node takes.
func clip(words string, most int) string {
	const more = "…"
	if len(words) <= most {
		return words
	}
	return strings.ToValidUTF8(words[:most-len(more)], "") + more
}
