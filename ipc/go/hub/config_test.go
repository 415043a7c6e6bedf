package hub

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Other collections than before are taken up by a snapshot; what is no longer followed stays as it was.
func TestOtherCollectionsAreTakenUpByASnapshot(t *testing.T) {
	w := newWorld(t)
	node, client := startNode(t)
	put(t, client, "notes", "n", `{}`)
	put(t, client, "tracks", "t", `{"n":1}`)
	const held = "SELECT coalesce(string_agg(id || document, ' ' ORDER BY id), '') FROM peat.documents"
	hub := w.hub(append(source("fleet", node), "--collection", "notes")...)
	w.eventually("SELECT count(*) = 1 FROM peat.documents")
	put(t, client, "tracks", "t", `{"n":2}`)
	put(t, client, "notes", "m", `{}`)
	w.eventually("SELECT count(*) = 2 FROM peat.documents")
	if shown := get[string](w, held); shown != "m{} n{}" {
		t.Errorf("of notes: %s", shown)
	}
	hub.kill()
	hub = w.hub(append(source("fleet", node), "--collection", "tracks")...)
	w.eventually("SELECT count(*) = 3 FROM peat.documents")
	if shown := get[string](w, held); shown != `m{} n{} t{"n": 2}` {
		t.Errorf("of tracks then: %s", shown)
	}
	hub.kill()
	must(t, client.Delete(patient(t), "notes", "n"))
	w.hub(source("fleet", node)...)
	w.equalsNode("fleet", client)
}

// What cannot work ends the program with its reason; a database that is away does not.
func TestTheProgramEndsWithItsReason(t *testing.T) {
	w := newWorld(t)
	binary, err := hubBinary()
	must(t, err)
	for words, arguments := range map[string][]string{
		"78 cannot parse":         {"--database", "postgres://h:port/x", "--source", "s=unix:///run/x"},
		"78 does not exist":       {"--database", strings.Replace(w.url, "///t", "///none", 1), "--source", "s=unix:///run/x"},
		"78 not an address":       {"--database", w.url, "--source", "s=run/x"},
		"78 no source":            {"--database", w.url},
		"2 has no NAME=ADDRESS":   {"--database", w.url, "--source", "unix:///run/x"},
		"2 flag provided but not": {"--database", w.url, "--unknown"},
	} {
		code, reason, _ := strings.Cut(words, " ")
		out, err := exec.Command(binary, arguments...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.String() != "exit status "+code || !strings.Contains(string(out), reason) {
			t.Errorf("%q: %v: %s", arguments, err, out)
		}
	}
	away := &world{t, "postgres:///x?host=" + t.TempDir()}
	hub := away.hub("--source", "s=unix:///run/x")
	for end := time.Now().Add(patience); !strings.Contains(hub.said.String(), "cannot be used yet"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not say that the database is away")
		}
	}
	select {
	case err := <-hub.ended:
		t.Errorf("it ended: %v", err)
		hub.ended = nil
	default:
	}
}
