package chmodel

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

type quarantineColumns struct {
	account, id, kind, subject, reason   text
	stream, state, codeVersion           lowCardinality
	pos, events, behind, decision, turns proto.ColUInt64
	received, aside                      proto.ColInt64
	frame                                proto.ColBool
	attempts                             proto.ColUInt32
}

func newQuarantineColumns() *quarantineColumns {
	return &quarantineColumns{stream: newLowCardinality(), state: newLowCardinality(), codeVersion: newLowCardinality()}
}

func (c *quarantineColumns) append(r *readmodel.QuarantineRow) {
	c.stream.Append(r.Position.Stream)
	c.pos.Append(uint64(r.Position.Offset))
	c.account.Append(r.Account)
	c.id.Append(r.ID)
	c.kind.Append(string(r.Type))
	c.subject.Append(r.Subject)
	c.received.Append(r.ReceivedAt.UnixMilli())
	c.frame.Append(r.Frame)
	c.events.Append(r.Events)
	c.state.Append(string(r.State))
	c.reason.Append(r.Reason)
	c.behind.Append(uint64(r.Behind.Offset))
	c.codeVersion.Append(r.CodeVersion)
	c.attempts.Append(r.Attempts)
	c.decision.Append(r.Decision)
	c.aside.Append(r.SetAsideAt.UnixMilli())
	c.turns.Append(r.Turn)
}

func (c *quarantineColumns) input() proto.Input {
	return proto.Input{
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
		{Name: "account", Data: &c.account},
		{Name: "id", Data: &c.id},
		{Name: "type", Data: &c.kind},
		{Name: "subject", Data: &c.subject},
		{Name: "received_ms", Data: &c.received},
		{Name: "frame", Data: &c.frame},
		{Name: "events", Data: &c.events},
		{Name: "state", Data: c.state},
		{Name: "reason", Data: &c.reason},
		{Name: "behind", Data: &c.behind},
		{Name: "code_version", Data: c.codeVersion},
		{Name: "attempts", Data: &c.attempts},
		{Name: "decision", Data: &c.decision},
		{Name: "aside_ms", Data: &c.aside},
		{Name: "turn", Data: &c.turns},
	}
}

// Quarantine implements readmodel.Sink.
func (w *Writer) Quarantine(ctx context.Context, f readmodel.QuarantineFilter, p readmodel.Page) ([]readmodel.QuarantineRow, error) {
	where, b := "1", params{"limit": limit(p)}
	equal := func(column, value string) {
		if value != "" {
			where += " AND " + column + " = {" + column + ":String}"
			b[column] = value
		}
	}
	equal("stream", f.Stream)
	equal("state", string(f.State))
	equal("type", string(f.Type))
	equal("subject", f.Subject)
	if f.Accounts != nil {
		where += " AND account IN {accounts:Array(String)}"
		b["accounts"] = f.Accounts
	}
	if f.Position != (event.Position{}) {
		where += " AND stream = {in:String} AND pos = {at:UInt64}"
		b["in"], b["at"] = f.Position.Stream, uint64(f.Position.Offset)
	}
	if f.Pending != nil {
		where += " AND (state = 'quarantined' OR pos > {pending:UInt64})"
		b["pending"] = uint64(*f.Pending)
	}
	if p.After != "" {
		after, err := event.ParsePosition(p.After)
		if err != nil {
			return nil, err
		}
		where += " AND (stream, pos) > ({after_stream:String}, {after:UInt64})"
		b["after_stream"], b["after"] = after.Stream, uint64(after.Offset)
	}
	return list(ctx, question{Model: w.model, version: w.version}, "read the quarantine", `
		SELECT stream, pos, account, id, type, subject, received_ms, frame, events, state, reason, behind, code_version, attempts, decision, aside_ms, turn
		FROM quarantine_vN FINAL WHERE `+where+` ORDER BY stream, pos LIMIT {limit:UInt32}`, b, scanQuarantine)
}

func scanQuarantine(s scanner) (r readmodel.QuarantineRow, err error) {
	var received, aside int64
	var pos, behind uint64
	err = s.Scan(&r.Position.Stream, &pos, &r.Account, &r.ID, (*string)(&r.Type), &r.Subject, &received, &r.Frame, &r.Events, (*string)(&r.State),
		&r.Reason, &behind, &r.CodeVersion, &r.Attempts, &r.Decision, &aside, &r.Turn)
	r.Position.Offset, r.ReceivedAt, r.SetAsideAt = event.Offset(pos), moment(received), moment(aside)
	if behind > 0 {
		r.Behind = event.Position{Stream: r.Position.Stream, Offset: event.Offset(behind)}
	}
	return r, err
}

// refusing are the codes of a server that will never take a block for what its
// rows hold. Any other error may be about the tables, the server or its load.
var refusing = map[int32]bool{
	6: true, 69: true, 70: true, 72: true, 117: true, // cannot be parsed, out of bound, not convertible, incorrect
	131: true, 321: true, 407: true, // too large a string, out of the range of its type
	469: true, // violates a constraint
}

// refusal tells what a server refuses for its content.
func refusal(err error) error {
	if code, answered := serverCode(err); answered && refusing[code] {
		return fmt.Errorf("%w: %w", readmodel.ErrRefused, err)
	}
	return err
}
