package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

const patience = 20 * time.Second

// code is what a call failed with, in gRPC's numbers, whichever library says it.
func code(err error) codes.Code {
	var failed *connect.Error
	if errors.As(err, &failed) {
		return codes.Code(failed.Code())
	}
	return status.Code(err)
}

// Everything a node can be asked, by every library over every transport.
func TestEveryMethodAnswers(t *testing.T) {
	for index, c := range everyCaller(t) {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			called := map[string]bool{}
			check := func(method string, err error) {
				t.Helper()
				called[method] = true
				if err != nil {
					t.Errorf("%s: %v", method, err)
				}
			}
			id := fmt.Sprintf("x%d", index)
			peer := strings.Repeat(fmt.Sprintf("%02x", index+1), 32)

			st, err := call[sidecarpb.GetStatusRequest, sidecarpb.GetStatusResponse](ctx, c, "GetStatus", &sidecarpb.GetStatusRequest{})
			check("GetStatus", err)
			if st.GetNodeId() != "n1" || len(st.GetEndpointAddr()) != 64 {
				t.Errorf("GetStatus: %v", st)
			}
			put, err := call[sidecarpb.PutDocumentRequest, sidecarpb.PutDocumentResponse](ctx, c, "PutDocument",
				&sidecarpb.PutDocumentRequest{Collection: "notes", DocId: id, JsonData: `{"a":1}`})
			check("PutDocument", err)
			if len(put.GetVersion()) == 0 || !put.GetDurable() {
				t.Errorf("PutDocument: %v", put)
			}
			_, err = call[sidecarpb.PatchDocumentRequest, sidecarpb.PatchDocumentResponse](ctx, c, "PatchDocument",
				&sidecarpb.PatchDocumentRequest{Collection: "notes", DocId: id, PatchJson: `{"b":2}`, Base: put.GetVersion()})
			check("PatchDocument", err)
			_, err = call[sidecarpb.CompactDocumentRequest, sidecarpb.CompactDocumentResponse](ctx, c, "CompactDocument",
				&sidecarpb.CompactDocumentRequest{Collection: "notes", DocId: id})
			check("CompactDocument", err)
			got, err := call[sidecarpb.GetDocumentRequest, sidecarpb.GetDocumentResponse](ctx, c, "GetDocument",
				&sidecarpb.GetDocumentRequest{Collection: "notes", DocId: id})
			check("GetDocument", err)
			if got.GetJsonData() != `{"a":1,"b":2}` {
				t.Errorf("GetDocument: %v", got)
			}
			none, err := call[sidecarpb.GetDocumentRequest, sidecarpb.GetDocumentResponse](ctx, c, "GetDocument",
				&sidecarpb.GetDocumentRequest{Collection: "notes", DocId: "none"})
			if check("GetDocument", err); none.JsonData != nil {
				t.Errorf("a document that is not there: %v", none)
			}
			ids, err := call[sidecarpb.ListDocumentsRequest, sidecarpb.ListDocumentsResponse](ctx, c, "ListDocuments",
				&sidecarpb.ListDocumentsRequest{Collection: "notes"})
			check("ListDocuments", err)
			if !strings.Contains(strings.Join(ids.GetDocIds(), " "), id) {
				t.Errorf("ListDocuments: %v", ids)
			}

			platform := &sidecarpb.Platform{Id: id, Name: "naïve ☂", Latitude: -12.5, Capabilities: []string{"a", "b"},
				Status: sidecarpb.PlatformStatus_PLATFORM_STATUS_BUSY, Callsign: proto.String("")}
			_, err = call[sidecarpb.PutPlatformRequest, sidecarpb.PutPlatformResponse](ctx, c, "PutPlatform",
				&sidecarpb.PutPlatformRequest{Platform: platform})
			check("PutPlatform", err)
			platforms, err := call[sidecarpb.GetPlatformsRequest, sidecarpb.GetPlatformsResponse](ctx, c, "GetPlatforms", &sidecarpb.GetPlatformsRequest{})
			check("GetPlatforms", err)
			for _, held := range platforms.GetPlatforms() {
				held.Liveness, held.Via, held.AgeMs = 0, "", 0
				if held.GetId() == id && !proto.Equal(held, platform) {
					t.Errorf("put %v, got %v", platform, held)
				}
			}
			_, err = call[sidecarpb.PutCellRequest, sidecarpb.PutCellResponse](ctx, c, "PutCell",
				&sidecarpb.PutCellRequest{Cell: &sidecarpb.Cell{Id: id, PlatformCount: 7}})
			check("PutCell", err)
			_, err = call[sidecarpb.GetCellsRequest, sidecarpb.GetCellsResponse](ctx, c, "GetCells", &sidecarpb.GetCellsRequest{})
			check("GetCells", err)
			track := &sidecarpb.Track{Id: id, AltitudeM: proto.Float64(0), Confidence: 0.125}
			_, err = call[sidecarpb.PutTrackRequest, sidecarpb.PutTrackResponse](ctx, c, "PutTrack", &sidecarpb.PutTrackRequest{Track: track})
			check("PutTrack", err)
			tracks, err := call[sidecarpb.GetTracksRequest, sidecarpb.GetTracksResponse](ctx, c, "GetTracks", &sidecarpb.GetTracksRequest{})
			check("GetTracks", err)
			for _, held := range tracks.GetTracks() {
				if held.GetId() == id && !proto.Equal(held, track) {
					t.Errorf("put %v, got %v", track, held)
				}
			}
			_, err = call[sidecarpb.PutCommandRequest, sidecarpb.PutCommandResponse](ctx, c, "PutCommand",
				&sidecarpb.PutCommandRequest{Command: &sidecarpb.Command{Id: id, TargetId: "nobody", CommandType: "replay", PayloadJson: "{}"}})
			check("PutCommand", err)
			commands, err := call[sidecarpb.GetCommandsRequest, sidecarpb.GetCommandsResponse](ctx, c, "GetCommands",
				&sidecarpb.GetCommandsRequest{Id: id})
			check("GetCommands", err)
			if len(commands.GetCommands()) != 1 || len(commands.GetCommands()[0].GetSignature()) != 64 {
				t.Errorf("GetCommands: %v", commands)
			}
			_, err = call[sidecarpb.CancelCommandRequest, sidecarpb.CancelCommandResponse](ctx, c, "CancelCommand", &sidecarpb.CancelCommandRequest{Id: id})
			check("CancelCommand", err)

			_, err = call[sidecarpb.ConnectPeerRequest, sidecarpb.ConnectPeerResponse](ctx, c, "ConnectPeer",
				&sidecarpb.ConnectPeerRequest{EndpointId: peer, Addresses: []string{"127.0.0.1:9"}})
			check("ConnectPeer", err)
			peers, err := call[sidecarpb.ListPeersRequest, sidecarpb.ListPeersResponse](ctx, c, "ListPeers", &sidecarpb.ListPeersRequest{})
			check("ListPeers", err)
			if !strings.Contains(peers.String(), peer) {
				t.Errorf("ListPeers: %v", peers)
			}
			_, err = call[sidecarpb.DisconnectPeerRequest, sidecarpb.DisconnectPeerResponse](ctx, c, "DisconnectPeer", &sidecarpb.DisconnectPeerRequest{EndpointId: peer})
			check("DisconnectPeer", err)
			_, err = call[sidecarpb.StopSyncRequest, sidecarpb.StopSyncResponse](ctx, c, "StopSync", &sidecarpb.StopSyncRequest{})
			check("StopSync", err)
			stats, err := call[sidecarpb.GetSyncStatsRequest, sidecarpb.GetSyncStatsResponse](ctx, c, "GetSyncStats", &sidecarpb.GetSyncStatsRequest{})
			check("GetSyncStats", err)
			if stats.GetSyncActive() {
				t.Error("GetSyncStats: active after StopSync")
			}
			_, err = call[sidecarpb.StartSyncRequest, sidecarpb.StartSyncResponse](ctx, c, "StartSync", &sidecarpb.StartSyncRequest{})
			check("StartSync", err)
			health, err := call[sidecarpb.GetHealthRequest, sidecarpb.GetHealthResponse](ctx, c, "GetHealth", &sidecarpb.GetHealthRequest{})
			check("GetHealth", err)
			if health.GetSequence() == 0 {
				t.Errorf("GetHealth: %v", health)
			}
			_, err = call[sidecarpb.ListAgentsRequest, sidecarpb.ListAgentsResponse](ctx, c, "ListAgents", &sidecarpb.ListAgentsRequest{})
			check("ListAgents", err)
			_, err = call[sidecarpb.DeleteDocumentRequest, sidecarpb.DeleteDocumentResponse](ctx, c, "DeleteDocument",
				&sidecarpb.DeleteDocumentRequest{Collection: "notes", DocId: id})
			check("DeleteDocument", err)

			watch, err := follow[sidecarpb.WatchAgentsRequest, sidecarpb.AgentChange](c, "WatchAgents", &sidecarpb.WatchAgentsRequest{})
			if check("WatchAgents", err); err == nil {
				err = until(watch.next, func(change *sidecarpb.AgentChange) bool {
					return change.GetChangeType() == sidecarpb.ChangeType_CHANGE_TYPE_SNAPSHOT_END
				})
				check("WatchAgents", err)
				watch.end()
			}
			called["Subscribe"] = true // below
			methods := sidecarpb.File_peat_sidecar_v1_sidecar_proto.Services().Get(0).Methods()
			for number := range methods.Len() {
				if name := string(methods.Get(number).Name()); !called[name] {
					t.Errorf("%s was not called", name)
				}
			}
		})
	}
}

// until takes messages until one fits.
func until[S any](next func() (*S, error), fits func(*S) bool) error {
	for {
		message, err := next()
		if err != nil || fits(message) {
			return err
		}
	}
}

func TestErrorsHaveTheirCodes(t *testing.T) {
	for _, c := range everyCaller(t) {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := call[sidecarpb.CancelCommandRequest, sidecarpb.CancelCommandResponse](ctx, c, "CancelCommand", &sidecarpb.CancelCommandRequest{Id: "no such"})
			if code(err) != codes.NotFound || !strings.Contains(err.Error(), "no such") {
				t.Errorf("CancelCommand: %v", err)
			}
			_, err = call[sidecarpb.GetStatusRequest, sidecarpb.GetStatusResponse](ctx, c, "NoSuchMethod", &sidecarpb.GetStatusRequest{})
			if code(err) != codes.Unimplemented {
				t.Errorf("NoSuchMethod: %v", err)
			}
			_, err = call[sidecarpb.PutDocumentRequest, sidecarpb.PutDocumentResponse](ctx, c, "PutDocument",
				&sidecarpb.PutDocumentRequest{Collection: "notes", DocId: "large", JsonData: `{"a":"` + strings.Repeat("x", 1<<20) + `"}`})
			if code(err) != codes.ResourceExhausted {
				t.Errorf("a document over the limit: %v", err)
			}
			short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			_, err = call[sidecarpb.PutDocumentRequest, sidecarpb.PutDocumentResponse](short, c, "PutDocument",
				&sidecarpb.PutDocumentRequest{Collection: "notes", DocId: "waits", JsonData: "{}", WaitPeers: 9})
			if code(err) != codes.DeadlineExceeded {
				t.Errorf("a deadline: %v", err)
			}
		})
	}
}

func TestASubscriptionIsCutAndResumed(t *testing.T) {
	for index, c := range everyCaller(t) {
		t.Run(c.name, func(t *testing.T) {
			collection := fmt.Sprintf("cut%d", index)
			put := func(id string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := call[sidecarpb.PutDocumentRequest, sidecarpb.PutDocumentResponse](ctx, c, "PutDocument",
					&sidecarpb.PutDocumentRequest{Collection: collection, DocId: id, JsonData: `{"id":"` + id + `"}`})
				if err != nil {
					t.Fatal(err)
				}
			}
			subscribe := func(request *sidecarpb.SubscribeRequest) *stream[sidecarpb.DocumentChange] {
				t.Helper()
				request.Collections = []string{collection}
				changes, err := follow[sidecarpb.SubscribeRequest, sidecarpb.DocumentChange](c, "Subscribe", request)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(changes.end)
				return changes
			}
			expect := func(changes *stream[sidecarpb.DocumentChange], id string) *sidecarpb.DocumentChange {
				t.Helper()
				change, err := changes.next()
				if err != nil || change.GetDocId() != id {
					t.Fatalf("expected %q: %v, %v", id, change, err)
				}
				return change
			}
			put("a")
			changes := subscribe(&sidecarpb.SubscribeRequest{Snapshot: true})
			expect(changes, "a")
			if end := expect(changes, ""); end.GetChangeType() != sidecarpb.ChangeType_CHANGE_TYPE_SNAPSHOT_END {
				t.Fatalf("the end of the snapshot: %v", end)
			}
			put("b")
			last := expect(changes, "b")
			changes.end()
			for {
				if _, err := changes.next(); err != nil {
					break
				}
			}
			put("c")
			put("d")
			resumed := subscribe(&sidecarpb.SubscribeRequest{ResumeAfter: last.GetSequence(), ResumeRun: last.GetRun()})
			expect(resumed, "c")
			if change := expect(resumed, "d"); change.GetJsonData() != `{"id":"d"}` {
				t.Fatalf("%v", change)
			}
			stale := subscribe(&sidecarpb.SubscribeRequest{ResumeAfter: 1 << 60, ResumeRun: last.GetRun()})
			if _, err := stale.next(); code(err) != codes.OutOfRange || err == io.EOF {
				t.Fatalf("a token of nowhere: %v", err)
			}
		})
	}
}
