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
	packages           int
}

func main() {
	var f flags
	flag.StringVar(&f.listen, "listen", "127.0.0.1:0", "`address` of the agent")
	flag.StringVar(&f.control, "control", "127.0.0.1:0", "`address` by which its state is changed")
	flag.StringVar(&f.cert, "tls-cert", "", "certificate `file`; https with it")
	flag.StringVar(&f.key, "tls-key", "", "key `file` of the certificate")
	flag.StringVar(&f.clients, "tls-client-ca", "", "certificate `file` that clients' certificates must be signed by")
	flag.BoolVar(&f.http2Only, "http2-only", false, "without TLS: only HTTP/2 by prior knowledge")
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
	server := &http.Server{Handler: state.Handler()}
	if f.http2Only {
		server.Protocols = new(http.Protocols)
		server.Protocols.SetUnencryptedHTTP2(true)
	}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- http.Serve(control, state.Control()) }()
	return <-failed
}

func listen(f flags) (net.Listener, string, error) {
	listener, err := net.Listen("tcp", f.listen)
	if err != nil || f.cert == "" {
		return listener, "http", err
	}
	config, err := tlsConfig(f)
	return tls.NewListener(listener, config), "https", err
}

func tlsConfig(f flags) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
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
