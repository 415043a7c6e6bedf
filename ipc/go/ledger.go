package peat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"peat.dev/peat/gen/agentpb"
)

const (
	ledgerName = "commands.ledger"
	// ledgerSlack is what may be appended beyond the size after the last compaction before the next.
	ledgerSlack = 1 << 20
	// rememberedIDs of commands that are over are kept, the newest ones.
	rememberedIDs = 10_000
	// rememberedWork is how many results Once keeps for commands that were interrupted.
	rememberedWork = 256
)

// ledgerKind is what a line of the ledger says of a command, or of work done once.
type ledgerKind string

const (
	ledgerOwner    ledgerKind = "owner"    // whose ledger this is; the first line
	ledgerAccepted ledgerKind = "accepted" // the node is told so; the work has not begun
	ledgerStarted  ledgerKind = "started"  // the work may have had effects from here on
	ledgerDone     ledgerKind = "done"     // it is over; the node may not know
	ledgerSettled  ledgerKind = "settled"  // the node knows; without a stage: it never began, and may come again
	ledgerWork     ledgerKind = "work"     // the result of work done once
	ledgerForget   ledgerKind = "forget"   // that result is not to be used again
)

// ledgerLine is one line: JSON behind its CRC-32 in hex.
type ledgerLine struct {
	Kind    ledgerKind                  `json:"kind"`
	ID      string                      `json:"id"`
	Command []byte                      `json:"command,omitempty"` // CommandPush.Command, of accepted
	Stage   agentpb.CommandUpdate_Stage `json:"stage,omitempty"`   // of done and settled
	Result  string                      `json:"result,omitempty"`
	Error   string                      `json:"error,omitempty"`
	Seconds int64                       `json:"at,omitempty"` // Unix, of work
}

// ledger remembers, across restarts, which commands were accepted, begun and finished, so that none is run twice. What is
// appended is on disk before append returns. Without a directory it remembers for as long as the process lives.
//
// One agent owns a ledger; its methods are called under that agent's mutex.
type ledger struct {
	dir       string
	owner     string
	lock      *os.File
	file      *os.File
	size      int64
	compactAt int64
	broken    error

	open    map[string]*ledgerLine // accepted, started or done, with the command of accepted
	settled map[string]agentpb.CommandUpdate_Stage
	order   []string               // of settled, oldest first
	work    map[string]*ledgerLine // by content key
	worked  []string               // of work, oldest first
}

func openLedger(dir, owner string) (*ledger, error) {
	l := &ledger{dir: dir, owner: owner, open: map[string]*ledgerLine{}, work: map[string]*ledgerLine{},
		settled: map[string]agentpb.CommandUpdate_Stage{}}
	if dir == "" {
		return l, nil
	}
	if err := l.openFiles(); err != nil {
		l.close()
		return nil, fmt.Errorf("the record of commands in %s: %w", dir, err)
	}
	return l, nil
}

func (l *ledger) openFiles() error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	lock, err := lockFile(filepath.Join(l.dir, ledgerName+".lock"))
	if err != nil {
		return err
	}
	l.lock = lock
	if err := l.load(); err != nil {
		return err
	}
	return l.compact()
}

func (l *ledger) close() {
	if l.file != nil {
		l.file.Close()
	}
	if l.lock != nil {
		l.lock.Close()
	}
	l.broken = ErrClosed
}

// load reads what is there. An incomplete end was never confirmed to anybody; anything else that cannot be read is an
// error, since to forget a command is to run it again.
func (l *ledger) load() error {
	text, err := os.ReadFile(filepath.Join(l.dir, ledgerName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	reader := bufio.NewReader(bytes.NewReader(text))
	for number := 1; ; number++ {
		text, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		line, err := parseLine(text)
		if err != nil {
			return fmt.Errorf("line %d is damaged: %w", number, err)
		}
		if number == 1 && (line.Kind != ledgerOwner || line.ID != l.owner) {
			return fmt.Errorf("it belongs to agent %q, not %q", line.ID, l.owner)
		}
		l.note(line)
	}
}

func parseLine(text []byte) (*ledgerLine, error) {
	sum, body, found := bytes.Cut(bytes.TrimSuffix(text, []byte("\n")), []byte(" "))
	if !found {
		return nil, errors.New("it has no checksum")
	}
	expected, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(expected) != crc32.ChecksumIEEE(body) {
		return nil, errors.New("its checksum is another")
	}
	line := new(ledgerLine)
	return line, json.Unmarshal(body, line)
}

func encodeLine(line *ledgerLine) ([]byte, error) {
	body, err := json.Marshal(line)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(body), body), nil
}

// note follows one line.
func (l *ledger) note(line *ledgerLine) {
	switch line.Kind {
	case ledgerAccepted, ledgerStarted, ledgerDone:
		if before := l.open[line.ID]; before != nil && line.Command == nil {
			line.Command = before.Command
		}
		if line.Kind == ledgerDone {
			line.Command = nil
		}
		l.open[line.ID] = line
	case ledgerSettled:
		delete(l.open, line.ID)
		if line.Stage == agentpb.CommandUpdate_STAGE_UNSPECIFIED {
			return
		}
		if _, known := l.settled[line.ID]; !known {
			l.order = append(l.order, line.ID)
		}
		l.settled[line.ID] = line.Stage
		for len(l.order) > rememberedIDs {
			delete(l.settled, l.order[0])
			l.order = l.order[1:]
		}
	case ledgerWork:
		l.forgetWork(line.ID)
		l.work[line.ID] = line
		l.worked = append(l.worked, line.ID)
		for len(l.worked) > rememberedWork {
			l.forgetWork(l.worked[0])
		}
	case ledgerForget:
		l.forgetWork(line.ID)
	}
}

func (l *ledger) forgetWork(key string) {
	if _, known := l.work[key]; known {
		delete(l.work, key)
		l.worked = slices.DeleteFunc(l.worked, func(other string) bool { return other == key })
	}
}

// append notes lines and has them on disk before it returns.
func (l *ledger) append(lines ...*ledgerLine) error {
	if l.broken != nil {
		return l.broken
	}
	var text []byte
	for _, line := range lines {
		encoded, err := encodeLine(line)
		if err != nil {
			return err
		}
		text = append(text, encoded...)
	}
	if l.file != nil {
		if err := l.write(text); err != nil {
			return fmt.Errorf("the record of commands in %s: %w", l.dir, err)
		}
	}
	for _, line := range lines {
		l.note(line)
	}
	if l.file != nil && l.size > l.compactAt {
		return l.compact()
	}
	return nil
}

// write appends all or nothing; a file that could not be put back as it was is not written to again.
func (l *ledger) write(text []byte) error {
	_, err := l.file.Write(text)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		if undone := l.file.Truncate(l.size); undone != nil {
			l.broken = errors.Join(err, undone)
		}
		return err
	}
	l.size += int64(len(text))
	return nil
}

// compact replaces the file by one that says only what still matters.
func (l *ledger) compact() error {
	path := filepath.Join(l.dir, ledgerName)
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := l.writeAll(file)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDirectory(l.dir)
	}
	if err != nil {
		file.Close()
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size, l.compactAt = file, size, 2*size+ledgerSlack
	return nil
}

func (l *ledger) writeAll(file io.Writer) (int64, error) {
	lines := []*ledgerLine{{Kind: ledgerOwner, ID: l.owner}}
	for _, id := range l.order {
		lines = append(lines, &ledgerLine{Kind: ledgerSettled, ID: id, Stage: l.settled[id]})
	}
	lines = append(lines, sorted(l.open)...)
	for _, key := range l.worked {
		lines = append(lines, l.work[key])
	}
	writer := bufio.NewWriter(file)
	var size int64
	for _, line := range lines {
		encoded, err := encodeLine(line)
		if err != nil {
			return 0, err
		}
		size += int64(len(encoded))
		// Kept by the writer until Flush.
		_, _ = writer.Write(encoded)
	}
	return size, writer.Flush()
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}
