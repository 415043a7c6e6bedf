package peat

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protodelim"

	"peat.internal/peat-node.git/ipc/go/internal/ipcpb"
)

var (
	example  = regexp.MustCompile("(?ms)^```hex (client-[a-z-]+)\n(.*?)^```")
	repeated = regexp.MustCompile(`^([0-9a-f]{2})\*(\d+)$`)
)

// examples are the frames that docs/wire.md shows, by name.
func examples(t *testing.T) map[string][]byte {
	t.Helper()
	page, err := os.ReadFile("../../docs/wire.md")
	must(t, err)
	found := map[string][]byte{}
	for _, match := range example.FindAllStringSubmatch(string(page), -1) {
		for _, line := range strings.Split(match[2], "\n") {
			code, _, _ := strings.Cut(line, ";")
			for _, word := range strings.Fields(code) {
				if times := repeated.FindStringSubmatch(word); times != nil {
					count, err := strconv.Atoi(times[2])
					must(t, err)
					word = strings.Repeat(times[1], count)
				}
				part, err := hex.DecodeString(word)
				must(t, err)
				found[match[1]] = append(found[match[1]], part...)
			}
		}
	}
	return found
}

func TestTheFramesOfTheWirePageAreReadAndWrittenByteByByte(t *testing.T) {
	frames := examples(t)
	if len(frames) < 8 {
		t.Fatalf("only %d examples found", len(frames))
	}
	for name, text := range frames {
		text = bytes.TrimPrefix(text, []byte(preface))
		reader, out := bufio.NewReader(bytes.NewReader(text)), newOutbox()
		for {
			frame := new(ipcpb.Frame)
			err := protodelim.UnmarshalFrom(reader, frame)
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			out.force(frame)
		}
		if written := out.take(); !bytes.Equal(text, written) {
			t.Errorf("%s: %x is written %x", name, text, written)
		}
	}
}

func TestMethodsAreThoseOfTheServiceDefinitionsInTheirOrder(t *testing.T) {
	rpc := regexp.MustCompile(`(?m)^  rpc (\w+)\(`)
	number := 0
	for _, file := range []string{"sidecar/v1/sidecar", "agent/v1/agent"} {
		definition, err := os.ReadFile("../../proto/peat/" + file + ".proto")
		must(t, err)
		for _, match := range rpc.FindAllStringSubmatch(string(definition), -1) {
			number++
			if name := methodNumber(number).String(); strings.TrimPrefix(name, "AgentLink.") != match[1] {
				t.Errorf("method %d is %s, not %s", number, match[1], name)
			}
		}
	}
	if number != int(methodConnect) {
		t.Errorf("%d methods, not %d", number, methodConnect)
	}
}
