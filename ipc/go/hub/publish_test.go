package hub

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"peat.internal/peat-node.git/ipc/go/internal/testnode"
)

// broker is a nats-server of the test's own.
type broker struct {
	t            *testing.T
	binary, home string
	address      string
	process      *exec.Cmd
}

func startBroker(t *testing.T) *broker {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &broker{t: t, binary: tool(t, "NATS_SERVER_BINARY"), home: t.TempDir(), address: listener.Addr().String()}
	must(t, listener.Close())
	b.start()
	t.Cleanup(func() { b.kill() })
	return b
}

func (b *broker) start() {
	b.t.Helper()
	_, port, err := net.SplitHostPort(b.address)
	must(b.t, err)
	b.process = exec.Command(b.binary, "--jetstream", "--store_dir", b.home, "--addr", "127.0.0.1", "--port", port)
	must(b.t, b.process.Start())
}

func (b *broker) kill() {
	_ = b.process.Process.Kill()
	_ = b.process.Wait()
}

func (b *broker) url() string { return "nats://" + b.address }

// messages are all messages of the stream, in its order.
func (b *broker) messages() []jetstream.Msg {
	b.t.Helper()
	var connection *nats.Conn
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if connection, err = nats.Connect(b.url()); err == nil {
			break
		}
	}
	must(b.t, err)
	b.t.Cleanup(connection.Close)
	stream, err := jetstream.New(connection)
	must(b.t, err)
	consumer, err := stream.OrderedConsumer(patient(b.t), "peat", jetstream.OrderedConsumerConfig{})
	must(b.t, err)
	info, err := consumer.Info(patient(b.t))
	must(b.t, err)
	var messages []jetstream.Msg
	for range info.NumPending {
		message, err := consumer.Next(jetstream.FetchMaxWait(patience))
		must(b.t, err)
		messages = append(messages, message)
	}
	return messages
}

// check holds the stream against history: each row is one message, in order.
func (b *broker) check(w *world) {
	b.t.Helper()
	w.eventually(`SELECT coalesce(max(p.change), 0) = (SELECT max(change) FROM peat.sources) FROM peat.publishers p`)
	messages := b.messages()
	if rows := get[int](w, "SELECT count(*)::int FROM peat.history"); len(messages) != rows {
		b.t.Errorf("the stream has %d messages, history %d rows", len(messages), rows)
	}
	for n, message := range messages {
		if change := message.Headers().Get(headerChange); change != strconv.Itoa(n+1) {
			b.t.Fatalf("message %d is change %s", n+1, change)
		}
	}
}

func TestEachRowOfHistoryIsPublishedOnce(t *testing.T) {
	w := newWorld(t)
	b := startBroker(t)
	node, client := startNode(t)
	arguments := append(source("fleet", node), "--nats", b.url())
	put(t, client, "notes", "n 1", `{}`)
	hub := w.hub(arguments...)
	w.equalsNode("fleet", client)
	write := func(count int) {
		t.Helper()
		for n := range count {
			put(t, client, "notes", "n "+strconv.Itoa(n%7), map[string]any{"n": n, "at": time.Now().UnixNano()})
		}
		must(t, client.Delete(patient(t), "notes", "n 0"))
	}
	write(200)
	w.equalsNode("fleet", client)
	b.check(w)
	last := b.messages()[len(b.messages())-1]
	if subject := last.Subject(); subject != "peat.fleet.notes.n%200" || last.Headers().Get(headerKind) != "delete" || len(last.Data()) != 0 {
		t.Errorf("the deletion is published as %s %v %q", subject, last.Headers(), last.Data())
	}
	if first := b.messages()[0]; !sameJSON(first.Data(), []byte(get[string](w, "SELECT document::text FROM peat.history WHERE change = 1"))) {
		t.Errorf("the first message is %s", first.Data())
	}

	// The server is killed while documents change.
	b.kill()
	write(100)
	b.start()
	w.equalsNode("fleet", client)
	b.check(w)

	// The hub is killed while it publishes, and its note of how far it came is lost: the stream itself knows.
	write(50)
	hub.kill()
	get[int](w, "WITH lost AS (UPDATE peat.publishers SET change = 0 RETURNING 1) SELECT count(*)::int FROM lost")
	hub = w.hub(arguments...)
	w.equalsNode("fleet", client)
	b.check(w)

	// Both notes are there, but the last batch was published and not noted.
	hub.kill()
	get[int](w, "WITH lost AS (UPDATE peat.publishers SET change = change - 10 RETURNING 1) SELECT count(*)::int FROM lost")
	w.hub(arguments...)
	write(10)
	w.equalsNode("fleet", client)
	b.check(w)
}

// A document that is larger than what the server takes is announced without its body.
func TestADocumentTooLargeForTheServerIsAnnounced(t *testing.T) {
	w := newWorld(t)
	b := startBroker(t)
	node, client := startNode(t)
	put(t, client, "tracks", "big", `{"x":"`+string(repeat('x', 1<<20-100))+`"}`)
	put(t, client, "tracks", "small", `{}`)
	w.hub(append(source("fleet", node), "--nats", b.url())...)
	w.equalsNode("fleet", client)
	b.check(w)
	for _, message := range b.messages() {
		if omitted := message.Headers().Get(headerOmitted); (omitted != "") != (message.Headers().Get(headerID) == "big") {
			t.Errorf("%s: omitted %q", message.Subject(), omitted)
		}
	}
}

// Rows that are not published yet stay.
func TestRetentionKeepsWhatIsNotPublished(t *testing.T) {
	w := newWorld(t)
	h := &hub{Config: Config{Database: w.url, KeepHistory: time.Hour, NATS: &NATS{Stream: "peat"}}}
	must(t, h.tryMigrate(patient(t)))
	get[int](w, `WITH rows AS (INSERT INTO peat.history (source, change, collection, id, kind, origin, sequence, recorded_at)
		SELECT 's', n, 'c', 'i', 'delete', '', 0, now() - make_interval(hours => 6 - n) FROM generate_series(1, 6) n RETURNING 1),
		published AS (INSERT INTO peat.publishers VALUES ('s', 'peat', 3) RETURNING 1) SELECT count(*)::int FROM rows, published`)
	conn, err := h.connect(patient(t))
	must(t, err)
	t.Cleanup(func() { closeConn(conn) })
	must(t, h.removeOld(patient(t), conn))
	if rest := get[string](w, "SELECT string_agg(change::text, ' ' ORDER BY change) FROM peat.history"); rest != "4 5 6" {
		t.Errorf("left: %s", rest)
	}
	h.NATS = nil
	must(t, h.removeOld(patient(t), conn))
	if rest := get[string](w, "SELECT string_agg(change::text, ' ' ORDER BY change) FROM peat.history"); rest != "6" {
		t.Errorf("left without a publisher: %s", rest)
	}
}

// A restored database gives numbers a second time; what it records is published nevertheless.
func TestARestoredDatabasePublishesUnderANewIdentity(t *testing.T) {
	w := newWorld(t)
	b := startBroker(t)
	node, client := startNode(t)
	arguments := append(source("fleet", node), "--nats", b.url())
	put(t, client, "notes", "n", `{"n":1}`)
	hub := w.hub(arguments...)
	w.equalsNode("fleet", client)
	restored := copyDatabase(t, w, hub)
	hub = w.hub(arguments...)
	for n := range 10 {
		put(t, client, "notes", "n", map[string]int{"n": n + 2})
		w.equalsNode("fleet", client)
	}
	b.check(w)
	hub.kill()
	w.url = restored
	put(t, client, "notes", "n", `{"n":"after"}`)
	put(t, client, "notes", "m", `{}`)
	w.hub(arguments...)
	w.equalsNode("fleet", client)
	w.eventually("SELECT p.change = s.change FROM peat.publishers p JOIN peat.sources s USING (source)")
	published := map[string]int{}
	for _, message := range b.messages() {
		published[message.Headers().Get(headerHub)]++
	}
	if rows := get[int](w, "SELECT count(*)::int FROM peat.history"); len(published) != 2 || published[get[string](w, "SELECT hub::text FROM peat.identity")] != rows-1 {
		t.Errorf("published by identity: %v; %d rows of history", published, rows)
	}
}

// copyDatabase kills the hub and makes a copy of the test's database, as a backup does.
func copyDatabase(t *testing.T, w *world, hub *process) string {
	t.Helper()
	w.eventually("SELECT p.change = s.change FROM peat.publishers p JOIN peat.sources s USING (source)")
	hub.kill()
	name := get[string](w, "SELECT current_database()")
	server, err := shared()
	must(t, err)
	conn, err := pgx.Connect(patient(t), server.url("postgres"))
	must(t, err)
	defer conn.Close(context.Background())
	must(t, testnode.Eventually(patient(t), "the sessions of the killed hub have ended", func() (bool, error) {
		_, err := conn.Exec(patient(t), "CREATE DATABASE "+name+"copy TEMPLATE "+name)
		return err == nil, err
	}))
	return server.url(name + "copy")
}
