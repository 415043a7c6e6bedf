// Standin is an agent for tests of the watcher: made with connect-go, it knows nothing of peat-node. It prints its two
// addresses, one a line, and runs until it is killed: the agent's own, and the control address by which its state is
// changed while it runs (see package agent).
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"peat.dev/standin/agent"
)

type flags struct {
	listen, control    string
	cert, key, clients string
	http2Only          bool
	rpc                string
	packages           int
}

func main() {
	var f flags
	flag.StringVar(&f.listen, "listen", "127.0.0.1:0", "`address` of the agent")
	flag.StringVar(&f.control, "control", "127.0.0.1:0", "`address` by which its state is changed")
	flag.StringVar(&f.cert, "tls-cert", "", "certificate `file`; https with it")
	flag.StringVar(&f.key, "tls-key", "", "key `file` of the certificate")
	flag.StringVar(&f.clients, "tls-client-ca", "", "certificate `file` that clients' certificates must be signed by")
	flag.BoolVar(&f.http2Only, "http2-only", false, "only HTTP/2, by prior knowledge or agreed on with TLS")
	flag.StringVar(&f.rpc, "rpc", "any", "`protocol` of methods: any, grpc, grpc-proto (without JSON), or grpc-alone (nothing else, no status); the last three allow h2c")
	flag.IntVar(&f.packages, "packages", 0, "begin with so many made-up packages")
	flag.Parse()
	log.Fatal(run(f))
}

func run(f flags) error {
	state := agent.NewState()
	state.Fill(f.packages)
	listener, scheme, err := listen(f)
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", f.control)
	if err != nil {
		return err
	}
	fmt.Printf("agent %s://%v\ncontrol http://%v\n", scheme, listener.Addr(), control.Addr())
	handler, err := agent.Speaking(f.rpc, state.Handler())
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(!f.http2Only)
	server.Protocols.SetHTTP2(f.http2Only)
	server.Protocols.SetUnencryptedHTTP2(f.http2Only || f.rpc != "any")
	failed := make(chan error, 2)
	go func() {
		if scheme == "https" {
			server.TLSConfig, err = tlsConfig(f)
			failed <- errors.Join(err, server.ServeTLS(listener, "", ""))
		} else {
			failed <- server.Serve(listener)
		}
	}()
	go func() { failed <- http.Serve(control, state.Control()) }()
	return <-failed
}

func listen(f flags) (net.Listener, string, error) {
	listener, err := net.Listen("tcp", f.listen)
	if f.cert == "" {
		return listener, "http", err
	}
	return listener, "https", err
}

func tlsConfig(f flags) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	if f.clients == "" {
		return config, nil
	}
	pem, err := os.ReadFile(f.clients)
	if err != nil {
		return nil, err
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New(f.clients + " has no certificate")
	}
	return config, nil
}
