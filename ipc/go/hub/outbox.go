package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	peat "peat.internal/peat-node.git/ipc/go"
)

const (
	// outboxBatch is how many rows are sent between two writes of what became of them.
	outboxBatch = 64
	// outboxPoll is how long a notification is waited for before the table is read anyway.
	outboxPoll = 5 * time.Second
	// outboxRefusals ends the attempts of a row that the node refuses for a reason that may pass.
	outboxRefusals = 20
	// callTime bounds one call to the node.
	callTime = 10 * time.Second
)

// sender sends the rows of one source's outbox, in the order of their ids. A row that was sent and not noted, because this
// process or its database ended, is sent again with the same content, which the node recognises.
type sender struct {
	*hub
	source Source
	log    *slog.Logger

	conn   *pgx.Conn
	client *peat.Client
	tried  int // addresses that were left
}

// order is a pending row.
type order struct {
	ID                 int64
	Action             string
	Collection, DocID  string
	Document           *string
	Agent, Group       *string
	Everyone           bool
	Type, Payload      *string
	Attempts, Refusals int
	IssuedAt, ExpireAt *int64
	Base               []byte
}

// outcome is what became of an attempt. Without an error and without a pause the row is sent.
type outcome struct {
	id    int64
	state string
	err   string
	pause float64 // seconds
}

func (s *sender) run(ctx context.Context, conn *pgx.Conn) error {
	s.conn = conn
	defer s.hangUp()
	if _, err := execute(ctx, conn, "LISTEN peat_outbox"); err != nil {
		return err
	}
	var pause backoff
	for {
		orders, err := s.due(ctx)
		if err != nil {
			return err
		}
		away, err := s.send(ctx, orders)
		if err != nil {
			return err
		}
		switch {
		case away != nil:
			s.log.Warn("the node takes no orders now", "error", away)
			s.hangUp()
			s.tried++
			if !pause.wait(ctx) {
				return ctx.Err()
			}
		case len(orders) == 0:
			pause.reset()
			if err := s.await(ctx); err != nil {
				return err
			}
		default:
			pause.reset()
		}
	}
}

func (s *sender) hangUp() {
	if s.client != nil {
		// The next order dials again.
		_ = s.client.Close()
		s.client = nil
	}
}

// due gives the next rows to send and fixes what each attempt must send alike. A row waits for an earlier one for the same
// document that is to be tried again.
func (s *sender) due(ctx context.Context) ([]order, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	rows, err := s.conn.Query(ctx, `WITH due AS (
		SELECT id FROM peat.outbox o WHERE source = $1 AND state = 'pending' AND due_at <= now() AND NOT EXISTS (
			SELECT FROM peat.outbox e WHERE e.source = o.source AND e.collection = o.collection AND e.doc_id = o.doc_id
			AND e.state = 'pending' AND e.id < o.id AND e.due_at > now())
		ORDER BY id LIMIT $2
	), sent AS (
		UPDATE peat.outbox o SET attempts = attempts + 1,
			issued_at = coalesce(issued_at, floor(extract(epoch FROM now()))::bigint),
			expires_at = coalesce(expires_at, CASE WHEN ttl_s > 0 THEN ceil(extract(epoch FROM created_at))::bigint + ttl_s ELSE 0 END)
		FROM due WHERE o.id = due.id
		RETURNING o.id, action, collection, doc_id, document::text, agent, "group", everyone, command_type, payload::text,
			attempts, refusals, issued_at, expires_at, base
	) SELECT * FROM sent ORDER BY id`, s.source.Name, outboxBatch)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[order])
}

// send sends rows until the node goes away, and notes what became of them. away is why the rest was not sent.
func (s *sender) send(ctx context.Context, orders []order) (away, err error) {
	type key struct{ collection, id string }
	var outcomes []outcome
	waiting := map[key]bool{} // a row for this document is to be tried again
	for i := range orders {
		document := key{orders[i].Collection, orders[i].DocID}
		if waiting[document] {
			continue
		}
		refused, failed := s.attempt(ctx, &orders[i])
		if failed != nil {
			return nil, failed
		}
		if refused != nil && unreachable(refused) {
			away = refused
			break
		}
		result := judge(&orders[i], refused)
		waiting[document] = result.state == "pending"
		outcomes = append(outcomes, result)
	}
	return away, s.note(ctx, outcomes)
}

// judge decides what an answer of the node means for a row.
func judge(o *order, refused error) outcome {
	switch code := peat.CodeOf(refused); {
	case refused == nil:
		return outcome{id: o.ID, state: "sent"}
	case (code == peat.ResourceExhausted || code == peat.Internal || code == peat.DataLoss || code == peat.Aborted) &&
		o.Refusals+1 < outboxRefusals:
		return outcome{id: o.ID, state: "pending", err: refused.Error(), pause: float64(int(1) << min(o.Refusals, 6))}
	}
	return outcome{id: o.ID, state: "failed", err: refused.Error()}
}

// unreachable says whether an error concerns the node and not the order.
func unreachable(err error) bool {
	switch peat.CodeOf(err) {
	case peat.Unavailable, peat.DeadlineExceeded, peat.Canceled, peat.Unauthenticated:
		return true
	}
	return errors.Is(err, peat.ErrConnectionLost)
}

func (s *sender) note(ctx context.Context, outcomes []outcome) error {
	if len(outcomes) == 0 {
		return nil
	}
	var ids []int64
	var states, reasons []string
	var pauses []float64
	for _, o := range outcomes {
		ids, states, reasons, pauses = append(ids, o.id), append(states, o.state), append(reasons, o.err), append(pauses, o.pause)
	}
	_, err := execute(ctx, s.conn, `UPDATE peat.outbox o SET state = n.state, error = nullif(n.error, ''),
			refusals = refusals + (n.state = 'pending')::int, due_at = now() + make_interval(secs => n.pause), sent_at = CASE WHEN n.state = 'sent' THEN now() END
		FROM unnest($1::bigint[], $2::text[], $3::text[], $4::double precision[]) AS n (id, state, error, pause) WHERE o.id = n.id`,
		ids, states, reasons, pauses)
	return err
}

// attempt sends one row. refused is the node's answer, failed an error of the database.
func (s *sender) attempt(ctx context.Context, o *order) (refused, failed error) {
	client, err := s.node(ctx)
	if err != nil {
		return err, nil
	}
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	switch o.Action {
	case "command":
		return s.command(call, client, o), nil
	case "cancel":
		_, err := client.CancelCommand(call, o.DocID)
		return err, nil
	case "delete":
		return client.Delete(call, o.Collection, o.DocID), nil
	}
	return s.document(call, client, o)
}

// node is the connection to the first address that answers.
func (s *sender) node(ctx context.Context) (*peat.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	address := s.source.Addresses[s.tried%len(s.source.Addresses)]
	client, err := dial(ctx, address, s.source.Token)
	if err != nil {
		return nil, &peat.Error{Code: peat.Unavailable, Message: fmt.Sprintf("%s: %v", address, err)}
	}
	s.client = client
	return client, nil
}

// command issues a command. Its id makes a repetition harmless.
func (s *sender) command(ctx context.Context, client *peat.Client, o *order) error {
	if *o.ExpireAt != 0 && *o.ExpireAt <= *o.IssuedAt {
		return &peat.Error{Code: peat.FailedPrecondition, Message: "the command expired before a node could be reached"}
	}
	return client.PutCommand(ctx, &peat.CommandRecord{Id: o.DocID, TargetId: text(o.Agent), Group: text(o.Group), All: o.Everyone,
		CommandType: text(o.Type), PayloadJson: text(o.Payload), CreatedAt: *o.IssuedAt, ExpiresAt: *o.ExpireAt})
}

// document puts or patches a document against the version that was current before the first attempt, so that the node
// recognises a repetition. Without such a version (the document is new) a repetition writes the same content again.
func (s *sender) document(ctx context.Context, client *peat.Client, o *order) (refused, failed error) {
	if o.Base == nil {
		held, err := client.Get(ctx, o.Collection, o.DocID)
		switch {
		case err == nil && o.Attempts > 1 && o.Action == "put" && sameJSON(held.JSON, []byte(*o.Document)):
			return nil, nil
		case err == nil:
			if o.Base, failed = held.Version, s.fixBase(ctx, o.ID, held.Version); failed != nil {
				return nil, failed
			}
		case !errors.Is(err, peat.NotFound):
			return err, nil
		}
	}
	refused = s.write(ctx, client, o)
	if o.Base == nil || !errors.Is(refused, peat.Aborted) && !errors.Is(refused, peat.FailedPrecondition) {
		return refused, nil
	}
	// The base is superseded or unknown to this node: an earlier attempt may have written, or another writer has.
	return s.rebase(ctx, client, o, refused)
}

func (s *sender) write(ctx context.Context, client *peat.Client, o *order) error {
	var options []peat.WriteOption
	if o.Base != nil {
		options = append(options, peat.WithBase(o.Base))
	}
	var err error
	if options = append(options, peat.WithDurable()); o.Action == "patch" {
		_, err = client.Patch(ctx, o.Collection, o.DocID, *o.Document, options...)
	} else {
		_, err = client.Put(ctx, o.Collection, o.DocID, *o.Document, options...)
	}
	return err
}

// rebase forgets the base, so that the next attempt takes the version that is current then.
func (s *sender) rebase(ctx context.Context, client *peat.Client, o *order, refused error) (error, error) {
	held, err := client.Get(ctx, o.Collection, o.DocID)
	if err == nil && o.Action == "put" && sameJSON(held.JSON, []byte(*o.Document)) {
		return nil, nil
	}
	if err := s.fixBase(ctx, o.ID, nil); err != nil {
		return nil, err
	}
	return &peat.Error{Code: peat.Aborted, Message: refused.Error()}, nil
}

func (s *sender) fixBase(ctx context.Context, id int64, base []byte) error {
	_, err := execute(context.WithoutCancel(ctx), s.conn, "UPDATE peat.outbox SET base = $2 WHERE id = $1", id, base)
	return err
}

// await waits for a notification, the next row that becomes due, or the poll.
func (s *sender) await(ctx context.Context) error {
	var pause float64
	err := queryRow(ctx, s.conn, `SELECT coalesce(greatest(extract(epoch FROM min(due_at) - now()), 0.01), $2::double precision)::double precision
		FROM peat.outbox o WHERE source = $1 AND state = 'pending' AND NOT EXISTS (
			SELECT FROM peat.outbox e WHERE e.source = o.source AND e.collection = o.collection AND e.doc_id = o.doc_id
			AND e.state = 'pending' AND e.id < o.id AND e.due_at > o.due_at)`, []any{s.source.Name, outboxPoll.Seconds()}, &pause)
	if err != nil {
		return err
	}
	most := min(outboxPoll, time.Duration(pause*float64(time.Second)))
	return awaitNotification(ctx, s.conn, s.source.Name, most)
}

// awaitNotification waits for a notification with this payload, or until most has passed.
func awaitNotification(ctx context.Context, conn *pgx.Conn, payload string, most time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		notification, err := conn.WaitForNotification(wait)
		switch {
		case err == nil && notification.Payload == payload:
			return nil
		case err == nil:
		case wait.Err() != nil && ctx.Err() == nil && !conn.IsClosed():
			return nil
		default:
			return err
		}
	}
}

func text(value *string) string {
	if value == nil {
		return ""
	}
	return *value
}

// sameJSON compares JSON texts by value.
func sameJSON(a, b []byte) bool {
	var values [2]any
	for i, text := range [][]byte{a, b} {
		decoder := json.NewDecoder(strings.NewReader(string(text)))
		if decoder.Decode(&values[i]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}
