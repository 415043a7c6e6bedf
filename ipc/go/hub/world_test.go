package hub

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
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

// patience is how long a test waits for what must happen; only a failing one waits it out.
const patience = 90 * time.Second

// hubBinary is built once for all tests that kill hubs.
var hubBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "peat-hub.")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "peat-hub")
	cleanups = append(cleanups, func() { _ = os.RemoveAll(dir) })
	out, err := exec.Command("go", "build", "-o", path, "./cmd/peat-hub").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// shared is the server of the tests that need not kill it.
var shared = sync.OnceValues(func() (*server, error) {
	s, err := newServer()
	if err == nil {
		cleanups = append(cleanups, s.remove)
	}
	return s, err
})

var cleanups []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, cleanup := range cleanups {
		cleanup()
	}
	os.Exit(code)
}

// tool is a program that a variable names; without it the test is skipped, in CI it fails.
func tool(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set", variable)
		}
		t.Skipf("%s is not set: it names a program that this test needs", variable)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// server is a PostgreSQL server of the tests' own, on a unix socket.
type server struct {
	home, bin string
	user      *syscall.Credential
	process   *exec.Cmd
	ended     chan error
}

// serverPrograms is the directory of the newest server that is installed.
func serverPrograms() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", fmt.Errorf("no PostgreSQL server is installed (apt-get install postgresql): %w", err)
	}
	return filepath.Dir(path), nil
}

func newServer() (*server, error) {
	bin, err := serverPrograms()
	if err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp("", "peat-pg.")
	if err != nil {
		return nil, err
	}
	s := &server{home: home, bin: bin}
	// The server refuses to run as root.
	if os.Getuid() == 0 {
		account, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		s.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(home, uid, gid); err != nil {
			return nil, err
		}
	}
	initdb := s.command("initdb", "--pgdata", filepath.Join(home, "data"), "--username", "peat", "--auth", "trust",
		"--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	return s, s.start()
}

func (s *server) command(program string, arguments ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(s.bin, program), arguments...)
	command.Dir = s.home
	command.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	return command
}

func (s *server) url(database string) string {
	return fmt.Sprintf("postgres:///%s?host=%s&user=peat", database, s.home)
}

// start starts the server with the durability that it has by default, and waits until it answers. As a supervisor does, it starts
// the server again when that finds a process of its predecessor that has not ended yet.
func (s *server) start() error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s.process == nil {
			if err := s.launch(); err != nil {
				return err
			}
		}
		select {
		case <-s.ended:
			s.process = nil
			continue
		default:
		}
		conn, err := pgx.Connect(context.Background(), s.url("postgres"))
		if err == nil {
			return conn.Close(context.Background())
		}
	}
	said, _ := os.ReadFile(filepath.Join(s.home, "log"))
	return fmt.Errorf("the server does not answer:\n%s", said)
}

func (s *server) launch() error {
	process := s.command("postgres", "-D", "data", "-k", s.home, "-c", "listen_addresses=", "-c", "max_connections=100",
		"-c", "logging_collector=off")
	log, err := os.OpenFile(filepath.Join(s.home, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	process.Stderr, process.Stdout = log, log
	if err := process.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	s.process, s.ended = process, ended
	return nil
}

// kill ends every process of the server as a crash of its machine would.
func (s *server) kill() {
	if s.process == nil {
		return
	}
	processes := append(children(s.process.Process.Pid), s.process.Process.Pid)
	for _, process := range processes {
		// A process that has ended meanwhile needs no signal.
		_ = syscall.Kill(process, syscall.SIGKILL)
	}
	<-s.ended
	s.process = nil
}

// children are the processes that a process has started.
func children(parent int) []int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	var found []int
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, field := range strings.Fields(string(text)) {
			if process, err := strconv.Atoi(field); err == nil {
				found = append(found, process)
			}
		}
	}
	return found
}

func (s *server) remove() {
	s.kill()
	_ = os.RemoveAll(s.home)
}

// database makes an empty one for a test.
func (s *server) database(t *testing.T) string {
	t.Helper()
	name := "t" + strconv.FormatInt(time.Now().UnixNano(), 36)
	conn, err := pgx.Connect(patient(t), s.url("postgres"))
	must(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(patient(t), "CREATE DATABASE "+name)
	must(t, err)
	return s.url(name)
}

// world is a database of a test's own, and what runs around it.
type world struct {
	t   *testing.T
	url string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := shared()
	must(t, err)
	return &world{t, s.database(t)}
}

func startNode(t *testing.T, flags ...string) (*testnode.Node, *peat.Client) {
	t.Helper()
	node, err := testnode.Start(tool(t, "PEAT_NODE_BINARY"), t.TempDir(), flags...)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the node said:\n%s", node.Log())
		}
		node.Kill()
	})
	return node, connectNode(t, node)
}

// pair are two nodes that are linked with each other.
func pair(t *testing.T) (a, b *testnode.Node) {
	t.Helper()
	a, b, err := testnode.Pair(tool(t, "PEAT_NODE_BINARY"), t.TempDir(), nil, nil)
	must(t, err)
	t.Cleanup(a.Kill)
	t.Cleanup(b.Kill)
	return a, b
}

func connectNode(t *testing.T, node *testnode.Node) *peat.Client {
	t.Helper()
	client, err := peat.Connect(patient(t), node.Address())
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// process is a hub in a separate process.
type process struct {
	command *exec.Cmd
	said    *lockedBuffer
	ended   chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// hub starts one on the test's database.
func (w *world) hub(arguments ...string) *process {
	w.t.Helper()
	binary, err := hubBinary()
	must(w.t, err)
	p := &process{command: exec.Command(binary, append([]string{"--database", w.url}, arguments...)...), said: &lockedBuffer{},
		ended: make(chan error, 1)}
	p.command.Stderr = p.said
	must(w.t, p.command.Start())
	go func() { p.ended <- p.command.Wait() }()
	w.t.Cleanup(func() {
		p.kill()
		if w.t.Failed() {
			w.t.Logf("a hub said:\n%s", p.said.String())
		}
	})
	return p
}

func (p *process) kill() {
	if p.ended != nil {
		_ = p.command.Process.Kill()
		<-p.ended
		p.ended = nil
	}
}

// query gives one row; it dials each time, so it works across crashes of the server.
func (w *world) query(sql string, arguments []any, into ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, sql, arguments...).Scan(into...)
}

// get is one value of one row.
func get[T any](w *world, sql string, arguments ...any) T {
	w.t.Helper()
	var value T
	must(w.t, w.query(sql, arguments, &value))
	return value
}

// eventually waits until a query says true.
func (w *world) eventually(sql string, arguments ...any) {
	w.t.Helper()
	err := testnode.Eventually(patient(w.t), sql, func() (bool, error) {
		var holds bool
		err := w.query(sql, arguments, &holds)
		return holds, err
	})
	must(w.t, err)
}

// equalsNode waits until the tables hold exactly what the node holds, and then checks the history.
func (w *world) equalsNode(source string, client *peat.Client) {
	w.t.Helper()
	err := testnode.Eventually(patient(w.t), "the tables equal the node's documents", func() (bool, error) {
		differ, err := w.difference(source, client)
		if err == nil && differ != "" {
			err = fmt.Errorf("%s differs", differ)
		}
		return err == nil, err
	})
	must(w.t, err)
	w.checkHistory(source)
}

// difference names a document that the tables have otherwise than the node; empty if there is none.
func (w *world) difference(source string, client *peat.Client) (string, error) {
	ctx := patient(w.t)
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT collection || '/' || id, coalesce(original, document::text) FROM peat.documents WHERE source = $1", source)
	if err != nil {
		return "", err
	}
	held := map[string]string{}
	var key, text string
	if _, err := pgx.ForEachRow(rows, []any{&key, &text}, func() error { held[key] = text; return nil }); err != nil {
		return "", err
	}
	stream, cancel := context.WithCancel(ctx)
	defer cancel()
	for change, err := range client.Subscribe(stream, peat.WithSnapshot()) {
		if err != nil {
			return "", err
		}
		if change.Type == peat.ChangeSnapshotEnd {
			break
		}
		key := change.Collection + "/" + change.ID
		if !sameJSON([]byte(held[key]), change.JSON) {
			return key, nil
		}
		delete(held, key)
	}
	for key := range held {
		return key, nil
	}
	return "", nil
}

// checkHistory checks that changes are numbered without gaps and that the newest one of each document is what the tables hold.
func (w *world) checkHistory(source string) {
	w.t.Helper()
	if !get[bool](w, `SELECT coalesce(max(change), 0) = count(*) AND count(*) = (SELECT change FROM peat.sources s WHERE s.source = $1)
		FROM peat.history WHERE source = $1`, source) {
		w.t.Error("the numbers of history have gaps")
	}
	wrong := get[int](w, `WITH newest AS (SELECT DISTINCT ON (collection, id) * FROM peat.history WHERE source = $1
			ORDER BY collection, id, change DESC)
		SELECT count(*) FROM (SELECT * FROM newest WHERE kind = 'upsert') n
		FULL JOIN (SELECT * FROM peat.documents WHERE source = $1) d USING (collection, id)
		WHERE n.id IS NULL OR d.id IS NULL OR n.document <> d.document OR n.change <> d.change`, source)
	if wrong != 0 {
		w.t.Errorf("%d documents are not what their newest row of history says", wrong)
	}
}

func source(name string, nodes ...*testnode.Node) []string {
	var addresses []string
	for _, node := range nodes {
		addresses = append(addresses, node.Address())
	}
	return []string{"--source", name + "=" + strings.Join(addresses, ",")}
}
