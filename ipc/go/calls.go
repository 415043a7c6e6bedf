package peat

import (
	"context"

	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

// Messages of peat.sidecar.v1 that calls take and return. Package gen/sidecarpb has their enums and getters.
type (
	Status        = pb.GetStatusResponse
	Health        = pb.GetHealthResponse
	SyncStats     = pb.GetSyncStatsResponse
	Peer          = pb.PeerInfo
	Platform      = pb.Platform
	Cell          = pb.Cell
	Track         = pb.Track
	CommandRecord = pb.Command
	TargetStatus  = pb.TargetStatus
	CommandStatus = pb.CommandStatus
	AgentInfo     = pb.Agent
	Liveness      = pb.Liveness
)

const (
	// Elements of a list that the client requests at a time.
	commandsPage = 200
	agentsPage   = 1_000
)

// Liveness of an agent.
const (
	LivenessLive  = pb.Liveness_LIVENESS_LIVE
	LivenessStale = pb.Liveness_LIVENESS_STALE
	LivenessDead  = pb.Liveness_LIVENESS_DEAD
)

// Statuses of a command. The last four are final.
const (
	CommandPending   = pb.CommandStatus_COMMAND_STATUS_PENDING
	CommandExecuting = pb.CommandStatus_COMMAND_STATUS_EXECUTING
	CommandCompleted = pb.CommandStatus_COMMAND_STATUS_COMPLETED
	CommandFailed    = pb.CommandStatus_COMMAND_STATUS_FAILED
	CommandCancelled = pb.CommandStatus_COMMAND_STATUS_CANCELLED
	CommandExpired   = pb.CommandStatus_COMMAND_STATUS_EXPIRED
)

// Status returns the node's id, its configuration and its connections.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	response := new(pb.GetStatusResponse)
	return response, c.call(ctx, methodGetStatus, &pb.GetStatusRequest{}, response)
}

// Health returns whether the node works, and the faults if not.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	response := new(pb.GetHealthResponse)
	return response, c.call(ctx, methodGetHealth, &pb.GetHealthRequest{}, response)
}

// PeerTarget names the node that [Client.ConnectPeer] connects to.
type PeerTarget struct {
	// EndpointID is the node's id, 64 hexadecimal digits.
	EndpointID string
	// Addresses are HOST:PORT each. Relay is relay:HOST:PORT, or empty.
	Addresses []string
	Relay     string
	// Wait delays the answer until the peer is admitted. When the deadline passes first, the call fails with the reason and the
	// node goes on dialling.
	Wait bool
}

// ConnectPeer connects the node to a peer, now and after restarts.
func (c *Client) ConnectPeer(ctx context.Context, peer PeerTarget) error {
	request := &pb.ConnectPeerRequest{EndpointId: peer.EndpointID, Addresses: peer.Addresses, RelayUrl: peer.Relay, Wait: peer.Wait}
	return c.call(ctx, methodConnectPeer, request, new(pb.ConnectPeerResponse))
}

// DisconnectPeer disconnects the node from a peer and rejects that peer until ConnectPeer.
func (c *Client) DisconnectPeer(ctx context.Context, endpointID string) error {
	request := &pb.DisconnectPeerRequest{EndpointId: endpointID}
	return c.call(ctx, methodDisconnectPeer, request, new(pb.DisconnectPeerResponse))
}

// PeerFilter limits [Client.Peers]; its zero value selects the peers that DisconnectPeer has not disconnected.
type PeerFilter struct {
	// All adds the disconnected peers.
	All bool
}

// Peers returns the nodes that this node connects to or accepts.
func (c *Client) Peers(ctx context.Context, filter PeerFilter) ([]*Peer, error) {
	response := new(pb.ListPeersResponse)
	err := c.call(ctx, methodListPeers, &pb.ListPeersRequest{All: filter.All}, response)
	return response.Peers, err
}

// StartSync ends radio silence.
func (c *Client) StartSync(ctx context.Context) error {
	return c.call(ctx, methodStartSync, &pb.StartSyncRequest{}, new(pb.StartSyncResponse))
}

// StopSync begins radio silence: after it returns, the node sends no datagram.
func (c *Client) StopSync(ctx context.Context) error {
	return c.call(ctx, methodStopSync, &pb.StopSyncRequest{}, new(pb.StopSyncResponse))
}

// SyncStats returns the counters of the node's links to its peers.
func (c *Client) SyncStats(ctx context.Context) (*SyncStats, error) {
	response := new(pb.GetSyncStatsResponse)
	return response, c.call(ctx, methodGetSyncStats, &pb.GetSyncStatsRequest{}, response)
}

// PutPlatform writes the set fields of the message to platforms/{id}. It is a sign of life of agent {id} as well.
func (c *Client) PutPlatform(ctx context.Context, platform *Platform) error {
	return c.call(ctx, methodPutPlatform, &pb.PutPlatformRequest{Platform: platform}, new(pb.PutPlatformResponse))
}

// Platforms returns all objects in the collection platforms.
func (c *Client) Platforms(ctx context.Context) ([]*Platform, error) {
	response := new(pb.GetPlatformsResponse)
	err := c.call(ctx, methodGetPlatforms, &pb.GetPlatformsRequest{}, response)
	return response.Platforms, err
}

// PutCell writes the set fields of the message to cells/{id}.
func (c *Client) PutCell(ctx context.Context, cell *Cell) error {
	return c.call(ctx, methodPutCell, &pb.PutCellRequest{Cell: cell}, new(pb.PutCellResponse))
}

// Cells returns all objects in the collection cells.
func (c *Client) Cells(ctx context.Context) ([]*Cell, error) {
	response := new(pb.GetCellsResponse)
	err := c.call(ctx, methodGetCells, &pb.GetCellsRequest{}, response)
	return response.Cells, err
}

// PutTrack writes the set fields of the message to tracks/{id}.
func (c *Client) PutTrack(ctx context.Context, track *Track) error {
	return c.call(ctx, methodPutTrack, &pb.PutTrackRequest{Track: track}, new(pb.PutTrackResponse))
}

// Tracks returns all objects in the collection tracks.
func (c *Client) Tracks(ctx context.Context) ([]*Track, error) {
	response := new(pb.GetTracksResponse)
	err := c.call(ctx, methodGetTracks, &pb.GetTracksRequest{}, response)
	return response.Tracks, err
}

// PutCommand issues a command as it is, or reports the status of an existing one. SendCommand is the simpler way to issue
// one.
func (c *Client) PutCommand(ctx context.Context, command *CommandRecord) error {
	return c.call(ctx, methodPutCommand, &pb.PutCommandRequest{Command: command}, new(pb.PutCommandResponse))
}

// CommandFilter limits [Client.Commands]; its zero value selects all commands.
type CommandFilter struct {
	// Agent selects the commands for one agent, including those for its group and for all agents.
	Agent string
	// PendingOnly selects what that agent may still run.
	PendingOnly bool
	// Status selects commands in one of these statuses: of Agent, or of all their targets.
	Status []CommandStatus
}

// Commands returns the commands that the node knows, the oldest first.
func (c *Client) Commands(ctx context.Context, filter CommandFilter) ([]*CommandRecord, error) {
	var commands []*CommandRecord
	request := &pb.GetCommandsRequest{TargetId: filter.Agent, PendingOnly: filter.PendingOnly, Status: filter.Status}
	err := c.eachCommand(ctx, request, func(command *CommandRecord) error {
		commands = append(commands, command)
		return nil
	})
	return commands, err
}

// eachCommand calls see for each command of a list and holds one page of it at a time.
func (c *Client) eachCommand(ctx context.Context, request *pb.GetCommandsRequest, see func(*CommandRecord) error) error {
	request.PageSize = commandsPage
	for {
		response := new(pb.GetCommandsResponse)
		if err := c.call(ctx, methodGetCommands, request, response); err != nil {
			return err
		}
		for _, command := range response.Commands {
			if err := see(command); err != nil {
				return err
			}
		}
		if request.PageToken = response.NextPageToken; len(request.PageToken) == 0 {
			return nil
		}
	}
}
