package peat

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// handlersAtOnce is the number of commands that one Handle runs at a time; others wait to be accepted.
const handlersAtOnce = 16

// Handler carries out a command that has been accepted. It returns the command's result, or the reason that the command
// failed for. Its context ends when the command is cancelled, and when the context of Handle or the agent ends.
type Handler func(ctx context.Context, command *Command) (result any, err error)

// Handle accepts commands and runs a handler for each, several at a time, until ctx or the agent ends. It returns after the
// last handler.
func (a *Agent) Handle(ctx context.Context, handler Handler) error {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, handlersAtOnce)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return contextError(ctx)
		}
		command, err := a.nextCommand(ctx)
		if err != nil {
			return err
		}
		running.Add(1)
		go func() {
			defer running.Done()
			defer func() { <-slots }()
			if err := command.run(ctx, handler); err != nil {
				a.options.logger.Warn("the command was not carried out", "command", command.ID, "error", err)
			}
		}()
	}
}

func (a *Agent) nextCommand(ctx context.Context) (*Command, error) {
	for command, err := range a.Commands(ctx) {
		return command, err
	}
	return nil, ErrClosed
}

// run carries one command out from acceptance to its end.
func (c *Command) run(ctx context.Context, handler Handler) error {
	if err := c.Accept(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.job.cancel(context.Cause(ctx)) })
	defer stop()
	result, err := c.call(handler)
	if err == nil {
		if err = c.Complete(result); err == nil {
			return nil
		}
	}
	if errors.Is(context.Cause(c.Context()), ErrCancelRequested) {
		return c.Cancelled()
	}
	return c.Fail(err)
}

// call turns a panic of the handler into a failure of its command.
func (c *Command) call(handler Handler) (result any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the handler panicked: %v", cause)
		}
	}()
	return handler(c.Context(), c)
}
