package clients

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A node of the tests: PEAT_NODE_BINARY in a process of its own, on a unix socket and on loopback.
var (
	socket  string
	address string
	process *os.Process
)

func TestMain(m *testing.M) {
	status, err := withNode(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func withNode(run func() int) (int, error) {
	home, err := os.MkdirTemp("", "peat-clients")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(home)
	started, err := startNode(home, "--listen", "tcp://127.0.0.1:0", "--node-id", "n1", "--insecure-api", "true")
	if err != nil {
		return 1, err
	}
	defer started.stop()
	socket, address, process = started.socket, started.address, started.process.Process
	return run(), nil
}

// node is one in a process of its own.
type node struct {
	process     *exec.Cmd
	socket, log string
	// Of its listener on TCP, if it has one.
	address string
}

// startNode starts a node on a unix socket and waits until it is ready.
func startNode(home string, flags ...string) (*node, error) {
	n := &node{socket: filepath.Join(home, "socket"), log: filepath.Join(home, "log")}
	n.process = exec.Command(os.Getenv("PEAT_NODE_BINARY"), append([]string{"run", "--data-dir", filepath.Join(home, "data"),
		"--listen", "unix://" + n.socket, "--bind", "127.0.0.1:0"}, flags...)...)
	n.process.Env = []string{"PATH=" + os.Getenv("PATH")}
	file, err := os.Create(n.log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	n.process.Stderr = file
	if err := n.process.Start(); err != nil {
		return nil, err
	}
	said := regexp.MustCompile(`tcp://(127\.0\.0\.1:\d+)`)
	var text []byte
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		text, _ = os.ReadFile(n.log)
		if _, err := os.Stat(n.socket); err == nil && bytes.Contains(text, []byte("ready")) {
			if found := said.FindSubmatch(text); found != nil {
				n.address = string(found[1])
			}
			return n, nil
		}
	}
	n.stop()
	return nil, fmt.Errorf("the node is not ready: %s", text)
}

func (n *node) stop() {
	_ = n.process.Process.Signal(os.Interrupt)
	_ = n.process.Wait()
}

// command is one to this node.
func (n *node) command(name string, arguments ...string) *exec.Cmd {
	command := exec.Command(os.Getenv("PEAT_NODE_BINARY"), append([]string{name, "--node", "unix://" + n.socket}, arguments...)...)
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	return command
}

// dial counts as a connection that can be cut.
func dialUnix(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", socket)
}

func transport(two, unix bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!two)
	protocols.SetUnencryptedHTTP2(two)
	transport := &http.Transport{Protocols: protocols}
	if unix {
		transport.DialContext = dialUnix
	}
	return &http.Client{Transport: transport}
}

func grpcConn(t *testing.T, unix bool) *grpc.ClientConn {
	target := "passthrough:///" + address
	if unix {
		target = "unix://" + socket
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// everyCaller is every library over every transport.
func everyCaller(t *testing.T) []caller {
	url := "http://" + address
	one, two := transport(false, false), transport(true, false)
	json, web, gzip := connect.WithProtoJSON(), connect.WithGRPCWeb(), connect.WithSendGzip()
	with := func(options ...connect.ClientOption) []connect.ClientOption { return options }
	return []caller{
		{name: "connect, HTTP/1.1, JSON", http: one, url: url, options: with(json)},
		{name: "connect, HTTP/1.1, protobuf", http: one, url: url},
		{name: "connect, h2c, JSON", http: two, url: url, options: with(json), duplex: true},
		{name: "connect, h2c, protobuf, gzip", http: two, url: url, options: with(gzip), duplex: true},
		{name: "connect, unix, HTTP/1.1", http: transport(false, true), url: "http://node"},
		{name: "connect, unix, h2c", http: transport(true, true), url: "http://node", duplex: true},
		{name: "gRPC of connect, h2c", http: two, url: url, options: with(connect.WithGRPC()), duplex: true},
		{name: "gRPC-Web, HTTP/1.1", http: one, url: url, options: with(web)},
		{name: "gRPC-Web, h2c", http: two, url: url, options: with(web)},
		{name: "grpc-go, tcp", conn: grpcConn(t, false), duplex: true},
		{name: "grpc-go, unix", conn: grpcConn(t, true), duplex: true},
	}
}
