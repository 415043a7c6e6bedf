package hub

import (
	"bytes"

	peat "peat.internal/peat-node.git/ipc/go"
)

// Escapes of U+0000 and U+FFFD in JSON text.
var (
	escapedNUL         = []byte(`\u0000`)
	escapedReplacement = []byte(`\ufffd`)
)

// forJSONB is a document's text for a jsonb column, and the original text if jsonb cannot hold that: jsonb has no U+0000.
func forJSONB(text []byte) (document string, original *string) {
	if !bytes.Contains(text, escapedNUL) {
		return string(text), nil
	}
	replaced := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		switch {
		case text[i] != '\\' || i+1 == len(text):
			replaced = append(replaced, text[i])
			i++
		case bytes.HasPrefix(text[i:], escapedNUL):
			replaced = append(replaced, escapedReplacement...)
			i += len(escapedNUL)
		default: // any other escape, an escaped backslash among them
			replaced = append(replaced, text[i], text[i+1])
			i += 2
		}
	}
	if bytes.Equal(replaced, text) {
		return string(text), nil
	}
	whole := string(text)
	return string(replaced), &whole
}

// columns are changes as arrays, one for each column of the statement that writes them.
type columns struct {
	collection, id, kind []string
	document, original   []*string
	origin               []string
	sequence             []int64
	certain              []bool
}

// columnsOf arranges changes of documents. A deletion is certain when the batch itself has brought the document; otherwise it
// counts only if the document is held.
func columnsOf(changes []*peat.Change) *columns {
	c := &columns{}
	type key struct{ collection, id string }
	live := make(map[key]bool, len(changes))
	for _, change := range changes {
		at := key{change.Collection, change.ID}
		held, seen := live[at]
		if seen && !held && change.Type == peat.ChangeDelete {
			continue
		}
		live[at] = change.Type == peat.ChangeUpsert
		c.certain = append(c.certain, held)
		c.add(change)
	}
	return c
}

func (c *columns) add(change *peat.Change) {
	kind, document, original := "delete", (*string)(nil), (*string)(nil)
	if change.Type == peat.ChangeUpsert {
		var text string
		text, original = forJSONB(change.JSON)
		kind, document = "upsert", &text
	}
	c.collection = append(c.collection, change.Collection)
	c.id = append(c.id, change.ID)
	c.kind = append(c.kind, kind)
	c.document = append(c.document, document)
	c.original = append(c.original, original)
	c.origin = append(c.origin, change.Origin)
	c.sequence = append(c.sequence, int64(change.Token.Sequence))
}
