package clients

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	"peat.internal/peat-node.git/ipc/go/gen/sidecarpb"
)

// A path is no authority, and grpc-go sends it in Huffman's code.
func TestAPathWillDoForATarget(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialUnix(ctx, "", "") })
	for _, target := range []string{"passthrough:///" + socket, "passthrough:" + socket, "passthrough:///unix:" + socket, socket} {
		t.Run(target[:12], func(t *testing.T) {
			//lint:ignore SA1019 programs still use it, and it takes a bare path
			conn, err := grpc.DialContext(ctx, target, grpc.WithTransportCredentials(insecure.NewCredentials()), dialer)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c := caller{name: target, conn: conn, duplex: true}
			// More than once: the second time the name is in the table of header compression.
			for range 3 {
				status, err := call[sidecarpb.GetStatusRequest, sidecarpb.GetStatusResponse](ctx, c, "GetStatus", &sidecarpb.GetStatusRequest{})
				if err != nil || status.GetNodeId() != "n1" {
					t.Fatalf("%v, %v", status, err)
				}
			}
		})
	}
}

// standStill stops the node, and returns once each of its threads has stopped: until one of them has taken the signal, the others go on.
func standStill(t *testing.T) {
	t.Helper()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("%v, stopped: %v", err, status.Stopped())
	}
}

// Calls that are given up while the node stands still cost the agent on the same channel nothing.
func TestCallsThatRunOutOfTimeLeaveTheAgentOnTheChannel(t *testing.T) {
	for _, unix := range []bool{true, false} {
		c := caller{name: "grpc-go", conn: grpcConn(t, unix), duplex: true}
		a := register(t, c, "standing")
		for round := range 3 {
			standStill(t)
			var calls sync.WaitGroup
			for range 400 {
				calls.Add(1)
				go func() {
					defer calls.Done()
					ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
					defer cancel()
					_, err := call[sidecarpb.GetStatusRequest, sidecarpb.GetStatusResponse](ctx, c, "GetStatus", &sidecarpb.GetStatusRequest{})
					if code(err) != codes.DeadlineExceeded {
						t.Errorf("a node that stands still answers: %v", err)
					}
				}()
			}
			calls.Wait()
			if err := process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			number := uint64(round + 1)
			a.say(&agentpb.AgentMessage{Body: &agentpb.AgentMessage_Heartbeat{Heartbeat: &agentpb.Heartbeat{Number: number}}})
			a.hear(func(m *agentpb.NodeMessage) bool { return m.GetHeartbeatAck().GetNumber() == number })
		}
		a.end()
	}
}
