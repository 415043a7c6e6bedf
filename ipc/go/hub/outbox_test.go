package hub

import (
	"context"
	"strings"
	"sync"
	"testing"

	peat "peat.internal/peat-node.git/ipc/go"
	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

// agents counts how often each command was carried out.
type agents struct {
	mu  sync.Mutex
	ran map[string]int
}

func (a *agents) start(t *testing.T, node *testnode.Node, id string) {
	t.Helper()
	agent, err := peat.NewAgent(context.Background(), node.Address(), peat.Registration{ID: id, Group: "north", Status: peat.PlatformReady}, peat.WithDirectory(t.TempDir()))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = agent.Handle(ctx, func(_ context.Context, command *peat.Command) (any, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.ran[command.ID]++
			return map[string]string{"payload": string(command.Payload)}, nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = agent.Close()
	})
	must(t, agent.WaitRegistered(patient(t)))
}

func (a *agents) count(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ran[id]
}

func TestACommandOfTheOutboxRunsOnceAndItsResultComesBack(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	fleet := &agents{ran: map[string]int{}}
	fleet.start(t, node, "a1")
	w.hub(source("fleet", node)...)
	w.eventually("SELECT count(*) = 1 FROM peat.agents")
	id := get[string](w, `SELECT peat.send_command('fleet', 'replay', '{"from": 100}', agent => 'a1')`)
	w.eventually("SELECT count(*) = 1 FROM peat.commands WHERE id = $1 AND status = 'COMMAND_STATUS_COMPLETED'", id)
	group := get[string](w, `SELECT peat.send_command('fleet', 'ping', "group" => 'north', ttl_s => 0)`)
	w.eventually("SELECT count(*) = 1 FROM peat.commands WHERE id = $1 AND status = 'COMMAND_STATUS_COMPLETED'", group)

	// Sent again, as after a crash between the node's answer and its note.
	get[int](w, `WITH again AS (UPDATE peat.outbox SET state = 'pending', sent_at = NULL RETURNING 1) SELECT count(*)::int FROM again`)
	w.eventually("SELECT bool_and(state = 'sent') FROM peat.outbox")
	if attempts := get[int](w, "SELECT min(attempts) FROM peat.outbox"); attempts != 2 {
		t.Errorf("%d attempts", attempts)
	}
	w.equalsNode("fleet", client)
	if result := get[string](w, "SELECT result FROM peat.command_results WHERE command_id = $1 AND agent_id = 'a1'", id); !strings.Contains(result, "100") {
		t.Errorf("the result is %s", result)
	}
	for _, command := range []string{id, group} {
		if ran := fleet.count(command); ran != 1 {
			t.Errorf("command %s ran %d times", command, ran)
		}
	}
	if statuses := get[string](w, `SELECT string_agg(document ->> 'status', ' ' ORDER BY change) FROM peat.history
		WHERE collection = 'commands' AND id = $1`, id); !strings.HasSuffix(statuses, "COMMAND_STATUS_COMPLETED") {
		t.Errorf("history of the command: %s", statuses)
	}
}

// Hubs are killed while they send. Nothing is lost, nothing runs twice, and documents end as the last row says.
func TestTheOutboxSurvivesKills(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	fleet := &agents{ran: map[string]int{}}
	fleet.start(t, node, "a1")
	hub := w.hub(source("fleet", node)...)
	w.eventually("SELECT to_regclass('peat.identity') IS NOT NULL")
	const rounds, each = 4, 60
	for round := range rounds {
		get[int](w, `WITH queued AS (
			SELECT CASE n % 2 WHEN 0 THEN peat.send_command('fleet', 'work', agent => 'a1', ttl_s => 0)
				ELSE peat.put_document('fleet', 'desired', 'd' || n % 10, jsonb_build_object('round', $1::int, 'n', n))::text END
			FROM generate_series(1, $2::int) n) SELECT count(*)::int FROM queued`, round, each)
		w.eventually("SELECT count(*) > $1 FROM peat.outbox WHERE state = 'sent'", round*each+each/4)
		hub.kill()
		if round == 1 {
			node.Kill()
			must(t, node.Resume())
		}
		hub = w.hub(source("fleet", node)...)
	}
	w.eventually("SELECT bool_and(state = 'sent') FROM peat.outbox")
	w.eventually("SELECT count(*) = $1 FROM peat.issued_commands WHERE status = 'COMMAND_STATUS_COMPLETED'", rounds*each/2)
	w.equalsNode("fleet", client)
	for id, ran := range fleet.ran {
		if ran != 1 {
			t.Errorf("command %s ran %d times", id, ran)
		}
	}
	if wrong := get[int](w, `SELECT count(*)::int FROM (SELECT DISTINCT ON (doc_id) doc_id, document FROM peat.outbox WHERE action = 'put'
		ORDER BY doc_id, id DESC) o LEFT JOIN peat.documents d ON d.collection = 'desired' AND d.id = o.doc_id
		WHERE d.document IS DISTINCT FROM o.document`); wrong != 0 {
		t.Errorf("%d documents are not what the last row says", wrong)
	}
}

// What the node refuses for good is marked as failed, with its reason, and holds nothing else up.
func TestARefusedRowFailsAndHoldsNothingUp(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	put(t, client, "notes", "patched", `{"a":1,"b":2}`)
	put(t, client, "notes", "deleted", `{}`)
	w.hub(source("fleet", node)...)
	w.eventually("SELECT count(*) = 2 FROM peat.documents")
	for _, sql := range []string{`SELECT peat.send_command('fleet', 'x', "group" => 'empty')`,
		`SELECT peat.cancel_command('fleet', 'unknown')::text`, `SELECT peat.put_document('fleet', 'notes', '', '{}')::text`,
		`INSERT INTO peat.outbox (source, action, collection, doc_id, agent, command_type, ttl_s, payload, created_at)
			VALUES ('fleet', 'command', 'commands', 'late', 'a1', 'x', 60, '{}', now() - interval '61 s') RETURNING doc_id`} {
		get[string](w, sql)
	}
	get[int](w, `SELECT peat.patch_document('fleet', 'notes', 'patched', '{"b": null, "c": 3}')::int`)
	get[int](w, `SELECT peat.delete_document('fleet', 'notes', 'deleted')::int`)
	get[int](w, `SELECT peat.put_document('fleet', 'notes', 'put', '{"put": true}')::int`)
	w.eventually("SELECT bool_and(state <> 'pending') FROM peat.outbox")
	if failed := get[int](w, "SELECT count(*)::int FROM peat.outbox WHERE state = 'failed' AND error <> ''"); failed != 4 {
		t.Errorf("%d rows failed; expected 4", failed)
	}
	w.eventually(`SELECT string_agg(id || document, ' ' ORDER BY id) = 'patched{"a": 1, "c": 3} put{"put": true}' FROM peat.documents`)
}

// A row waits for a node that is away.
func TestARowWaitsForItsNode(t *testing.T) {
	w := newWorld(t)
	node, _ := startNode(t)
	w.hub(source("fleet", node)...)
	w.eventually("SELECT count(*) = 1 FROM peat.sources")
	node.Kill()
	get[int](w, `SELECT peat.put_document('fleet', 'notes', 'n', '{"put": true}')::int`)
	w.eventually("SELECT attempts > 0 AND state = 'pending' FROM peat.outbox")
	must(t, node.Resume())
	w.eventually("SELECT state = 'sent' FROM peat.outbox")
	w.equalsNode("fleet", connectNode(t, node))
}

// What the node may take later is tried again; meanwhile later rows for the same document wait, and no others.
func TestALimitDelaysOneDocumentOnly(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	w.hub(source("fleet", node)...)
	w.eventually("SELECT to_regclass('peat.identity') IS NOT NULL")
	get[int](w, `WITH queued AS (SELECT peat.put_document('fleet', 'notes', 'n', jsonb_build_object('x', repeat('x', 1200000))) UNION ALL
		SELECT peat.put_document('fleet', 'notes', 'n', '{"second": true}') UNION ALL
		SELECT peat.put_document('fleet', 'notes', 'other', '{}')) SELECT count(*)::int FROM queued`)
	w.eventually("SELECT state = 'sent' FROM peat.outbox WHERE doc_id = 'other'")
	w.eventually("SELECT refusals > 1 AND state = 'pending' AND error LIKE 'PutDocument: RESOURCE_EXHAUSTED%' FROM peat.outbox WHERE id = 1")
	if sent := get[bool](w, "SELECT state = 'sent' FROM peat.outbox WHERE id = 2"); sent {
		t.Error("a later row for the document was sent first")
	}
	get[int](w, "WITH given_up AS (UPDATE peat.outbox SET state = 'failed' WHERE id = 1 RETURNING 1) SELECT count(*)::int FROM given_up")
	w.eventually("SELECT state = 'sent' FROM peat.outbox WHERE id = 2")
	w.equalsNode("fleet", client)
}

// Many rows for one document are sent in one go, in their order.
func TestManyRowsForOneDocumentKeepTheirOrder(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	w.hub(source("fleet", node)...)
	w.eventually("SELECT to_regclass('peat.identity') IS NOT NULL")
	get[int](w, `WITH queued AS (SELECT peat.patch_document('fleet', 'notes', 'n', jsonb_build_object('n', n, 'k' || n % 7, n))
		FROM generate_series(1, 300) n) SELECT count(*)::int FROM queued`)
	w.eventually("SELECT count(*) = 300 FROM peat.outbox WHERE state = 'sent'")
	w.equalsNode("fleet", client)
	if held := get[string](w, "SELECT document::text FROM peat.documents WHERE id = 'n'"); !sameJSON([]byte(held),
		[]byte(`{"n":300,"k0":294,"k1":295,"k2":296,"k3":297,"k4":298,"k5":299,"k6":300}`)) {
		t.Errorf("the document is %s", held)
	}
}
