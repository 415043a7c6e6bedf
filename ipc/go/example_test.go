package peat_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	peat "peat.internal/peat-node.git/ipc/go"
)

func ExampleClient() {
	ctx := context.Background()
	client, err := peat.Connect(ctx, "unix:///run/peat-node/peat-node.sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	if _, err := client.Put(ctx, "notes", "n1", map[string]any{"text": "hello"}); err != nil {
		fmt.Println(err)
	}
	if _, err := client.Get(ctx, "notes", "n2"); errors.Is(err, peat.NotFound) {
		fmt.Println("there is no n2")
	}
}

func ExampleClient_Subscribe() {
	ctx := context.Background()
	client, err := peat.Connect(ctx, "unix:///run/peat-node/peat-node.sock")
	if err != nil {
		return
	}
	notes := map[string]string{}
	for change, err := range client.Subscribe(ctx, peat.WithCollections("notes"), peat.WithSnapshot()) {
		if err != nil {
			return
		}
		switch change.Type {
		case peat.ChangeUpsert:
			notes[change.ID] = string(change.JSON)
		case peat.ChangeDelete:
			delete(notes, change.ID)
		case peat.ChangeReset:
			clear(notes)
		}
	}
}

func TestTheReadmesAgentIsTheOneThatIsCompiled(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	must(t, err)
	code, err := os.ReadFile("examples/agent/main.go")
	must(t, err)
	if !strings.Contains(string(readme), "```go\n"+string(code)+"```") {
		t.Fatal("README.md shows another program than examples/agent/main.go")
	}
}

func TestTheExamplesWorkTogether(t *testing.T) {
	node, client := startNode(t)
	programs := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", programs, "./examples/...").CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	agent := exec.Command(filepath.Join(programs, "agent"), node.Address(), filepath.Join(programs, "state"))
	must(t, agent.Start())
	shows(t, client, "radar-1", is(peat.LivenessLive))
	out, err := exec.Command(filepath.Join(programs, "rollout"), node.Address(), "sensors", "ping").CombinedOutput()
	if err != nil || string(out) != "radar-1 COMMAND_STATUS_COMPLETED {\"pong\":\"radar-1\"} \n" {
		t.Fatalf("%q %v", out, err)
	}
	must(t, agent.Process.Signal(os.Interrupt))
	must(t, agent.Wait())
	shows(t, client, "radar-1", is(peat.LivenessStale))
}
