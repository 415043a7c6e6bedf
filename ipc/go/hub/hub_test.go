package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	peat "peat.internal/peat-node.git/ipc/go"
	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

func put(t *testing.T, client *peat.Client, collection, id string, document any) {
	t.Helper()
	_, err := client.Put(patient(t), collection, id, document)
	must(t, err)
}

func TestTablesHoldWhatTheNodeHolds(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	put(t, client, "platforms", "a1", `{"name":"first","group":"north","latitude":1.5,"status":1,"labels":{"site":"k"}}`)
	put(t, client, "deployments", "a1:web", `{"package":"web","version":"3","status":"running"}`)
	put(t, client, "packages", "a1:web-amd64", `{"registry":"r","total_bytes":123}`)
	put(t, client, "notes", "of no kind", `{"text":"x"}`)
	command, err := client.SendCommand(patient(t), peat.NewCommand{Agent: "a1", Type: "ping"})
	must(t, err)
	w.hub(source("fleet", node)...)
	w.equalsNode("fleet", client)

	if name := get[string](w, `SELECT name || "group" || latitude || status || (labels ->> 'site') FROM peat.platforms WHERE id = 'a1'`); name != "firstnorth1.51k" {
		t.Errorf("platforms: %s", name)
	}
	if agent := get[string](w, `SELECT agent_id || package || version FROM peat.deployments`); agent != "a1web3" {
		t.Errorf("deployments: %s", agent)
	}
	if bytes := get[int](w, `SELECT total_bytes::int FROM peat.packages WHERE agent_id = 'a1'`); bytes != 123 {
		t.Errorf("packages: %d", bytes)
	}
	if status := get[string](w, `SELECT status || command_type FROM peat.commands WHERE id = $1 AND expires_at > issued_at`, command); status != "COMMAND_STATUS_PENDINGping" {
		t.Errorf("commands: %s", status)
	}
	w.eventually(`SELECT count(*) = 1 FROM peat.agent_liveness WHERE id = 'a1' AND liveness = 'LIVE'`)

	put(t, client, "platforms", "a1", `{"name":"second"}`)
	must(t, client.Delete(patient(t), "notes", "of no kind"))
	w.equalsNode("fleet", client)
	if kinds := get[string](w, `SELECT string_agg(kind, ' ' ORDER BY change) FROM peat.history WHERE collection = 'notes'`); kinds != "upsert delete" {
		t.Errorf("history of the note: %s", kinds)
	}
}

// Documents are what any writer of the fleet makes them; none may stop the hub.
func TestNoDocumentStopsTheHub(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	long := string(make([]byte, 0, 600))
	for len(long) < 505 {
		long += "ü"
	}
	documents := map[string]string{
		"nul":       `{"a\u0000b":"x\u0000y","escaped":"\\u0000","n":1}`,
		"types":     `{"name":{"x":[1]},"group":7,"latitude":"north","total_bytes":{},"all":"yes","created_at":"soon","capabilities":"c"}`,
		"numbers":   `{"latitude":1.7976931348623157e308,"longitude":5e-324,"created_at":1e300,"expires_at":-1,"total_bytes":18446744073709551615}`,
		"zero":      `{"created_at":0,"expires_at":253402300800,"labels":null}`,
		long:        `{"name":"long id"}`,
		`quote'"\%`: `{"name":"'; DROP TABLE peat.documents; --"}`,
		"big":       `{"name":"` + string(repeat('x', 900_000)) + `"}`,
		"empty":     `{}`,
	}
	for _, collection := range []string{"platforms", "deployments", "packages", "agents", "notes", "кол lection", `q'"`} {
		for id, document := range documents {
			if collection == "agents" && id == "big" {
				continue
			}
			if _, err := client.Put(patient(t), collection, id, document); err != nil && peat.CodeOf(err) != peat.PermissionDenied &&
				peat.CodeOf(err) != peat.InvalidArgument {
				t.Fatalf("%s/%s: %v", collection, id, err)
			}
		}
	}
	w.hub(source("north'\"; ü", node)...)
	w.equalsNode("north'\"; ü", client)
	// The same as live changes.
	for id, document := range documents {
		put(t, client, "live", id, document)
	}
	w.equalsNode("north'\"; ü", client)
	if text := get[string](w, `SELECT document ->> 'escaped' FROM peat.documents WHERE collection = 'live' AND id = 'nul' AND original IS NOT NULL`); text != `\u0000` {
		t.Errorf("an escaped backslash became %q", text)
	}
}

func repeat(b byte, count int) []byte {
	bytes := make([]byte, count)
	for i := range bytes {
		bytes[i] = b
	}
	return bytes
}

// A hub that was away resumes where it was: what did not change is not recorded again.
func TestAHubResumesWithoutASnapshot(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	for n := range 100 {
		put(t, client, "notes", strconv.Itoa(n), map[string]int{"n": n})
	}
	hub := w.hub(source("fleet", node)...)
	w.equalsNode("fleet", client)
	hub.kill()
	put(t, client, "notes", "3", `{"n":"changed"}`)
	must(t, client.Delete(patient(t), "notes", "4"))
	w.hub(source("fleet", node)...)
	w.equalsNode("fleet", client)
	if rows, snapshots := get[int](w, "SELECT count(*)::int FROM peat.history"), get[int](w, "SELECT snapshots::int FROM peat.sources"); rows != 102 || snapshots != 1 {
		t.Errorf("%d rows of history after %d snapshots; expected 102 after one", rows, snapshots)
	}
}

// Another node of the fleet does not know the token, so a snapshot tells what changed and what was deleted meanwhile.
func TestASnapshotFindsWhatWasDeletedInTheGap(t *testing.T) {
	w := newWorld(t)
	a, b := pair(t)
	atA, atB := connectNode(t, a), connectNode(t, b)
	for n := range 50 {
		put(t, atA, "notes", strconv.Itoa(n), map[string]int{"n": n})
	}
	hub := w.hub(source("fleet", a)...)
	w.equalsNode("fleet", atA)
	hub.kill()
	put(t, atA, "notes", "7", `{"n":"changed"}`)
	for _, gone := range []string{"8", "9"} {
		_, err := atA.Put(patient(t), "notes", gone, `{"n":0}`, peat.WithWaitPeers(1))
		must(t, err)
		must(t, atA.Delete(patient(t), "notes", gone))
	}
	put(t, atA, "notes", "last", `{}`)
	must(t, testnode.Eventually(patient(t), "B has what A has", func() (bool, error) {
		ids, err := atB.List(patient(t), "notes")
		return len(ids) == 49, err
	}))
	before := get[int](w, "SELECT count(*)::int FROM peat.history")
	w.hub(source("fleet", b)...)
	w.equalsNode("fleet", atB)
	rows := get[string](w, `SELECT string_agg(kind || ' ' || id, ', ' ORDER BY id) FROM peat.history WHERE change > $1`, before)
	if rows != "upsert 7, delete 8, delete 9, upsert last" {
		t.Errorf("recorded of the gap: %s", rows)
	}
}

// While a snapshot of a changing node is read, documents that change are no part of it and still no deletions are recorded.
func TestADocumentThatChangesDuringASnapshotIsNotDeleted(t *testing.T) {
	w := newWorld(t)
	a, b := pair(t)
	atA, atB := connectNode(t, a), connectNode(t, b)
	const documents = 3000
	for n := range documents {
		put(t, atA, "tracks", strconv.Itoa(n), map[string]any{"n": 0, "pad": string(repeat('x', 1000))})
	}
	hub := w.hub(source("fleet", a)...)
	w.equalsNode("fleet", atA)
	must(t, testnode.Eventually(patient(t), "B has what A has", func() (bool, error) {
		ids, err := atB.List(patient(t), "tracks")
		return len(ids) == documents, err
	}))
	hub.kill()
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			id := strconv.Itoa(rand.IntN(documents))
			if _, err := atB.Put(patient(t), "tracks", id, map[string]int{"n": n}); err != nil {
				stopped <- err
				return
			}
		}
	}()
	w.hub(source("fleet", b)...)
	w.eventually("SELECT snapshots = 2 FROM peat.sources")
	close(stop)
	must(t, <-stopped)
	w.equalsNode("fleet", atB)
	if gone := get[int](w, "SELECT count(*)::int FROM peat.history WHERE kind = 'delete'"); gone != 0 {
		t.Errorf("%d deletions are recorded that never happened", gone)
	}
}

// counters are documents that each count up, so that a change that is lost for good, repeated or reordered shows in history.
type counters struct {
	mu   sync.Mutex
	last map[string]int
}

// write counts up until ctx ends; each put is repeated until the node confirms it.
func (c *counters) write(ctx context.Context, t *testing.T, client *peat.Client, id string) {
	for n := 1; ctx.Err() == nil; n++ {
		for {
			_, err := client.Put(context.WithoutCancel(ctx), "counters", id, map[string]int{"n": n}, peat.WithDurable())
			if err == nil {
				break
			}
			if peat.CodeOf(err) != peat.Unavailable && !errors.Is(err, peat.ErrConnectionLost) {
				t.Errorf("counter %s: %v", id, err)
				return
			}
			if !sleep(ctx, 20*time.Millisecond) {
				return
			}
		}
		c.mu.Lock()
		c.last[id] = n
		c.mu.Unlock()
	}
}

// Hub, node and database are killed in turn while documents change; each change that the hub records it records once.
func TestKillsOfHubNodeAndDatabaseLoseAndRepeatNothing(t *testing.T) {
	tool(t, "PEAT_NODE_BINARY")
	database, err := newServer()
	must(t, err)
	t.Cleanup(database.remove)
	w := &world{t, database.database(t)}
	node, client := startNode(t)
	arguments := source("fleet", node)
	hub := w.hub(arguments...)
	w.eventually("SELECT to_regclass('peat.sources') IS NOT NULL")

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	written := &counters{last: map[string]int{}}
	var writers sync.WaitGroup
	for _, id := range []string{"a", "b", "c"} {
		writers.Add(1)
		go func() {
			defer writers.Done()
			written.write(ctx, t, client, id)
		}()
	}
	rounds := 6
	if os.Getenv("LONG") == "1" {
		rounds = 60
	}
	for round := range rounds {
		recorded := get[int](w, "SELECT count(*)::int FROM peat.history")
		w.eventually("SELECT count(*) > $1 FROM peat.history", recorded+20)
		switch round % 3 {
		case 0:
			hub.kill()
			hub = w.hub(arguments...)
		case 1:
			node.Kill()
			must(t, node.Resume())
		case 2:
			database.kill()
			must(t, database.start())
		}
	}
	recorded := get[int](w, "SELECT count(*)::int FROM peat.history")
	w.eventually("SELECT count(*) > $1 FROM peat.history", recorded+20)
	stop()
	writers.Wait()
	w.equalsNode("fleet", client)
	for id, last := range written.last {
		if held := get[int](w, "SELECT (document ->> 'n')::int FROM peat.documents WHERE collection = 'counters' AND id = $1", id); held < last {
			t.Errorf("counter %s is %d; %d was acknowledged", id, held, last)
		}
	}
	repeated := get[int](w, `SELECT count(*)::int FROM (SELECT (document ->> 'n')::int AS n,
		lag((document ->> 'n')::int) OVER (PARTITION BY id ORDER BY change) AS before FROM peat.history WHERE collection = 'counters') h
		WHERE n < before`)
	if repeated != 0 {
		t.Errorf("%d rows of history go back", repeated)
	}
}

// A follower that was replaced while it was not looking writes nothing more, with or without its lock.
func TestAReplacedFollowerWritesNothing(t *testing.T) {
	w := newWorld(t)
	h := &hub{Config: Config{Database: w.url, Instance: "test"}}
	must(t, h.tryMigrate(patient(t)))
	var followers []*follower
	for range 2 {
		conn, err := h.connect(patient(t))
		must(t, err)
		t.Cleanup(func() { closeConn(conn) })
		f := &follower{hub: h, source: Source{Name: "fleet"}, conn: conn}
		must(t, f.begin(patient(t)))
		followers = append(followers, f)
	}
	change := &peat.Change{Type: peat.ChangeUpsert, Collection: "notes", ID: "n", JSON: []byte(`{}`), Token: peat.Token{Run: []byte("r"), Sequence: 1}}
	if err := followers[0].write(patient(t), []*peat.Change{change}); !errors.Is(err, errReplaced) {
		t.Errorf("the replaced follower's write: %v", err)
	}
	if rows := get[int](w, "SELECT (SELECT count(*) FROM peat.history)::int + (SELECT count(*) FROM peat.documents)::int"); rows != 0 {
		t.Errorf("it wrote %d rows", rows)
	}
	must(t, followers[1].write(patient(t), []*peat.Change{change}))
	w.checkHistory("fleet")
}

// Within one batch the last change of a document decides, and each is recorded in its order.
func TestABatchMayChangeADocumentSeveralTimes(t *testing.T) {
	w := newWorld(t)
	h := &hub{Config: Config{Database: w.url, Instance: "test"}}
	must(t, h.tryMigrate(patient(t)))
	conn, err := h.connect(patient(t))
	must(t, err)
	t.Cleanup(func() { closeConn(conn) })
	f := &follower{hub: h, source: Source{Name: "fleet"}, conn: conn}
	must(t, f.begin(patient(t)))
	random := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{}
	var sequence uint64
	recorded := 0
	for range 60 {
		var batch []*peat.Change
		for range 1 + random.IntN(12) {
			sequence++
			id := strconv.Itoa(random.IntN(5))
			collection := []string{"notes", "platforms", "commands"}[random.IntN(3)]
			change := &peat.Change{Type: peat.ChangeUpsert, Collection: collection, ID: id, JSON: fmt.Appendf(nil, `{"n":%d}`, sequence),
				Token: peat.Token{Run: []byte("r"), Sequence: sequence}}
			key := collection + "/" + id
			if random.IntN(3) == 0 {
				change.Type, change.JSON = peat.ChangeDelete, nil
				if _, held := model[key]; held {
					recorded++
				}
				delete(model, key)
			} else {
				recorded++
				model[key] = string(change.JSON)
			}
			batch = append(batch, change)
		}
		must(t, f.write(patient(t), batch))
	}
	w.checkHistory("fleet")
	if rows := get[int](w, "SELECT count(*)::int FROM peat.history"); rows != recorded {
		t.Errorf("%d rows of history; expected %d", rows, recorded)
	}
	if rows := get[int](w, "SELECT count(*)::int FROM peat.documents"); rows != len(model) {
		t.Errorf("%d documents; expected %d", rows, len(model))
	}
	for key, text := range model {
		if !get[bool](w, "SELECT document = $2::jsonb FROM peat.documents WHERE collection || '/' || id = $1", key, text) {
			t.Errorf("%s is not %s", key, text)
		}
	}
}

// Hubs that start together each take a part, and one that is killed is replaced by another.
func TestSeveralHubsShareTheWork(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	var arguments []string
	const sources = 4
	for n := range sources {
		arguments = append(arguments, source("s"+strconv.Itoa(n), node)...)
	}
	first, second := w.hub(arguments...), w.hub(arguments...)
	put(t, client, "notes", "n", `{}`)
	w.eventually("SELECT count(*) = $1 FROM peat.documents WHERE collection = 'notes'", sources)
	if hubs := get[int](w, "SELECT count(DISTINCT followed_by)::int FROM peat.sources"); hubs != 2 {
		t.Errorf("%d of two hubs work", hubs)
	}
	for n, victim := range []*process{first, second} {
		victim.kill()
		put(t, client, "notes", "n", map[string]int{"n": n})
		w.eventually("SELECT count(*) = $1 FROM peat.documents WHERE collection = 'notes' AND document = jsonb_build_object('n', $2::int)", sources, n)
		w.hub(arguments...)
	}
	for n := range sources {
		w.equalsNode("s"+strconv.Itoa(n), client)
		if rows := get[int](w, "SELECT count(*)::int FROM peat.history WHERE source = $1 AND collection = 'notes'", "s"+strconv.Itoa(n)); rows != 3 {
			t.Errorf("source s%d has %d rows of history; expected 3", n, rows)
		}
	}
}

// A node that is frozen or gone is replaced by the next one of the source.
func TestTheNextNodeIsFollowedWhenOneIsAway(t *testing.T) {
	w := newWorld(t)
	a, b := pair(t)
	put(t, connectNode(t, a), "notes", "n", `{}`)
	w.hub(source("fleet", a, b)...)
	w.eventually("SELECT count(*) = 1 FROM peat.documents")
	a.Kill()
	atB := connectNode(t, b)
	put(t, atB, "notes", "m", `{}`)
	w.equalsNode("fleet", atB)
}

// A schema of a newer hub is left alone.
func TestANewerSchemaIsRefused(t *testing.T) {
	w := newWorld(t)
	h := &hub{Config: Config{Database: w.url}}
	must(t, h.tryMigrate(patient(t)))
	must(t, h.tryMigrate(patient(t)))
	conn, err := pgx.Connect(patient(t), w.url)
	must(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(patient(t), "INSERT INTO peat.migrations (version) VALUES (1000)")
	must(t, err)
	if err := Migrate(patient(t), conn); !errors.Is(err, errSchema) || passing(err) {
		t.Errorf("a newer schema: %v", err)
	}
}

// A node that is frozen takes connections and answers nothing; follower and outbox go to the next one.
func TestAFrozenNodeIsLeft(t *testing.T) {
	w := newWorld(t)
	a, b := pair(t)
	put(t, connectNode(t, a), "notes", "n", `{}`)
	w.hub(source("fleet", a, b)...)
	w.eventually("SELECT count(*) = 1 FROM peat.documents")
	freeze(t, a)
	get[int](w, "SELECT peat.put_document('fleet', 'notes', 'm', '{}')::int")
	w.eventually("SELECT count(*) = 2 FROM peat.documents")
	w.equalsNode("fleet", connectNode(t, b))
}

// freeze stops a node's process; it is killed at the end of the test, as any other.
func freeze(t *testing.T, node *testnode.Node) {
	t.Helper()
	for _, process := range children(os.Getpid()) {
		arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process))
		if err == nil && strings.Contains(string(arguments), node.Address()+"\x00") {
			must(t, syscall.Kill(process, syscall.SIGSTOP))
			return
		}
	}
	t.Fatalf("no process listens at %s", node.Address())
}

// Settings that cannot work are refused with what is wrong about them.
func TestASettingThatCannotWorkIsRefused(t *testing.T) {
	good := Source{Name: "s", Addresses: []string{"unix:///run/x"}}
	for words, config := range map[string]Config{
		"no database":           {Sources: []Source{good}},
		"no source":             {Database: "postgres:///x"},
		"no address":            {Database: "postgres:///x", Sources: []Source{{Name: "s"}}},
		"named twice":           {Database: "postgres:///x", Sources: []Source{good, good}},
		"has 0 bytes":           {Database: "postgres:///x", Sources: []Source{{Addresses: good.Addresses}}},
		"not an address":        {Database: "postgres:///x", Sources: []Source{{Name: "s", Addresses: []string{"http:/x"}}}},
		"no name of a stream":   {Database: "postgres:///x", Sources: []Source{good}, NATS: &NATS{URL: "nats://x", Stream: "a b", Subject: "p"}},
		"no prefix of subjects": {Database: "postgres:///x", Sources: []Source{good}, NATS: &NATS{URL: "nats://x", Stream: "a", Subject: "p.>"}},
	} {
		if err := Run(patient(t), config); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// A hub that stands by needs one connection, however many sources there are.
func TestAHubThatStandsByNeedsOneConnection(t *testing.T) {
	w := newWorld(t)
	node, _ := startNode(t)
	var arguments []string
	for n := range 5 {
		arguments = append(arguments, source("s"+strconv.Itoa(n), node)...)
	}
	w.hub(arguments...)
	w.eventually("SELECT count(*) = 5 FROM peat.sources WHERE run IS NOT NULL")
	const connections = "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'peat-hub'"
	w.eventually("SELECT count(*) = 15 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	before := get[int](w, connections)
	second := w.hub(arguments...)
	w.eventually("SELECT ("+connections+") = $1", before+1)
	if sleep(patient(t), 2*lockPoll); get[int](w, connections) > before+1 {
		t.Errorf("%d connections with a hub that stands by; %d without", get[int](w, connections), before)
	}
	second.kill()
}

// Liveness follows what the node derives, also while no document changes.
func TestLivenessFollowsTheNode(t *testing.T) {
	w := newWorld(t)
	node, _ := startNode(t, "--heartbeat", "1", "--stale-after", "2", "--dead-after", "4")
	agent, err := peat.NewAgent(context.Background(), node.Address(), peat.Registration{ID: "a1", Status: peat.PlatformBusy}, peat.WithDirectory(t.TempDir()))
	must(t, err)
	must(t, agent.WaitRegistered(patient(t)))
	w.hub(source("fleet", node)...)
	w.eventually("SELECT count(*) = 1 FROM peat.agent_liveness WHERE id = 'a1' AND liveness = 'LIVE' AND status = 'BUSY'")
	must(t, agent.Close())
	for _, liveness := range []string{"STALE", "DEAD"} {
		w.eventually("SELECT count(*) = 1 FROM peat.agent_liveness WHERE id = 'a1' AND liveness = $1", liveness)
	}
}
