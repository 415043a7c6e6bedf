package peat

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"time"

	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

// DefaultTTL is the TTL of a command without one.
const DefaultTTL = 60 * time.Second

// NoExpiry is the TTL of a command that never expires.
const NoExpiry time.Duration = -1

// NewCommand is a command to send. Exactly one of Agent, Group and All names its targets.
type NewCommand struct {
	Agent string
	Group string
	All   bool
	Type  string
	// Payload is JSON text (string, []byte, json.RawMessage) or anything that marshals to JSON; nil is {}.
	Payload any
	// TTL is how long the command waits for acceptance, rounded up to whole seconds; 0 is DefaultTTL.
	TTL time.Duration
	// ID is the idempotency key; empty: a random one. Sending the same command under the same id again has no effect.
	ID string
}

// SendCommand issues a command and returns its id. The command is on disk by then; WaitCommand returns its outcome.
func (c *Client) SendCommand(ctx context.Context, command NewCommand) (string, error) {
	record, err := command.record(time.Now())
	if err != nil {
		return "", of(methodPutCommand, err)
	}
	return record.Id, c.PutCommand(ctx, record)
}

func (n NewCommand) record(now time.Time) (*CommandRecord, error) {
	if n.Payload == nil {
		n.Payload = "{}"
	}
	payload, err := toJSON(n.Payload)
	if err != nil {
		return nil, err
	}
	if n.ID == "" {
		n.ID = randomID()
	}
	record := &CommandRecord{Id: n.ID, TargetId: n.Agent, Group: n.Group, All: n.All, CommandType: n.Type,
		PayloadJson: payload, CreatedAt: now.Unix(), Status: pb.CommandStatus_COMMAND_STATUS_PENDING}
	if n.TTL == 0 {
		n.TTL = DefaultTTL
	}
	if n.TTL > 0 {
		record.ExpiresAt = record.CreatedAt + int64((n.TTL+time.Second-1)/time.Second)
	}
	return record, nil
}

func randomID() string {
	var bytes [16]byte
	// Never fails.
	_, _ = rand.Read(bytes[:])
	return hex.EncodeToString(bytes[:])
}

// CancelCommand requests the end of a command and returns the status of each target. A target that is not CANCELLED yet ends
// when its agent confirms the request.
func (c *Client) CancelCommand(ctx context.Context, id string) ([]*TargetStatus, error) {
	response := new(pb.CancelCommandResponse)
	err := c.call(ctx, methodCancelCommand, &pb.CancelCommandRequest{Id: id}, response)
	return response.Targets, err
}

// Command returns the command with this id, as far as its updates have reached the node.
func (c *Client) Command(ctx context.Context, id string) (*CommandRecord, error) {
	response := new(pb.GetCommandsResponse)
	if err := c.call(ctx, methodGetCommands, &pb.GetCommandsRequest{Id: id}, response); err != nil {
		return nil, err
	}
	for _, command := range response.Commands {
		if command.Id == id {
			return command, nil
		}
	}
	return nil, of(methodGetCommands, &Error{Code: NotFound, Message: "there is no command " + id})
}

// WaitCommand waits until a command has ended at all of its targets: COMPLETED, FAILED, CANCELLED or EXPIRED.
func (c *Client) WaitCommand(ctx context.Context, id string) (*CommandRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Subscribe before the first read, so that no change falls between the two. An expiry can happen without a change.
	changes := c.changesOf(ctx, "commands")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		command, err := c.Command(ctx, id)
		if err == nil && over(command) || err != nil && !passing(err) {
			return command, err
		}
		select {
		case <-changes:
		case <-tick.C:
		case <-ctx.Done():
			return nil, of(methodGetCommands, contextError(ctx))
		}
	}
}

// changesOf signals changes in a collection; one signal may stand for several changes.
func (c *Client) changesOf(ctx context.Context, collection string) <-chan struct{} {
	signal := make(chan struct{}, 1)
	go func() {
		for range c.Subscribe(ctx, WithCollections(collection)) {
			select {
			case signal <- struct{}{}:
			default:
			}
		}
	}()
	return signal
}

func over(command *CommandRecord) bool {
	for _, target := range command.Targets {
		if !terminal(target.Status) {
			return false
		}
	}
	return len(command.Targets) > 0 || terminal(command.Status)
}

func terminal(status pb.CommandStatus) bool {
	switch status {
	case pb.CommandStatus_COMMAND_STATUS_COMPLETED, pb.CommandStatus_COMMAND_STATUS_FAILED,
		pb.CommandStatus_COMMAND_STATUS_CANCELLED, pb.CommandStatus_COMMAND_STATUS_EXPIRED:
		return true
	}
	return false
}

// AgentFilter limits [Client.Agents]; its zero value selects all agents.
type AgentFilter struct {
	Liveness Liveness
	Group    string
}

// Agents returns the agents of the fleet that this node knows, dead ones included.
func (c *Client) Agents(ctx context.Context, filter AgentFilter) ([]*AgentInfo, error) {
	var agents []*AgentInfo
	request := &pb.ListAgentsRequest{Liveness: filter.Liveness, Group: filter.Group, PageSize: agentsPage}
	for {
		response := new(pb.ListAgentsResponse)
		if err := c.call(ctx, methodListAgents, request, response); err != nil {
			return nil, err
		}
		agents = append(agents, response.Agents...)
		if request.PageToken = response.NextPageToken; len(request.PageToken) == 0 {
			return agents, nil
		}
	}
}

// AgentChange is the present state of an agent.
type AgentChange struct {
	Type  ChangeType
	Agent *AgentInfo // of a ChangeUpsert or ChangeDelete
}

// WatchAgents delivers all agents, a ChangeSnapshotEnd and then every change until ctx ends. After a lost connection it
// delivers a ChangeReset and all agents again.
func (c *Client) WatchAgents(ctx context.Context) iter.Seq2[*AgentChange, error] {
	return func(yield func(*AgentChange, error) bool) {
		var pause backoff
		for {
			err := c.watchAgents(ctx, &pause, yield)
			switch {
			case err == nil:
				return
			case ctx.Err() == nil && (errors.Is(err, io.EOF) || passing(err)) && pause.wait(ctx):
				if !yield(&AgentChange{Type: ChangeReset}, nil) {
					return
				}
			case ctx.Err() != nil:
				yield(nil, of(methodWatchAgents, contextError(ctx)))
				return
			default:
				yield(nil, err)
				return
			}
		}
	}
}

func (c *Client) watchAgents(ctx context.Context, pause *backoff, yield func(*AgentChange, error) bool) error {
	stream, err := c.open(ctx, methodWatchAgents, &pb.WatchAgentsRequest{})
	if err != nil {
		return err
	}
	defer stream.close()
	types := map[pb.ChangeType]ChangeType{pb.ChangeType_CHANGE_TYPE_UPSERT: ChangeUpsert,
		pb.ChangeType_CHANGE_TYPE_DELETE: ChangeDelete, pb.ChangeType_CHANGE_TYPE_SNAPSHOT_END: ChangeSnapshotEnd}
	for {
		item := new(pb.AgentChange)
		if err := stream.receive(ctx, item); err != nil {
			return of(methodWatchAgents, err)
		}
		pause.reset()
		if kind, ok := types[item.ChangeType]; ok && !yield(&AgentChange{Type: kind, Agent: item.Agent}, nil) {
			return nil
		}
	}
}
