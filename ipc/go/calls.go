package peat

import (
	"context"

	pb "peat.dev/peat/gen/sidecarpb"
)

// The messages of peat.sidecar.v1 that calls take and give. Their enums and getters are in package gen/sidecarpb.
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
	AgentInfo     = pb.Agent
	Liveness      = pb.Liveness
)

// How many elements of a list are asked for at a time.
const (
	commandsPage = 200
	agentsPage   = 1_000
)

const (
	Live  = pb.Liveness_LIVENESS_LIVE
	Stale = pb.Liveness_LIVENESS_STALE
	Dead  = pb.Liveness_LIVENESS_DEAD
)

// Status says who the node is and how it is connected.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	response := new(pb.GetStatusResponse)
	return response, c.call(ctx, methodGetStatus, &pb.GetStatusRequest{}, response)
}

// Health says whether the node is well, and what is wrong if not.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	response := new(pb.GetHealthResponse)
	return response, c.call(ctx, methodGetHealth, &pb.GetHealthRequest{}, response)
}

// ConnectPeer links the node with another, now and after restarts. Addresses are HOST:PORT; relay is relay:HOST:PORT or empty.
func (c *Client) ConnectPeer(ctx context.Context, endpointID string, addresses []string, relay string) error {
	request := &pb.ConnectPeerRequest{EndpointId: endpointID, Addresses: addresses, RelayUrl: relay}
	return c.call(ctx, methodConnectPeer, request, new(pb.ConnectPeerResponse))
}

// DisconnectPeer ends the link with a node and refuses it until ConnectPeer.
func (c *Client) DisconnectPeer(ctx context.Context, endpointID string) error {
	request := &pb.DisconnectPeerRequest{EndpointId: endpointID}
	return c.call(ctx, methodDisconnectPeer, request, new(pb.DisconnectPeerResponse))
}

// Peers are the nodes this one knows.
func (c *Client) Peers(ctx context.Context) ([]*Peer, error) {
	response := new(pb.ListPeersResponse)
	err := c.call(ctx, methodListPeers, &pb.ListPeersRequest{}, response)
	return response.Peers, err
}

// StartSync ends radio silence.
func (c *Client) StartSync(ctx context.Context) error {
	return c.call(ctx, methodStartSync, &pb.StartSyncRequest{}, new(pb.StartSyncResponse))
}

// StopSync begins radio silence: once it returns, not one datagram leaves the node.
func (c *Client) StopSync(ctx context.Context) error {
	return c.call(ctx, methodStopSync, &pb.StopSyncRequest{}, new(pb.StopSyncResponse))
}

// SyncStats are the counters of the links to other nodes.
func (c *Client) SyncStats(ctx context.Context) (*SyncStats, error) {
	response := new(pb.GetSyncStatsResponse)
	return response, c.call(ctx, methodGetSyncStats, &pb.GetSyncStatsRequest{}, response)
}

// PutPlatform writes the fields it has to platforms/{id}. It is a sign of life of agent {id} too.
func (c *Client) PutPlatform(ctx context.Context, platform *Platform) error {
	return c.call(ctx, methodPutPlatform, &pb.PutPlatformRequest{Platform: platform}, new(pb.PutPlatformResponse))
}

// Platforms are all objects in platforms.
func (c *Client) Platforms(ctx context.Context) ([]*Platform, error) {
	response := new(pb.GetPlatformsResponse)
	err := c.call(ctx, methodGetPlatforms, &pb.GetPlatformsRequest{}, response)
	return response.Platforms, err
}

// PutCell writes the fields it has to cells/{id}.
func (c *Client) PutCell(ctx context.Context, cell *Cell) error {
	return c.call(ctx, methodPutCell, &pb.PutCellRequest{Cell: cell}, new(pb.PutCellResponse))
}

// Cells are all objects in cells.
func (c *Client) Cells(ctx context.Context) ([]*Cell, error) {
	response := new(pb.GetCellsResponse)
	err := c.call(ctx, methodGetCells, &pb.GetCellsRequest{}, response)
	return response.Cells, err
}

// PutTrack writes the fields it has to tracks/{id}.
func (c *Client) PutTrack(ctx context.Context, track *Track) error {
	return c.call(ctx, methodPutTrack, &pb.PutTrackRequest{Track: track}, new(pb.PutTrackResponse))
}

// Tracks are all objects in tracks.
func (c *Client) Tracks(ctx context.Context) ([]*Track, error) {
	response := new(pb.GetTracksResponse)
	err := c.call(ctx, methodGetTracks, &pb.GetTracksRequest{}, response)
	return response.Tracks, err
}

// PutCommand issues a command as it is, or reports on one that exists. SendCommand is the simpler way to issue one.
func (c *Client) PutCommand(ctx context.Context, command *CommandRecord) error {
	return c.call(ctx, methodPutCommand, &pb.PutCommandRequest{Command: command}, new(pb.PutCommandResponse))
}

// GetCommands are the commands the node knows, the oldest first: all of them, or with an agent's id those for it, its groups' and
// everyone's included, and of these with pendingOnly what it may still run.
func (c *Client) GetCommands(ctx context.Context, agentID string, pendingOnly bool) ([]*CommandRecord, error) {
	var commands []*CommandRecord
	request := &pb.GetCommandsRequest{TargetId: agentID, PendingOnly: pendingOnly}
	err := c.eachCommand(ctx, request, func(command *CommandRecord) error {
		commands = append(commands, command)
		return nil
	})
	return commands, err
}

// eachCommand goes through the pages of a list, of which one at a time is held.
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
