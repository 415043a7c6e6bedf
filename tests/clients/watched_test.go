package clients

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// An agent that is nothing but a server of gRPC is watched as it is: it has no status, no JSON and no HTTP/1.1.
func TestAnAgentMadeWithGRPCGoIsWatched(t *testing.T) {
	home := t.TempDir()
	certificate, file := certified(t, home)
	for _, c := range []struct {
		name, scheme string
		server       []grpc.ServerOption
		node         []string
	}{
		{"h2c", "http", nil, nil},
		{"TLS", "https", []grpc.ServerOption{grpc.Creds(credentials.NewServerTLSFromCert(&certificate))}, []string{"--agent-tls-ca", file}},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := serveAgent(t, c.server...)
			flags := []string{"--node-id", "a1", "--agent-addr", c.scheme + "://" + address, "--agent-poll-interval", "0.1"}
			node, err := startNode(t.TempDir(), append(flags, c.node...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer node.stop()
			node.shows(t, "platforms", "a1", `"platform_type":"uds-remote-agent"`)
			node.shows(t, "deployments", "a1:podinfo", `"status":2`, `"version":"6.4"`)
			node.shows(t, "packages", "a1:6.4-amd64", `"package":"podinfo"`)
		})
	}
}

// serveAgent lists one package, and the one it was deployed from.
func serveAgent(t *testing.T, options ...grpc.ServerOption) string {
	text := func(to []byte, number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
	}
	deployed := text(text(nil, 1, "podinfo"), 2, "6.4")
	deployed = protowire.AppendVarint(protowire.AppendTag(deployed, 3, protowire.VarintType), 2)
	pulled := text(nil, 3, string(text(text(nil, 2, "podinfo"), 3, string(text(text(nil, 1, "6.4"), 2, "amd64")))))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	server.RegisterService(listing("zarfapi.v1.ZarfAPIService", "ListPackages", deployed), nil)
	server.RegisterService(listing("registryapi.v1.RegistryService", "ListPulledPackages", pulled), nil)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return "localhost:" + port
}

// listing is a service with one method, whose answer has `element` in its field 1.
func listing(service, method string, element []byte) *grpc.ServiceDesc {
	handler := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		return wrapperspb.Bytes(element), decode(new(emptypb.Empty))
	}
	return &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: method, Handler: handler}}}
}

// shows waits until a document has all of that.
func (n *node) shows(t *testing.T, collection, id string, parts ...string) {
	t.Helper()
	var last []byte
	for deadline := time.Now().Add(3 * patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		last, _ = n.command("get", collection, id).Output()
		found := 0
		for _, part := range parts {
			if strings.Contains(string(last), part) {
				found++
			}
		}
		if found == len(parts) {
			return
		}
	}
	log, _ := os.ReadFile(n.log)
	t.Fatalf("%s/%s is %s\n%s", collection, id, last, log)
}

// certified makes a certificate for localhost, and a file with that of the authority which vouches for it.
func certified(t *testing.T, home string) (tls.Certificate, string) {
	t.Helper()
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	server := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "agent"}, DNSNames: []string{"localhost"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter}
	authorityKey, root := sign(t, authority, authority, nil)
	key, der := sign(t, server, authority, authorityKey)
	file := filepath.Join(home, "authority.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o644); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// sign has the parent vouch for a certificate with a new key, by its own key or, without one, by that.
func sign(t *testing.T, certificate, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}
