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
	socket = filepath.Join(home, "socket")
	node := exec.Command(os.Getenv("PEAT_NODE_BINARY"), "run", "--data-dir", filepath.Join(home, "data"),
		"--listen", "unix://"+socket, "--listen", "tcp://127.0.0.1:0", "--bind", "127.0.0.1:0", "--node-id", "n1",
		"--insecure-api", "true")
	node.Env = []string{"PATH=" + os.Getenv("PATH")}
	log := filepath.Join(home, "log")
	file, err := os.Create(log)
	if err != nil {
		return 1, err
	}
	node.Stderr = file
	if err := node.Start(); err != nil {
		return 1, err
	}
	defer func() {
		_ = node.Process.Signal(os.Interrupt)
		_ = node.Wait()
	}()
	process = node.Process
	said := regexp.MustCompile(`tcp://(127\.0\.0\.1:\d+)`)
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		text, _ := os.ReadFile(log)
		found := said.FindSubmatch(text)
		if _, err := os.Stat(socket); err == nil && found != nil && bytes.Contains(text, []byte("ready")) {
			address = string(found[1])
			return run(), nil
		}
	}
	text, _ := os.ReadFile(log)
	return 1, fmt.Errorf("the node is not ready: %s", text)
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
