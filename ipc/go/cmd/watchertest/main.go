// Watchertest checks that a real node watches a Connect agent (tests/standin) and that a peer shows the agent's state.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"

	peat "peat.internal/peat-node.git/ipc/go"
	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

var standin = flag.String("standin", "", "`path` of the stand-in agent")

func main() { testnode.Main("watchertest", run) }

// agent is the process of the stand-in agent.
type agent struct {
	process          *exec.Cmd
	address, control string
}

func run(s *testnode.Steps) error {
	if *standin == "" {
		return errors.New("--standin PATH is missing")
	}
	if err := plain(s); err != nil {
		return err
	}
	if err := mutualTLS(s); err != nil {
		return err
	}
	return restricted(s)
}

// plain watches an agent and reads its state at a peer.
func plain(s *testnode.Steps) error {
	agent, err := startAgent()
	if err != nil {
		return err
	}
	defer agent.process.Process.Kill()
	watching := []string{"--node-id", "edge-1", "--agent-addr", agent.address, "--agent-poll-interval", "1"}
	edge, hub, err := testnode.Pair(s.Binary, s.Home, watching, nil)
	if err != nil {
		return err
	}
	s.Use(edge, hub)
	client, err := peat.Connect(s.Context, hub.Address())
	if err != nil {
		return err
	}
	defer client.Close()
	return s.All(agent.steps(client)...)
}

func (a *agent) steps(hub *peat.Client) []testnode.Step {
	return []testnode.Step{
		{What: "the hub shows the agent that the edge watches", Do: func(ctx context.Context) error {
			return platform(ctx, hub, func(p peat.FleetPlatform) bool {
				return p.Type == "uds-remote-agent" && p.Version == "1.0.0" && p.Labels["site"] == "north"
			})
		}},
		{What: "a package that the agent runs appears there", Do: func(ctx context.Context) error {
			body := `{"version": "1.0.0", "status": "DEPLOY_PACKAGE_STATUS_DEPLOYED", "annotations": {"team": "blue"}}`
			return errors.Join(a.change("PUT", "/packages/radar", body), deployment(ctx, hub, "radar", "1.0.0"))
		}},
		{What: "what it pulled appears there", Do: func(ctx context.Context) error {
			body := `{"reference": "radar:1", "arch": "amd64", "totalBytes": "9007199254740993", "pullInfo": {"status": "PULL_STATUS_PULLED"}}`
			return errors.Join(a.change("PUT", "/pulled", body), pulled(ctx, hub))
		}},
		{What: "an upgrade is followed", Do: func(ctx context.Context) error {
			body := `{"version": "1.1.0", "status": "DEPLOY_PACKAGE_STATUS_DEPLOYED"}`
			return errors.Join(a.change("PUT", "/packages/radar", body), deployment(ctx, hub, "radar", "1.1.0"))
		}},
		a.faulty(hub, "lying"),
		a.faulty(hub, "truncated"),
		a.faulty(hub, "huge"),
		a.faulty(hub, "failing"),
		{What: "500 packages arrive", Do: func(ctx context.Context) error {
			return errors.Join(a.change("POST", "/packages?count=500", ""), count(ctx, hub, 500))
		}},
		{What: "what the agent no longer lists is deleted", Do: func(ctx context.Context) error {
			return errors.Join(a.change("POST", "/packages?count=0", ""), count(ctx, hub, 0))
		}},
	}
}

// faulty is a step in which the agent answers incorrectly, which must change nothing.
func (a *agent) faulty(hub *peat.Client, fault string) testnode.Step {
	return testnode.Step{What: "an agent whose answers are " + fault + " keeps its packages", Do: func(ctx context.Context) error {
		if err := a.change("PUT", "/fault?mode="+fault, ""); err != nil {
			return err
		}
		return errors.Join(a.askedAgain(ctx), deployment(ctx, hub, "radar", "1.1.0"), a.change("PUT", "/fault?mode=none", ""))
	}}
}

// mutualTLS watches an agent that requires a client certificate.
func mutualTLS(s *testnode.Steps) error {
	c, err := testnode.NewCertificates(s.Home)
	if err != nil {
		return err
	}
	agent, err := startAgent("--tls-cert", c.ServerCert, "--tls-key", c.ServerKey, "--tls-client-ca", c.Authority, "--packages", "3")
	if err != nil {
		return err
	}
	defer agent.process.Process.Kill()
	node, err := testnode.Start(s.Binary, filepath.Join(s.Home, "tls"), "--node-id", "edge-1", "--agent-addr", agent.address,
		"--agent-poll-interval", "1", "--agent-tls-cert", c.ClientCert, "--agent-tls-key", c.ClientKey, "--agent-tls-ca", c.Authority)
	if err != nil {
		return err
	}
	s.Use(node)
	client, err := peat.Connect(s.Context, node.Address())
	if err != nil {
		return err
	}
	defer client.Close()
	return s.Do("an agent behind mutual TLS is watched", func(ctx context.Context) error { return count(ctx, client, 3) })
}

// restricted watches agents that support only HTTP/2, or only gRPC.
func restricted(s *testnode.Steps) error {
	c, err := testnode.NewCertificates(s.Home)
	if err != nil {
		return err
	}
	secure := []string{"--tls-cert", c.ServerCert, "--tls-key", c.ServerKey, "--tls-client-ca", c.Authority}
	for index, kind := range []struct {
		name  string
		flags []string
	}{
		{"only HTTP/2 by prior knowledge", []string{"--http2-only"}},
		{"only HTTP/2 after TLS", append([]string{"--http2-only"}, secure...)},
		{"gRPC with JSON, by prior knowledge", []string{"--http2-only", "--rpc", "grpc"}},
		{"only gRPC, by prior knowledge", []string{"--http2-only", "--rpc", "grpc-proto"}},
		{"only gRPC, after TLS", append([]string{"--http2-only", "--rpc", "grpc-proto"}, secure...)},
		{"only gRPC beside HTTP/1.1", []string{"--rpc", "grpc-proto"}},
		{"gRPC and nothing else, not even of its status", []string{"--http2-only", "--rpc", "grpc-alone"}},
	} {
		if err := speaking(s, c, index, kind.name, kind.flags); err != nil {
			return err
		}
	}
	return nil
}

func speaking(s *testnode.Steps, c *testnode.Certificates, index int, name string, flags []string) error {
	agent, err := startAgent(append(flags, "--packages", "3")...)
	if err != nil {
		return err
	}
	defer agent.process.Process.Kill()
	arguments := []string{"--node-id", "edge-1", "--agent-addr", agent.address, "--agent-poll-interval", "1"}
	if strings.HasPrefix(agent.address, "https:") {
		arguments = append(arguments, "--agent-tls-cert", c.ClientCert, "--agent-tls-key", c.ClientKey, "--agent-tls-ca", c.Authority)
	}
	node, err := testnode.Start(s.Binary, filepath.Join(s.Home, fmt.Sprint("speaking", index)), arguments...)
	if err != nil {
		return err
	}
	s.Use(node)
	client, err := peat.Connect(s.Context, node.Address())
	if err != nil {
		return err
	}
	defer client.Close()
	return s.Do("an agent that speaks "+name+" is watched", func(ctx context.Context) error {
		tag := `{"reference": "radar:1", "arch": "amd64", "totalBytes": "9007199254740993", "pullInfo": {"status": "PULL_STATUS_PULLED"}}`
		radar := `{"version": "1.0.0", "status": "DEPLOY_PACKAGE_STATUS_DEPLOYED", "annotations": {"team": "blue"}}`
		return errors.Join(
			count(ctx, client, 3),
			platform(ctx, client, func(p peat.FleetPlatform) bool { return p.Type == "uds-remote-agent" }),
			agent.change("POST", "/packages?count=0", ""), count(ctx, client, 0),
			agent.change("PUT", "/packages/radar", radar), deployment(ctx, client, "radar", "1.0.0"),
			agent.change("PUT", "/pulled", tag), pulled(ctx, client))
	})
}

func startAgent(flags ...string) (*agent, error) {
	process := exec.Command(*standin, flags...)
	lines, err := testnode.Lines(process, 2)
	if err != nil {
		return nil, fmt.Errorf("the stand-in agent: %w", err)
	}
	return &agent{process, strings.TrimPrefix(lines[0], "agent "), strings.TrimPrefix(lines[1], "control ")}, nil
}

// change sets the agent's further answers.
func (a *agent) change(method, path, body string) error {
	response, err := a.askControl(method, path, body)
	if err == nil {
		response.Body.Close()
	}
	return err
}

func (a *agent) askControl(method, path, body string) (*http.Response, error) {
	request, err := http.NewRequest(method, a.control+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = errors.New(response.Status)
	}
	return response, err
}

// askedAgain waits until the agent has received two more requests, so that one complete poll lies between them.
func (a *agent) askedAgain(ctx context.Context) error {
	first, err := a.asked()
	if err != nil {
		return err
	}
	for range 2 {
		last := first
		err := testnode.Eventually(ctx, "the agent is asked", func() (bool, error) {
			now, err := a.asked()
			first = now
			return now != last, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) asked() (string, error) {
	response, err := a.askControl("GET", "/asked", "")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	return text.String(), err
}

func platform(ctx context.Context, hub *peat.Client, holds func(peat.FleetPlatform) bool) error {
	return testnode.Eventually(ctx, "platforms/edge-1", func() (bool, error) {
		platforms, err := hub.FleetPlatforms(ctx)
		for _, platform := range platforms {
			if platform.ID == "edge-1" {
				return holds(platform), err
			}
		}
		return false, err
	})
}

func deployment(ctx context.Context, hub *peat.Client, name, version string) error {
	return testnode.Eventually(ctx, "deployments/edge-1:"+name+" "+version, func() (bool, error) {
		deployments, err := hub.FleetDeployments(ctx)
		return len(deployments) == 1 && deployments[0].AgentID == "edge-1" && deployments[0].Package == name &&
			deployments[0].Version == version, err
	})
}

func pulled(ctx context.Context, hub *peat.Client) error {
	return testnode.Eventually(ctx, "packages/edge-1:radar:1-amd64", func() (bool, error) {
		document, err := hub.Get(ctx, "packages", "edge-1:radar:1-amd64")
		if errors.Is(err, peat.NotFound) {
			return false, nil
		}
		return err == nil && strings.Contains(string(document.JSON), "9007199254740993"), err
	})
}

func count(ctx context.Context, hub *peat.Client, want int) error {
	return testnode.Eventually(ctx, fmt.Sprint(want, " deployments"), func() (bool, error) {
		deployments, err := hub.FleetDeployments(ctx)
		return len(deployments) == want, err
	})
}
