package peat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
	"peat.internal/peat-node.git/ipc/go/internal/ipcpb"
)

func connected(t *testing.T) (*Client, *fakeConn) {
	t.Helper()
	node := newFakeNode(t)
	client, err := Connect(testContext(t), node.address())
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client, node.next()
}

func TestTargetsAreUnixPathsAndTCPAddresses(t *testing.T) {
	for text, valid := range map[string]bool{
		"unix:///run/peat.sock": true, "tcp://127.0.0.1:4243": true, "tcp://[::1]:1": true,
		"http://node:50051": true, "http://node:50051/": true, "http://node": false, "https://node:1": false, "http://h:1/x": false,
		"unix://relative": false, "unix:///": false, "tcp://host": false, "tcp://:1": false, "tcp://h:x": false,
		"h:1": false, "": false,
	} {
		if _, err := parseTarget(text); (err == nil) != valid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestConnectFailsWhereNobodyListens(t *testing.T) {
	_, err := Connect(testContext(t), "unix://"+filepath.Join(t.TempDir(), "nothing"))
	if !errors.Is(err, Unavailable) || !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestAnswersComeInAnyOrder(t *testing.T) {
	client, node := connected(t)
	ctx := testContext(t)
	answers := make(chan string, 2)
	get := func(id string) {
		document, err := client.Get(ctx, "notes", id)
		if err != nil {
			answers <- err.Error()
			return
		}
		answers <- id + string(document.JSON)
	}
	go get("a")
	first, _ := node.request(methodGetDocument)
	go get("b")
	second, _ := node.request(methodGetDocument)
	text := `{"n":2}`
	node.respond(second, &pb.GetDocumentResponse{JsonData: &text})
	if got := receive(t, answers); got != `b{"n":2}` {
		t.Fatal(got)
	}
	text = `{"n":1}`
	node.respond(first, &pb.GetDocumentResponse{JsonData: &text})
	if got := receive(t, answers); got != `a{"n":1}` {
		t.Fatal(got)
	}
}

func TestErrorsCarryTheirCode(t *testing.T) {
	client, node := connected(t)
	go func() {
		call, _ := node.request(methodPutDocument)
		node.fail(call, Aborted, "the base is not current")
	}()
	_, err := client.Put(testContext(t), "tracks", "t1", map[string]int{"n": 1}, WithBase(Version("old")))
	var e *Error
	if !errors.Is(err, Aborted) || errors.Is(err, NotFound) || !errors.As(err, &e) || e.Method != "PutDocument" {
		t.Fatal(err)
	}
	if want := "PutDocument: ABORTED: the base is not current"; err.Error() != want {
		t.Fatalf("%q", err)
	}
	if CodeOf(fmt.Errorf("wrapped: %w", err)) != Aborted || CodeOf(nil) != 0 || CodeOf(context.Canceled) != Canceled {
		t.Fatal("codes")
	}
}

func TestADocumentThatDoesNotExistIsNotFound(t *testing.T) {
	client, node := connected(t)
	go func() {
		call, _ := node.request(methodGetDocument)
		node.respond(call, &pb.GetDocumentResponse{})
	}()
	if _, err := client.Get(testContext(t), "notes", "n"); !errors.Is(err, NotFound) {
		t.Fatal(err)
	}
}

func TestACancelledContextCancelsTheCallAtTheNode(t *testing.T) {
	client, node := connected(t)
	ctx, cancel := context.WithCancel(testContext(t))
	failed := make(chan error, 1)
	go func() {
		_, err := client.Status(ctx)
		failed <- err
	}()
	call, _ := node.request(methodGetStatus)
	cancel()
	if err := receive(t, failed); !errors.Is(err, context.Canceled) || !errors.Is(err, Canceled) {
		t.Fatal(err)
	}
	if frame := node.frame(); frame.Call != call || frame.GetCancel() == nil {
		t.Fatal(frame)
	}
	// An answer that was on its way has no effect.
	node.respond(call, &pb.GetStatusResponse{})
	go func() {
		call, _ := node.request(methodGetStatus)
		node.respond(call, &pb.GetStatusResponse{NodeId: "n1"})
	}()
	status, err := client.Status(testContext(t))
	must(t, err)
	if status.NodeId != "n1" {
		t.Fatal(status)
	}
}

func TestADeadlineTravelsWithTheCall(t *testing.T) {
	client, node := connected(t)
	ctx, cancel := context.WithTimeout(testContext(t), 10*time.Second)
	defer cancel()
	go client.Status(ctx)
	_, request := node.request(methodGetStatus)
	if request.DeadlineMs < 9_000 || request.DeadlineMs >= 10_000 {
		t.Fatal(request.DeadlineMs)
	}
	go client.Status(context.Background())
	if _, request := node.request(methodGetStatus); request.DeadlineMs != 0 {
		t.Fatal(request.DeadlineMs)
	}
}

func TestADeadlineThatPassesIsBothErrors(t *testing.T) {
	client, _ := connected(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := client.Status(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestALostConnectionFailsItsCallsAndTheNextDialsAgain(t *testing.T) {
	node := newFakeNode(t)
	client, err := Connect(testContext(t), node.address())
	must(t, err)
	defer client.Close()
	first := node.next()
	failed := make(chan error, 1)
	go func() {
		_, err := client.Status(testContext(t))
		failed <- err
	}()
	first.request(methodGetStatus)
	first.drop()
	if err := receive(t, failed); !errors.Is(err, ErrConnectionLost) || !errors.Is(err, Unavailable) {
		t.Fatal(err)
	}
	go func() {
		second := node.next()
		call, _ := second.request(methodGetStatus)
		second.respond(call, &pb.GetStatusResponse{NodeId: "again"})
	}()
	status, err := client.Status(testContext(t))
	must(t, err)
	if status.NodeId != "again" {
		t.Fatal(status)
	}
}

func TestARequestTheSocketDidNotTakeIsKnownAsNotSent(t *testing.T) {
	ours, theirs := net.Pipe()
	conn := newConn(ours, "")
	// The pipe takes only what is read: the preface, and then nothing of the request.
	must(t, func() error { _, err := theirs.Read(make([]byte, len(preface))); return err }())
	failed := make(chan error, 1)
	go func() {
		failed <- conn.unary(testContext(t), methodGetStatus, &pb.GetStatusRequest{}, &pb.GetStatusResponse{})
	}()
	theirs.Close()
	if err := receive(t, failed); !errors.Is(err, errNotSent) {
		t.Fatal(err)
	}
}

func TestTheNodesLastWordsAreTheError(t *testing.T) {
	client, node := connected(t)
	go func() {
		node.request(methodGetStatus)
		node.fail(0, Unavailable, "shutting down")
		node.drop()
	}()
	_, err := client.Status(testContext(t))
	if !errors.Is(err, ErrConnectionLost) || !errors.Is(err, Unavailable) {
		t.Fatal(err)
	}
	if want := "GetStatus: UNAVAILABLE: the node closed the connection: UNAVAILABLE: shutting down"; err.Error() != want {
		t.Fatal(err)
	}
}

func TestWhatIsNoFrameEndsTheConnection(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"too long":  {0xff, 0xff, 0xff, 0xff, 0x0f},
		"malformed": {0x02, 0xff, 0xff},
		"empty":     {0x00},
		"call 0":    {0x02, 0x1a, 0x00},
		"no body":   {0x02, 0x08, 0x01},
	} {
		t.Run(name, func(t *testing.T) {
			client, node := connected(t)
			go func() {
				node.request(methodGetStatus)
				node.socket.Write(bytes)
			}()
			if _, err := client.Status(testContext(t)); !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
		})
	}
}

func TestARequestOverTheLimitIsRefusedHere(t *testing.T) {
	client, _ := connected(t)
	_, err := client.Put(testContext(t), "notes", "n", string(make([]byte, frameBytes)))
	if !errors.Is(err, ResourceExhausted) {
		t.Fatal(err)
	}
}

func TestAClosedClientSaysSo(t *testing.T) {
	client, _ := connected(t)
	must(t, client.Close())
	if _, err := client.Status(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestNoMoreCallsAreUnfinishedThanTheNodeTakes(t *testing.T) {
	client, node := connected(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	for range connectionCalls + 10 {
		go client.Status(ctx)
	}
	calls := make([]uint64, 0, connectionCalls)
	for range connectionCalls {
		call, _ := node.request(methodGetStatus)
		calls = append(calls, call)
	}
	select {
	case frame := <-node.frames:
		t.Fatalf("one call too many: %v", frame)
	case <-time.After(50 * time.Millisecond):
	}
	node.respond(calls[0], &pb.GetStatusResponse{})
	node.request(methodGetStatus)
}

func TestAStreamStaysWithinItsCreditAndGrantsWhatWasTaken(t *testing.T) {
	client, node := connected(t)
	received := make(chan int, 1)
	const items = 10 * window
	go func() {
		count := 0
		for _, err := range client.Subscribe(testContext(t)) {
			if err != nil {
				break
			}
			if count++; count == items {
				break
			}
		}
		received <- count
	}()
	call, request := node.request(methodSubscribe)
	credit, sent := int(request.Credit), 0
	for sent < items {
		for ; credit > 0 && sent < items; credit-- {
			sent++
			node.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_UPSERT, Sequence: uint64(sent)})
		}
		if sent < items {
			credit += int(node.frame().GetCredit())
		}
	}
	if count := receive(t, received); count != items {
		t.Fatal(count)
	}
	for frame := node.frame(); frame.GetCancel() == nil; frame = node.frame() {
	}
}

func TestANodeThatSendsMoreThanWasGrantedLosesTheConnection(t *testing.T) {
	client, node := connected(t)
	ctx := testContext(t)
	conn, err := client.connection(ctx)
	must(t, err)
	_, err = conn.stream(ctx, methodSubscribe, &pb.SubscribeRequest{})
	must(t, err)
	call, request := node.request(methodSubscribe)
	for range request.Credit + 2 {
		node.item(call, &pb.DocumentChange{})
	}
	receive(t, conn.ended)
	if !errors.Is(conn.err, ErrProtocol) {
		t.Fatal(conn.err)
	}
}

func TestASubscriptionResumesWhereItWas(t *testing.T) {
	node := newFakeNode(t)
	client, err := Connect(testContext(t), node.address())
	must(t, err)
	defer client.Close()
	changes := follow(testContext(t), client, WithCollections("notes"), WithSnapshot())
	first := node.next()
	call, request := first.request(methodSubscribe)
	if asked := subscribeRequest(t, request); !asked.Snapshot || len(asked.Collections) != 1 {
		t.Fatal(asked)
	}
	run := []byte("run")
	first.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_SNAPSHOT_END, Sequence: 7, Run: run})
	first.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_UPSERT, DocId: "a", Sequence: 8, Run: run})
	expect(t, changes, ChangeSnapshotEnd, "")
	expect(t, changes, ChangeUpsert, "a")
	first.drop()
	second := node.next()
	call, request = second.request(methodSubscribe)
	if asked := subscribeRequest(t, request); asked.Snapshot || asked.ResumeAfter != 8 || string(asked.ResumeRun) != "run" {
		t.Fatal(asked)
	}
	second.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_DELETE, DocId: "a", Sequence: 9, Run: run})
	expect(t, changes, ChangeDelete, "a")
}

func TestAStaleTokenIsFollowedByAResetAndASnapshot(t *testing.T) {
	client, node := connected(t)
	changes := follow(testContext(t), client, WithResumeAfter(Token{Run: []byte("gone"), Sequence: 3}))
	call, _ := node.request(methodSubscribe)
	node.fail(call, OutOfRange, "no longer known")
	expect(t, changes, ChangeReset, "")
	call, request := node.request(methodSubscribe)
	if asked := subscribeRequest(t, request); !asked.Snapshot || asked.ResumeAfter != 0 {
		t.Fatal(asked)
	}
	node.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_UPSERT, DocId: "a"})
	expect(t, changes, ChangeUpsert, "a")
}

func TestOptionsOfASubscriptionReachTheNode(t *testing.T) {
	client, node := connected(t)
	follow(testContext(t), client, WithCollections("notes"), WithExclude("agents"), WithMaxChangeBytes(1000))
	_, request := node.request(methodSubscribe)
	asked := subscribeRequest(t, request)
	if asked.Collections[0] != "notes" || asked.Exclude[0] != "agents" || asked.MaxChangeBytes != 1000 || asked.Snapshot {
		t.Fatal(asked)
	}
}

func TestASnapshotThatBreaksOffBeginsAnew(t *testing.T) {
	node := newFakeNode(t)
	client, err := Connect(testContext(t), node.address())
	must(t, err)
	defer client.Close()
	changes := follow(testContext(t), client, WithSnapshot())
	first := node.next()
	call, _ := first.request(methodSubscribe)
	first.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_UPSERT, DocId: "a", Sequence: 1})
	expect(t, changes, ChangeUpsert, "a")
	first.drop()
	expect(t, changes, ChangeReset, "")
	if _, request := node.next().request(methodSubscribe); !subscribeRequest(t, request).Snapshot {
		t.Fatal("no snapshot")
	}
}

func TestASubscriptionEndsWithItsContextAndWithARefusal(t *testing.T) {
	client, node := connected(t)
	ctx, cancel := context.WithCancel(testContext(t))
	changes := follow(ctx, client)
	node.request(methodSubscribe)
	cancel()
	if last := receive(t, changes); !errors.Is(last.err, context.Canceled) {
		t.Fatal(last.err)
	}
	for frame := node.frame(); frame.GetCancel() == nil; frame = node.frame() {
	}
	changes = follow(testContext(t), client)
	call, _ := node.request(methodSubscribe)
	node.fail(call, InvalidArgument, "no")
	if last := receive(t, changes); !errors.Is(last.err, InvalidArgument) {
		t.Fatal(last.err)
	}
}

type followed struct {
	change *Change
	err    error
}

func follow(ctx context.Context, client *Client, options ...SubscribeOption) <-chan followed {
	changes := make(chan followed, 16)
	go func() {
		defer close(changes)
		for change, err := range client.Subscribe(ctx, options...) {
			changes <- followed{change, err}
		}
	}()
	return changes
}

func expect(t *testing.T, changes <-chan followed, kind ChangeType, id string) {
	t.Helper()
	next := receive(t, changes)
	must(t, next.err)
	if next.change.Type != kind || next.change.ID != id {
		t.Fatalf("not %v %s: %+v", kind, id, next.change)
	}
}

func subscribeRequest(t *testing.T, frame *ipcpb.Request) *pb.SubscribeRequest {
	t.Helper()
	request := new(pb.SubscribeRequest)
	must(t, proto.Unmarshal(frame.Payload, request))
	return request
}

func TestFleetQueriesShowWhatTheDocumentsHaveWhateverTheirShape(t *testing.T) {
	client, node := connected(t)
	go func() {
		call, _ := node.request(methodSubscribe)
		for id, text := range map[string]string{
			"b1":    `{"agent_id":"b1","platform_type":"uds-remote-agent","version":"1.2","labels":{"site":"north"},"name":7}`,
			"a1":    `{"name":"first"}`,
			"wrong": `[]`,
		} {
			node.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_UPSERT, Collection: "platforms", DocId: id,
				JsonData: &text})
		}
		node.item(call, &pb.DocumentChange{ChangeType: pb.ChangeType_CHANGE_TYPE_SNAPSHOT_END})
		for {
			frame := node.frame()
			if frame.GetRequest() != nil {
				node.respond(frame.Call, &pb.GetPlatformsResponse{Platforms: []*pb.Platform{
					{Id: "a1", Liveness: pb.Liveness_LIVENESS_LIVE, Via: "n2", AgeMs: 1500}}})
				return
			}
		}
	}()
	platforms, err := client.FleetPlatforms(testContext(t))
	must(t, err)
	if len(platforms) != 3 || platforms[0].ID != "a1" || platforms[1].ID != "b1" {
		t.Fatal(platforms)
	}
	if a := platforms[0]; a.Name != "first" || a.AgentID != "a1" || a.Liveness != LivenessLive || a.Via != "n2" || a.Age != 1500*time.Millisecond {
		t.Fatal(a)
	}
	if b := platforms[1]; b.Version != "1.2" || b.Labels["site"] != "north" || b.Name != "7" || b.Liveness != 0 {
		t.Fatal(b)
	}
}
