package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// publishBatch is how many messages are on their way at once. A document has 1 MiB at most, so 64 MiB bound them.
	publishBatch = 64
	// publishPoll is how long a notification is waited for before history is read anyway.
	publishPoll = 5 * time.Second
	// duplicates is how long a stream that the hub creates remembers message ids.
	duplicates = 10 * time.Minute
	natsTime   = 10 * time.Second

	subjectBytes = 64
)

// Headers of a published message.
const (
	headerHub        = "Peat-Hub"
	headerSource     = "Peat-Source"
	headerCollection = "Peat-Collection"
	headerID         = "Peat-Id"
	headerKind       = "Peat-Kind"
	headerChange     = "Peat-Change"
	headerOrigin     = "Peat-Origin"
	headerTime       = "Peat-Recorded-At"
	// headerOmitted is set instead of a body that the server does not take; the document is in peat.history.
	headerOmitted = "Peat-Body-Omitted"
)

var (
	streamName  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	subjectName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
)

func (n *NATS) check() error {
	switch {
	case n.URL == "":
		return errors.New("no NATS server is named")
	case !streamName.MatchString(n.Stream):
		return fmt.Errorf("%q is no name of a stream; use 1 to 64 letters, digits, - and _", n.Stream)
	case !subjectName.MatchString(n.Subject) || len(n.Subject) > subjectBytes:
		return fmt.Errorf("%q is no prefix of subjects; use letters, digits, -, _ and dots, %d bytes at most", n.Subject, subjectBytes)
	}
	return nil
}

// publisher publishes the history of one source in its order. Message ids let the server drop what is published twice; at its
// start it also asks the stream for the newest message it has, so that nothing is repeated after the server has forgotten the ids.
type publisher struct {
	*hub
	source string
	log    *slog.Logger

	conn   *pgx.Conn
	hubID  string
	stream jetstream.JetStream
	most   int // bytes of a message
}

func (p *publisher) run(ctx context.Context, conn *pgx.Conn) error {
	p.conn = conn
	if _, err := execute(ctx, conn, "LISTEN peat_history"); err != nil {
		return err
	}
	if err := queryRow(ctx, conn, "SELECT hub::text FROM peat.identity", nil, &p.hubID); err != nil {
		return err
	}
	connection, err := nats.Connect(p.NATS.URL, nats.Name("peat-hub"), nats.Timeout(natsTime), nats.NoReconnect())
	if err != nil {
		return fmt.Errorf("NATS: %w", err)
	}
	defer connection.Close()
	p.most = int(connection.MaxPayload())
	if p.stream, err = jetstream.New(connection); err != nil {
		return err
	}
	change, err := p.position(ctx)
	if err != nil {
		return err
	}
	p.log.Info("history is published", "stream", p.NATS.Stream, "after", change)
	for {
		next, err := p.publish(ctx, change)
		if err != nil {
			return err
		}
		if next == change {
			if err := awaitNotification(ctx, conn, p.source, publishPoll); err != nil {
				return err
			}
		}
		change = next
	}
}

// position is the newest change that was published: the later one of what the database and what the stream knows.
func (p *publisher) position(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, natsTime)
	defer cancel()
	stream, err := p.stream.Stream(ctx, p.NATS.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = p.stream.CreateStream(ctx, jetstream.StreamConfig{Name: p.NATS.Stream, Storage: jetstream.FileStorage,
			Subjects: []string{p.NATS.Subject + ".>"}, Duplicates: duplicates, Description: "changes of peat fleets"})
	}
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", p.NATS.Stream, err)
	}
	var known int64
	err = queryRow(ctx, p.conn, `INSERT INTO peat.publishers AS p (source, stream) VALUES ($1, $2)
		ON CONFLICT (source, stream) DO UPDATE SET change = p.change RETURNING change`, []any{p.source, p.NATS.Stream}, &known)
	if err != nil {
		return 0, err
	}
	last, err := stream.GetLastMsgForSubject(ctx, p.NATS.Subject+"."+token(p.source)+".>")
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return known, nil
	case err != nil:
		return 0, err
	case last.Header.Get(headerHub) != p.hubID:
		return known, nil
	}
	published, err := strconv.ParseInt(last.Header.Get(headerChange), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the newest message of stream %s: %w", p.NATS.Stream, err)
	}
	if same, err := p.isRow(ctx, published, last.Header); err != nil || same {
		return max(known, published), err
	}
	p.log.Warn("the stream has changes that this database does not have: it was restored, and publishes under a new identity",
		"stream", p.NATS.Stream, "change", published)
	return known, queryRow(ctx, p.conn, "UPDATE peat.identity SET hub = gen_random_uuid() RETURNING hub::text", nil, &p.hubID)
}

// isRow says whether a published change is the row of history with its number. After a backup of the database was restored,
// numbers are given a second time.
func (p *publisher) isRow(ctx context.Context, change int64, header nats.Header) (bool, error) {
	var newest int64
	var recordedAt *time.Time
	err := queryRow(ctx, p.conn, `SELECT s.change, h.recorded_at FROM peat.sources s
		LEFT JOIN peat.history h ON h.source = s.source AND h.change = $2 WHERE s.source = $1`, []any{p.source, change}, &newest, &recordedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil || change > newest {
		return false, err
	}
	// A row that is no longer there was removed by its age.
	return recordedAt == nil || timeText(*recordedAt) == header.Get(headerTime), nil
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// recorded is a row of history.
type recorded struct {
	Change                       int64
	Collection, ID, Kind, Origin string
	JSON                         *string // NULL for a deletion, and for more bytes than the server takes
	Bytes                        int
	RecordedAt                   time.Time
}

// publish sends the next rows after a change and returns the newest one that the stream has confirmed.
func (p *publisher) publish(ctx context.Context, after int64) (int64, error) {
	limit, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	rows, err := p.conn.Query(limit, `SELECT change, collection, id, kind, origin,
			CASE WHEN octet_length(body) <= $4 THEN body END, coalesce(octet_length(body), 0), recorded_at
		FROM (SELECT *, coalesce(original, document::text) AS body FROM peat.history WHERE source = $1 AND change > $2
			ORDER BY change LIMIT $3) h ORDER BY change`, p.source, after, publishBatch, p.most)
	if err != nil {
		return after, err
	}
	batch, err := pgx.CollectRows(rows, pgx.RowToStructByPos[recorded])
	if err != nil || len(batch) == 0 {
		return after, err
	}
	var acks []jetstream.PubAckFuture
	for i := range batch {
		ack, err := p.stream.PublishMsgAsync(p.message(&batch[i]), jetstream.WithExpectStream(p.NATS.Stream))
		if err != nil {
			return after, err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return after, fmt.Errorf("publishing to stream %s: %w", p.NATS.Stream, err)
		case <-limit.Done():
			return after, fmt.Errorf("stream %s does not confirm: %w", p.NATS.Stream, limit.Err())
		}
	}
	last := batch[len(batch)-1].Change
	_, err = execute(ctx, p.conn, "UPDATE peat.publishers SET change = $3 WHERE source = $1 AND stream = $2", p.source, p.NATS.Stream, last)
	return last, err
}

// message is a row as it is published: the document is the body, everything else is in headers.
func (p *publisher) message(row *recorded) *nats.Msg {
	change := strconv.FormatInt(row.Change, 10)
	message := nats.NewMsg(strings.Join([]string{p.NATS.Subject, token(p.source), token(row.Collection), token(row.ID)}, "."))
	for name, value := range map[string]string{headerHub: p.hubID, headerSource: p.source, headerCollection: row.Collection,
		headerID: row.ID, headerKind: row.Kind, headerChange: change, headerOrigin: row.Origin,
		headerTime:            timeText(row.RecordedAt),
		jetstream.MsgIDHeader: p.hubID + "/" + p.source + "/" + change} {
		message.Header.Set(name, value)
	}
	if row.JSON != nil {
		message.Data = []byte(*row.JSON)
	}
	if row.Bytes > 0 && (row.JSON == nil || message.Size()-len(message.Subject) > p.most) {
		message.Data = nil
		message.Header.Set(headerOmitted, strconv.Itoa(row.Bytes))
	}
	return message
}

// token is text as one token of a subject: letters, digits, - and _ as they are, other bytes as %XX.
func token(text string) string {
	var encoded strings.Builder
	for _, b := range []byte(text) {
		if b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_' {
			encoded.WriteByte(b)
		} else {
			fmt.Fprintf(&encoded, "%%%02X", b)
		}
	}
	return encoded.String()
}
