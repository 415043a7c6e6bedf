package peat

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
)

// Command is a command for this agent. It begins with Accept and ends with Complete, Fail or Cancelled.
type Command struct {
	ID   string
	Type string
	// Payload is JSON.
	Payload json.RawMessage
	// Issuer is the endpoint id of the node that issued and signed the command.
	Issuer string
	// Group and All are its address; with neither, the command is for this agent alone.
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

// Commands delivers the commands for this agent, each once, until ctx or the agent ends, which is the last error. A command
// that expires before its acceptance is not delivered, or its Accept fails.
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

// Context ends when the command is cancelled, with the cause ErrCancelRequested, and when the agent is closed. A lost
// connection does not end it.
func (c *Command) Context() context.Context { return c.job.ctx }

// Decode unmarshals the payload.
func (c *Command) Decode(into any) error { return json.Unmarshal(c.Payload, into) }

// Accept begins the command. After it returns nil, the node and this agent have the acceptance on disk, and the command is
// not delivered again.
//
// After an error the command must not be carried out: the node has rejected it because it expired or was cancelled; or ctx
// ended first, or the agent's present node does not have the command yet, and Commands delivers it again.
func (c *Command) Accept(ctx context.Context) error {
	if err := c.announce(); err != nil {
		return err
	}
	err := c.agent.await(ctx, func() bool { return c.job.confirmed || c.job.refused != "" || !c.job.again.IsZero() })
	return c.begin(err)
}

// announce records the acceptance and queues it for the node.
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

// begin records the point after which the handler may have had effects.
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

// Progress shows the progress of the command to its watchers, if the node can be reached: the newest text, at most every five
// seconds, up to 1 KiB.
func (c *Command) Progress(percent int, text string) {
	a := c.agent
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.job.stage == jobRunning && a.connected {
		c.job.progress = &agentpb.CommandUpdate{CommandId: c.ID, Stage: agentpb.CommandUpdate_STAGE_PROGRESS,
			Progress: clip(text, progressBytes), Percent: uint32(min(max(percent, 0), 100))}
		a.tell()
	}
}

// Complete ends the command with a result: JSON text (string, []byte, json.RawMessage), nil, or a value that marshals to
// JSON, up to 256 KiB. After it returns nil, the result is on disk and is delivered now or when the node is back.
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

// Fail ends the command with the reason that it failed for.
func (c *Command) Fail(why error) error {
	return c.end(&agentpb.CommandUpdate{CommandId: c.ID, Stage: agentpb.CommandUpdate_STAGE_FAILED, Error: clip(why.Error(), errorBytes)})
}

// Cancelled confirms the cancellation of the command.
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

// clip shortens text to a number of bytes.
func clip(text string, limit int) string {
	const more = "…"
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(more)], "") + more
}
