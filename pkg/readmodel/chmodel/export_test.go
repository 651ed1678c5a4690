package chmodel

import (
	"context"
	"regexp"
	"runtime"
	"sync/atomic"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Statement is one that a model asked.
type Statement struct {
	Doing string // what it is for
	SQL   string
	Args  []any
	Rows  uint64 // that the server read for it
}

// Watch tells f of every statement of m, once its rows are read. f may be called
// by several goroutines at once.
func Watch(m *Model, f func(Statement)) {
	m.conn, m.native = &watched{m.conn, f}, &watchedColumns{m.native, f}
}

type watchedColumns struct {
	columnReader

	done func(Statement)
}

func (w *watchedColumns) query(ctx context.Context, sql string, p params, columns proto.Results, block func()) error {
	s := Statement{SQL: sql, Args: p.args()}
	if m := comment.FindStringSubmatch(sql); m != nil {
		s.Doing = m[1]
	}
	var cost Cost
	err := w.columnReader.query(WithCost(ctx, &cost), sql, p, columns, block)
	s.Rows = cost.Rows.Load()
	w.done(s)
	return err
}

// Hold makes those who store with w wait, until release is called and so many wait.
func Hold(w *Writer) (release func(stores int)) {
	w.mu.Lock()
	return func(stores int) {
		for w.queue.length() < stores {
			runtime.Gosched()
		}
		w.mu.Unlock()
	}
}

// Inserting gives how many inserts of w are under way.
func Inserting(w *Writer) int { return cap(w.conns.conns) - len(w.conns.conns) }

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// JudgeAgainAfter says after how many questions an account that was too large is
// looked at again.
func JudgeAgainAfter(m *Model, questions int) { m.hot.again = questions }

type watched struct {
	driver.Conn

	done func(Statement)
}

var comment = regexp.MustCompile(`log_comment = '([^']+)'$`)

func (w *watched) Query(ctx context.Context, sql string, args ...any) (driver.Rows, error) {
	s := &watchedRows{statement: Statement{SQL: sql, Args: args}, done: w.done}
	if m := comment.FindStringSubmatch(sql); m != nil {
		s.statement.Doing = m[1]
	}
	rows, err := w.Conn.Query(clickhouse.Context(ctx, clickhouse.WithProgress(func(p *clickhouse.Progress) { s.read.Add(p.Rows) })), sql, args...)
	s.Rows = rows
	return s, err
}

type watchedRows struct {
	driver.Rows

	statement Statement
	read      atomic.Uint64
	done      func(Statement)
}

func (r *watchedRows) Close() error {
	err := r.Rows.Close()
	r.statement.Rows = r.read.Load()
	r.done(r.statement)
	return err
}
