package chmodel

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"
)

// pool is a bounded number of connections, each made when it is first needed.
type pool struct {
	dial   func(context.Context) (*ch.Client, error)
	conns  chan *ch.Client // nil ones are not connected
	closed atomic.Bool
}

func newPool(size int, dial func(context.Context) (*ch.Client, error)) *pool {
	p := &pool{dial: dial, conns: make(chan *ch.Client, size)}
	for range size {
		p.conns <- nil
	}
	return p
}

// close closes the connections that are idle, and others once they are given back.
func (p *pool) close() {
	p.closed.Store(true)
	for range cap(p.conns) {
		select {
		case c := <-p.conns:
			p.give(c)
		default: // somebody uses the rest
			return
		}
	}
}

// take waits for a connection, which use gives back.
func (p *pool) take(ctx context.Context) (*ch.Client, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pool) give(c *ch.Client) {
	if c != nil && p.closed.Load() {
		_ = c.Close() // nobody waits for its word
		c = nil
	}
	p.conns <- c
}

// use does a query on a connection that was taken. One that was idle may have died
// with the server that it led to: then there is a second try, if again says so, on
// a new one.
func (p *pool) use(ctx context.Context, c *ch.Client, query ch.Query, again func() bool) error {
	idle := c != nil && !c.IsClosed()
	if !idle {
		c = nil
	}
	c, err := p.do(ctx, c, query)
	if idle && broken(err) && ctx.Err() == nil && again() {
		c, err = p.do(ctx, nil, query)
	}
	p.give(c)
	return err
}

// do gives back the connection to keep, nil for none.
func (p *pool) do(ctx context.Context, c *ch.Client, query ch.Query) (*ch.Client, error) {
	if c == nil {
		var err error
		if c, err = p.dial(ctx); err != nil {
			return nil, err
		}
	}
	// The driver waits for the server's word though nobody wants the answer any more, and
	// the server for the block that is not sent any more.
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := c.Do(ctx, query); err != nil { // also after an answer: the protocol may be half-way through a block
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// natives asks for whole columns. By rows, clickhouse-go takes 13 µs for one of a
// cell's 21 columns, and by columns it is less than one.
type natives struct {
	*pool

	memory int64 // of a statement, at most
}

// columnReader is how whole columns are asked for.
type columnReader interface {
	// query calls block for each block of rows, which are in the columns until it returns.
	query(ctx context.Context, sql string, p params, columns proto.Results, block func()) error
	close()
}

func (n *natives) query(ctx context.Context, sql string, p params, columns proto.Results, block func()) error {
	parameters, err := p.native(sql)
	if err != nil {
		return err
	}
	started := false
	q := ch.Query{
		Body: sql, Parameters: parameters, Result: columns,
		Settings: []ch.Setting{{Key: "max_memory_usage", Value: strconv.FormatInt(n.memory, 10), Important: true}},
		OnResult: func(_ context.Context, b proto.Block) error {
			if b.Rows > 0 {
				started = true
				block()
			}
			return nil
		},
	}
	if cost, ok := ctx.Value(costKey{}).(*Cost); ok {
		q.OnProgress = func(_ context.Context, p proto.Progress) error { cost.Rows.Add(p.Rows); return nil }
		cost.Statements.Add(1)
	}
	c, err := n.take(ctx)
	if err != nil {
		return err
	}
	return n.use(ctx, c, q, func() bool { return !started })
}

// native gives the parameters that a statement names as the protocol has them: values
// as in TSV, quoted.
func (p params) native(sql string) ([]proto.Parameter, error) {
	out := make([]proto.Parameter, 0, len(p))
	for name, value := range p {
		if !strings.Contains(sql, "{"+name+":") {
			continue
		}
		var text string
		switch v := value.(type) {
		case string:
			text = inTSV.Replace(v)
		case int32:
			text = strconv.FormatInt(int64(v), 10)
		case int64:
			text = strconv.FormatInt(v, 10)
		case uint64:
			text = strconv.FormatUint(v, 10)
		case bool:
			text = strconv.FormatBool(v)
		case []uuid.UUID:
			text = uuidList(v)
		default:
			return nil, fmt.Errorf("parameter %s: no way to bind %T", name, value)
		}
		out = append(out, proto.Parameter{Key: name, Value: "'" + inQuotes.Replace(text) + "'"})
	}
	return out, nil
}

var (
	inTSV    = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "\x00", `\0`)
	inQuotes = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
)

func uuidList(ids []uuid.UUID) string {
	list := make([]byte, 0, 2+39*len(ids))
	list = append(list, '[')
	for i, id := range ids {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(append(append(list, '\''), id.String()...), '\'')
	}
	return string(append(list, ']'))
}

// read asks for whole columns and hands each block of rows to take.
func (q question) read(ctx context.Context, doing, sql string, p params, columns proto.Results, take func()) error {
	bound, cancel := context.WithTimeout(ctx, q.cfg.QueryTimeout)
	defer cancel()
	sql = strings.ReplaceAll(sql, "_vN", suffix(q.version)) + q.limited(doing)
	return classify(ctx, doing, q.native.query(bound, sql, p, columns, take))
}

// Cost adds up what questions take.
type Cost struct {
	Statements atomic.Uint64
	Rows       atomic.Uint64 // that the server read
}

type costKey struct{}

// WithCost gives a context whose questions add to cost.
func WithCost(ctx context.Context, cost *Cost) context.Context {
	ctx = clickhouse.Context(ctx,
		clickhouse.WithProgress(func(p *clickhouse.Progress) { cost.Rows.Add(p.Rows) }),
		clickhouse.WithProfileInfo(func(*clickhouse.ProfileInfo) { cost.Statements.Add(1) }))
	return context.WithValue(ctx, costKey{}, cost)
}
