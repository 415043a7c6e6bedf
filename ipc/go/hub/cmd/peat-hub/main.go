// Command peat-hub copies the state of peat fleets into PostgreSQL and issues commands and documents from there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"peat.internal/peat-node.git/ipc/go/hub"
)

// Exit codes.
const (
	exitUsage         = 2
	exitConfiguration = 78
)

func main() {
	config, err := parse(os.Args[1:], os.Getenv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "peat-hub:", err)
		os.Exit(exitUsage)
	}
	config.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := hub.Run(ctx, *config); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "peat-hub:", err)
		stop()
		os.Exit(exitConfiguration)
	}
}

// list collects a flag that is given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// parse reads flags, and environment variables for those that are not given.
func parse(arguments []string, environment func(string) string) (*hub.Config, error) {
	flags := flag.NewFlagSet("peat-hub", flag.ContinueOnError)
	var sources, collections list
	database := flags.String("database", "", "`URL` of PostgreSQL, postgres://USER@HOST/NAME (PEAT_HUB_DATABASE)")
	flags.Var(&sources, "source", "`NAME=ADDRESS[,ADDRESS]`: a fleet and the nodes to follow it through; repeatable (PEAT_HUB_SOURCES, separated by blanks)")
	flags.Var(&collections, "collection", "follow only this `collection`; repeatable (PEAT_HUB_COLLECTIONS)")
	tokenFile := flags.String("token-file", "", "`file` with the token of the nodes' TCP listeners (PEAT_HUB_TOKEN_FILE)")
	server := flags.String("nats", "", "`URL` of a NATS server that history is published to (PEAT_HUB_NATS)")
	stream := flags.String("stream", "peat", "`name` of the JetStream stream (PEAT_HUB_STREAM)")
	subject := flags.String("subject", "peat", "`prefix` of the subjects (PEAT_HUB_SUBJECT)")
	keep := flags.String("keep-history", "", "remove history and ended rows of the outbox that are older than this `duration`, 720h for example (PEAT_HUB_KEEP_HISTORY)")
	flags.Usage = func() { usage(flags) }
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, into := range map[string]*string{"database": database, "token-file": tokenFile, "nats": server, "stream": stream,
		"subject": subject, "keep-history": keep} {
		if value := environment(variable(name)); value != "" && !given[name] {
			*into = value
		}
	}
	if !given["source"] {
		sources = strings.Fields(environment("PEAT_HUB_SOURCES"))
	}
	if !given["collection"] {
		collections = strings.Fields(environment("PEAT_HUB_COLLECTIONS"))
	}
	config := &hub.Config{Database: *database}
	if *server != "" {
		config.NATS = &hub.NATS{URL: *server, Stream: *stream, Subject: *subject}
	}
	if *keep != "" {
		var err error
		if config.KeepHistory, err = time.ParseDuration(*keep); err != nil || config.KeepHistory <= 0 {
			return nil, fmt.Errorf("--keep-history %q is no positive duration, 720h for example", *keep)
		}
	}
	token, err := readToken(*tokenFile)
	if err != nil {
		return nil, err
	}
	for _, text := range sources {
		name, addresses, found := strings.Cut(text, "=")
		if !found {
			return nil, fmt.Errorf("--source %q has no NAME=ADDRESS", text)
		}
		config.Sources = append(config.Sources, hub.Source{Name: name, Addresses: strings.Split(addresses, ","), Token: token,
			Collections: collections})
	}
	return config, nil
}

func variable(flag string) string {
	return "PEAT_HUB_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func usage(flags *flag.FlagSet) {
	write := flags.Output()
	// An error of standard error has no reader.
	_, _ = io.WriteString(write, "usage: peat-hub --database URL --source NAME=ADDRESS [--source …] [--nats URL]\n\n")
	flags.PrintDefaults()
}
