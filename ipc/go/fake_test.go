package peat

import (
	"bufio"
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
	"peat.internal/peat-node.git/ipc/go/internal/ipcpb"
)

// patience is how long a test waits for what must happen; only a failing one waits it out.
const patience = 30 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// fakeNode listens on a unix socket and leaves every answer to the test.
type fakeNode struct {
	t        *testing.T
	path     string
	listener net.Listener
	conns    chan *fakeConn
}

// fakeConn is a client's connection, seen from the node.
type fakeConn struct {
	t      *testing.T
	socket net.Conn
	frames chan *ipcpb.Frame // closed when the client has gone
	mu     sync.Mutex
}

func newFakeNode(t *testing.T) *fakeNode {
	node := &fakeNode{t: t, path: filepath.Join(t.TempDir(), "socket"), conns: make(chan *fakeConn, 64)}
	node.listen()
	t.Cleanup(func() { node.listener.Close() })
	return node
}

func (n *fakeNode) address() string { return "unix://" + n.path }

func (n *fakeNode) listen() {
	listener, err := net.Listen("unix", n.path)
	if err != nil {
		n.t.Fatal(err)
	}
	n.listener = listener
	go func() {
		for {
			socket, err := listener.Accept()
			if err != nil {
				return
			}
			conn := &fakeConn{t: n.t, socket: socket, frames: make(chan *ipcpb.Frame, 1024)}
			go conn.read()
			n.conns <- conn
		}
	}()
}

// next is the next connection a client makes.
func (n *fakeNode) next() *fakeConn {
	n.t.Helper()
	select {
	case conn := <-n.conns:
		n.t.Cleanup(func() { conn.socket.Close() })
		return conn
	case <-time.After(patience):
		n.t.Fatal("no client connects")
		return nil
	}
}

func (c *fakeConn) read() {
	defer close(c.frames)
	reader := bufio.NewReader(c.socket)
	begin := make([]byte, len(preface))
	if _, err := io.ReadFull(reader, begin); err != nil || string(begin) != preface {
		return
	}
	for {
		frame := new(ipcpb.Frame)
		if protodelim.UnmarshalFrom(reader, frame) != nil {
			return
		}
		c.frames <- frame
	}
}

// frame is the next frame the client sends.
func (c *fakeConn) frame() *ipcpb.Frame {
	c.t.Helper()
	select {
	case frame, ok := <-c.frames:
		if !ok {
			c.t.Fatal("the client has gone")
		}
		return frame
	case <-time.After(patience):
		c.t.Fatal("the client sends nothing")
		return nil
	}
}

// request is the next request, which must be for this method.
func (c *fakeConn) request(method methodNumber) (uint64, *ipcpb.Request) {
	c.t.Helper()
	frame := c.frame()
	request := frame.GetRequest()
	if request == nil || methodNumber(request.Method) != method {
		c.t.Fatalf("not a request for %v: %v", method, frame)
	}
	return frame.Call, request
}

func (c *fakeConn) send(frame *ipcpb.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A client that has gone is what the test is about, or what makes it fail later.
	_, _ = protodelim.MarshalTo(c.socket, frame)
}

func (c *fakeConn) respond(call uint64, message proto.Message) {
	bytes, _ := proto.Marshal(message)
	c.send(&ipcpb.Frame{Call: call, Body: &ipcpb.Frame_Response{Response: bytes}})
}

func (c *fakeConn) item(call uint64, message proto.Message) {
	bytes, _ := proto.Marshal(message)
	c.send(&ipcpb.Frame{Call: call, Body: &ipcpb.Frame_Item{Item: bytes}})
}

func (c *fakeConn) fail(call uint64, code Code, message string) {
	c.send(&ipcpb.Frame{Call: call, Body: &ipcpb.Frame_Error{Error: &ipcpb.Error{Code: uint32(code), Message: message}}})
}

// fakeLink is an agent's stream, seen from the node.
type fakeLink struct {
	*fakeConn
	call     uint64
	register *agentpb.Register
}

// link waits for an agent's next registration and answers it.
func (n *fakeNode) link() *fakeLink {
	n.t.Helper()
	link := n.unansweredLink()
	link.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_Registered{
		Registered: &agentpb.Registered{HeartbeatIntervalMs: 60_000, NodeId: "fake"}}})
	return link
}

func (n *fakeNode) unansweredLink() *fakeLink {
	n.t.Helper()
	conn := n.next()
	call, request := conn.request(methodConnect)
	message := new(agentpb.AgentMessage)
	if err := proto.Unmarshal(request.Payload, message); err != nil || message.GetRegister() == nil {
		n.t.Fatalf("not a registration: %v %v", message, err)
	}
	return &fakeLink{conn, call, message.GetRegister()}
}

func (l *fakeLink) say(message *agentpb.NodeMessage) { l.item(l.call, message) }

// hear returns the agent's next message and skips credit.
func (l *fakeLink) hear() *agentpb.AgentMessage {
	l.t.Helper()
	for {
		frame := l.frame()
		if upload, ok := frame.Body.(*ipcpb.Frame_Upload); ok {
			message := new(agentpb.AgentMessage)
			if err := proto.Unmarshal(upload.Upload, message); err != nil {
				l.t.Fatal(err)
			}
			return message
		}
	}
}

// update is the agent's next word on a command, which must be this.
func (l *fakeLink) update(id string, stage agentpb.CommandUpdate_Stage) *agentpb.CommandUpdate {
	l.t.Helper()
	message := l.hear()
	update := message.GetCommandUpdate()
	if update == nil || update.CommandId != id || update.Stage != stage {
		l.t.Fatalf("not %v of %s: %v", stage, id, message)
	}
	return update
}

func (l *fakeLink) ack(id string, stage agentpb.CommandUpdate_Stage, refused string) {
	ack := &agentpb.UpdateAck{CommandId: id, Stage: stage, Refused: refused}
	l.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_UpdateAck{UpdateAck: ack}})
}

// notHere is what a node says that does not hold the command.
func (l *fakeLink) notHere(id string, stage agentpb.CommandUpdate_Stage) {
	ack := &agentpb.UpdateAck{CommandId: id, Stage: stage, Refused: "there is no command here", NotHere: true}
	l.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_UpdateAck{UpdateAck: ack}})
}

// accepted waits until the agent accepts a command, and confirms it.
func (l *fakeLink) accepted(id string) {
	l.t.Helper()
	l.update(id, agentpb.CommandUpdate_STAGE_ACCEPTED)
	l.ack(id, agentpb.CommandUpdate_STAGE_ACCEPTED, "")
}

// completed waits until the agent has completed a command, and confirms it.
func (l *fakeLink) completed(id string) *agentpb.CommandUpdate {
	l.t.Helper()
	update := l.update(id, agentpb.CommandUpdate_STAGE_COMPLETED)
	l.ack(id, agentpb.CommandUpdate_STAGE_COMPLETED, "")
	return update
}

func (l *fakeLink) push(id, payload string) {
	command := &CommandRecord{Id: id, TargetId: "a1", CommandType: "work", PayloadJson: payload}
	l.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_CommandPush{CommandPush: &agentpb.CommandPush{Command: command}}})
}

func (l *fakeLink) cancelPush(id string) {
	push := &agentpb.CancelPush{CommandId: id}
	l.say(&agentpb.NodeMessage{Body: &agentpb.NodeMessage_CancelPush{CancelPush: push}})
}

func (c *fakeConn) drop() { c.socket.Close() }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// receive is what comes next over a channel.
func receive[T any](t *testing.T, channel <-chan T) T {
	t.Helper()
	select {
	case value := <-channel:
		return value
	case <-time.After(patience):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
