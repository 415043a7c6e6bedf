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

	"peat.internal/peat-node.git/ipc/go/gen/agentpb"
)

const (
	ledgerName = "commands.ledger"
	// ledgerSlack is the growth beyond twice the compacted size that starts the next compaction.
	ledgerSlack = 1 << 20
	// rememberedIDs is the number of ids of ended commands that are kept, the newest ones.
	rememberedIDs = 10_000
	// rememberedWork is the number of results that Once keeps for interrupted commands.
	rememberedWork = 256
)

// ledgerKind is the meaning of a line in the ledger.
type ledgerKind string

const (
	ledgerOwner    ledgerKind = "owner"    // the agent's id; the first line
	ledgerAccepted ledgerKind = "accepted" // accepted; the handler has not begun
	ledgerStarted  ledgerKind = "started"  // the handler may have had effects from here on
	ledgerDone     ledgerKind = "done"     // ended; the node may lack the end
	ledgerSettled  ledgerKind = "settled"  // the node has the end; without a stage: rejected before it began, so it may come again
	ledgerWork     ledgerKind = "work"     // the result of Once under a key
	ledgerForget   ledgerKind = "forget"   // that result is dropped
)

// ledgerLine is one line: JSON after its CRC-32 in hexadecimal.
type ledgerLine struct {
	Kind    ledgerKind                  `json:"kind"`
	ID      string                      `json:"id"`
	Command []byte                      `json:"command,omitempty"` // CommandPush.Command, of accepted
	Stage   agentpb.CommandUpdate_Stage `json:"stage,omitempty"`   // of done and settled
	Result  string                      `json:"result,omitempty"`
	Error   string                      `json:"error,omitempty"`
	Seconds int64                       `json:"at,omitempty"` // Unix, of work
}

// ledger records which commands were accepted, begun and ended, so that none runs twice. A line is on disk before append
// returns. Without a directory the record lasts as long as the process.
//
// One agent owns a ledger and calls its methods under its mutex.
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

// load reads the file. It ignores an incomplete last line, which append never confirmed. Any other unreadable line is an
// error, since a forgotten command would run again.
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
		return nil, errors.New("its checksum does not match")
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

// note applies one line.
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

// append writes lines to disk and applies them.
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

// write appends everything or nothing. It never writes again to a file that it could not truncate after a failure.
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

// compact replaces the file by one that has only the current lines.
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
		// Flush returns the writer's first error.
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
