package peat_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The import path names a Git repository and a folder in it (go.dev/ref/mod#vcs-find), so any clone serves the module.
func TestAnyCloneOfTheRepositoryServesTheModule(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	home := t.TempDir()
	clone, user := filepath.Join(home, "clone"), filepath.Join(home, "user")
	must(t, os.CopyFS(filepath.Join(clone, "ipc", "go"), os.DirFS(".")))
	for _, arguments := range [][]string{
		{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--message", "Release"}, {"tag", "ipc/go/v0.1.0"},
	} {
		run(t, clone, "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false",
			"-c", "tag.gpgsign=false"}, arguments...)...)
	}
	must(t, os.Mkdir(user, 0o700))
	write := func(name, text string) { must(t, os.WriteFile(filepath.Join(user, name), []byte(text), 0o600)) }
	write("go.mod", "module example.org/user\n\ngo 1.23\n")
	sums, err := os.ReadFile("go.sum")
	must(t, err)
	write("go.sum", string(sums))
	// As the README says, but with a clone on disk.
	for name, value := range map[string]string{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "url." + clone + ".insteadOf",
		"GIT_CONFIG_VALUE_0": "https://peat.internal/peat-node", "GOPRIVATE": "peat.internal", "GOFLAGS": "-mod=mod -modcacherw",
		"GOWORK": "off"} {
		t.Setenv(name, value)
	}
	downloads := strings.TrimSpace(run(t, home, "go", "env", "GOMODCACHE"))
	// The module cache is empty, so that a module of an earlier run is no answer; other modules come from the caller's cache.
	t.Setenv("GOPROXY", "file://"+filepath.Join(downloads, "cache", "download"))
	t.Setenv("GOMODCACHE", filepath.Join(home, "modules"))
	run(t, user, "go", "get", "peat.internal/peat-node.git/ipc/go@v0.1.0")
	if name := run(t, user, "go", "list", "-f", "{{.Name}}", "peat.internal/peat-node.git/ipc/go"); name != "peat\n" {
		t.Fatalf("the package has the name %q, want peat", name)
	}
}

func run(t *testing.T, directory, name string, arguments ...string) string {
	t.Helper()
	command := exec.Command(name, arguments...)
	command.Dir = directory
	var errors strings.Builder
	command.Stderr = &errors
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, arguments, err, errors.String())
	}
	return string(out)
}
