package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"peat.internal/peat-node.git/ipc/go/hub"
)

func none(string) string { return "" }

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{"PEAT_HUB_DATABASE": "postgres:///other", "PEAT_HUB_SOURCES": "a=unix:///a  b=tcp://h:1,unix:///b",
		"PEAT_HUB_TOKEN_FILE": token, "PEAT_HUB_NATS": "nats://n", "PEAT_HUB_KEEP_HISTORY": "72h", "PEAT_HUB_COLLECTIONS": "notes"}
	config, err := parse([]string{"--database", "postgres:///given", "--subject=fleet.peat"}, func(name string) string { return environment[name] })
	if err != nil {
		t.Fatal(err)
	}
	expected := &hub.Config{Database: "postgres:///given", KeepHistory: 72 * time.Hour,
		NATS: &hub.NATS{URL: "nats://n", Stream: "peat", Subject: "fleet.peat"},
		Sources: []hub.Source{{Name: "a", Addresses: []string{"unix:///a"}, Token: "secret", Collections: []string{"notes"}},
			{Name: "b", Addresses: []string{"tcp://h:1", "unix:///b"}, Token: "secret", Collections: []string{"notes"}}}}
	if !reflect.DeepEqual(config, expected) {
		t.Errorf("%+v", config)
	}
}

func TestWhatIsNoSettingIsRefused(t *testing.T) {
	for _, arguments := range [][]string{{"--source", "unix:///a"}, {"--keep-history", "3 days"}, {"--keep-history", "-1h"}, {"word"},
		{"--token-file", "/does/not/exist"}, {"--unknown"}} {
		if config, err := parse(arguments, none); err == nil {
			t.Errorf("%q is taken as %+v", arguments, config)
		}
	}
}
