package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxBatch is how many events one call may carry (contract 4.4).
const MaxBatch = 1000

// maxBatchBytes stays under the server's 8 MiB, and under the 8 MB that a proxy
// may count instead.
const maxBatchBytes = 8_000_000

// maxAnswerBytes is far above what a thousand refusals take.
const maxAnswerBytes = 32 << 20

const (
	firstWait = 500 * time.Millisecond
	maxWait   = 30 * time.Second // also for what the server asks: it may be back earlier
)

const whereToken = "such as admin_pat of bootstrap-credentials.json in the data directory of the server"

// Item is one event on its way to the server.
type Item struct {
	Line int    // where it stands in its source, from 1; only for messages
	Body []byte // a backfill body: one JSON object without line breaks; not changed once yielded
	// Fault says why there is no body: such an item counts as refused and is not sent.
	Fault string
}

// Refusal is an item that the server, or Lines before it, did not take.
type Refusal struct {
	Line    int      `json:"line"`
	Status  int      `json:"status"` // as the single call would have answered
	Code    string   `json:"code,omitempty"`
	Fields  []string `json:"fields,omitempty"`
	Message string   `json:"message"`
}

// String gives the refusal as a line for people.
func (r Refusal) String() string {
	return fmt.Sprintf("line %d: %s (%d)", r.Line, r.Message, r.Status)
}

// Summary counts what became of the items.
type Summary struct {
	Accepted  int
	Duplicate int // the server had them already
	Refused   int
	Retries   int // calls that had to be repeated, in whole or in part
	Elapsed   time.Duration
	// Position is that of the last stored event: a read that carries it sees
	// everything that was loaded. Empty if the server gave none.
	Position string
}

// Events is the number of items that are settled.
func (s Summary) Events() int { return s.Accepted + s.Duplicate + s.Refused }

// Rate is the number of items settled in a second.
func (s Summary) Rate() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Events()) / s.Elapsed.Seconds()
}

// Options are the choices of a Load. The zero value is ready to use.
type Options struct {
	BatchSize int           // events a call; 0: MaxBatch
	RetryFor  time.Duration // give up when nothing was settled for this long; 0: 5 minutes

	// All three are called from within Load, one at a time.
	Progress func(Summary)                        // after each answer
	Refused  func(Refusal)                        // for each refused item
	Waiting  func(reason string, d time.Duration) // before each wait

	Now   func() time.Time                           // nil: time.Now
	Sleep func(context.Context, time.Duration) error // nil: until then or the end of the context
}

type doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Load sends items to the batch endpoint of the server at base, in order and
// one call at a time: the next batch leaves when every item of the one before
// it is settled. What the server cannot take now (429, 5xx, no connection) is
// sent again, whole calls as well as single items; what it refuses is reported
// and counted, and does not stop the load.
//
// An error means that not all items were tried. Loading the same items again is
// then, and always, safe: what is stored is answered as a duplicate. A repeat
// inside Load counts like that too, where an answer was lost.
//
// The items of the next batch are drawn while one is on its way, from another
// goroutine, and never after Load has returned. The client must not follow
// redirects. The token appears in no error.
func Load(ctx context.Context, client doer, base, token string, items iter.Seq[Item], opts Options) (Summary, error) {
	endpoint, err := batchEndpoint(base)
	if err != nil {
		return Summary{}, err
	}
	opts.setDefaults()
	l := &loader{Options: opts, client: client, endpoint: endpoint, token: token, began: opts.Now(), limit: opts.BatchSize}
	err = l.run(ctx, items)
	l.sum.Elapsed = l.Now().Sub(l.began)
	return l.sum, err
}

func (o *Options) setDefaults() {
	if o.BatchSize <= 0 || o.BatchSize > MaxBatch {
		o.BatchSize = MaxBatch
	}
	if o.RetryFor <= 0 {
		o.RetryFor = 5 * time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(Summary) {}
	}
	if o.Refused == nil {
		o.Refused = func(Refusal) {}
	}
	if o.Waiting == nil {
		o.Waiting = func(string, time.Duration) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func batchEndpoint(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is no address of a server: set SHIPLEDGER_URL to one like http://127.0.0.1:8080", base)
	}
	u = u.JoinPath("events/batch")
	u.RawQuery = "backfill=true"
	return u.String(), nil
}

type loader struct {
	Options
	client   doer
	endpoint string
	token    string
	began    time.Time
	limit    int  // events a call that were never too large
	answered bool // the server has answered before, so it exists
	sum      Summary
}

// run prepares a batch while the one before it is on its way.
func (l *loader) run(ctx context.Context, items iter.Seq[Item]) error {
	ctx, stop := context.WithCancel(ctx)
	var cutter sync.WaitGroup
	defer cutter.Wait()
	defer stop()
	batches := make(chan []Item)
	cutter.Go(func() {
		defer close(batches)
		for batch := range cut(items, l.BatchSize) {
			select {
			case batches <- batch:
			case <-ctx.Done():
				return
			}
		}
	})
	for batch := range batches {
		for part := range slices.Chunk(l.sound(batch), l.limit) {
			if err := l.settle(ctx, part); err != nil {
				return err
			}
		}
	}
	return ctx.Err() // the source may have ended because of it
}

// cut divides items into what one call takes.
func cut(items iter.Seq[Item], most int) iter.Seq[[]Item] {
	return func(yield func([]Item) bool) {
		var batch []Item
		size := 0
		for item := range items {
			if len(batch) > 0 && (len(batch) >= most || size+len(item.Body)+1 > maxBatchBytes) {
				if !yield(batch) {
					return
				}
				batch, size = make([]Item, 0, most), 0
			}
			batch = append(batch, item)
			size += len(item.Body) + 1
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}

// sound refuses the items that have no body and gives the others.
func (l *loader) sound(batch []Item) []Item {
	return slices.DeleteFunc(batch, func(item Item) bool {
		if item.Fault == "" {
			return false
		}
		l.refuse(Refusal{Line: item.Line, Status: http.StatusBadRequest, Message: item.Fault})
		return true
	})
}

// answer is what became of one call.
type answer struct {
	again    []Item        // to be sent again; none: all is settled
	reason   string        // why, for people
	wait     time.Duration // what the server asked for
	tooLarge bool
}

// settle sends batch until each of its items is accepted, known or refused.
func (l *loader) settle(ctx context.Context, batch []Item) error {
	var stalled time.Time // since when nothing was settled
	wait := firstWait
	for len(batch) > 0 {
		a, err := l.post(ctx, batch)
		if err != nil {
			return err
		}
		l.sum.Elapsed = l.Now().Sub(l.began)
		l.Progress(l.sum)
		switch {
		case len(a.again) == 0:
			return nil
		case a.tooLarge:
			return l.halve(ctx, batch)
		case len(a.again) < len(batch):
			stalled, wait = time.Time{}, firstWait
		}
		batch = a.again
		l.sum.Retries++
		if stalled.IsZero() {
			stalled = l.Now()
		}
		pause := min(max(wait, a.wait), maxWait)
		if l.Now().Add(pause).Sub(stalled) > l.RetryFor {
			return fmt.Errorf("the server has taken nothing for %s: %s: run the same command again when it is well",
				l.RetryFor, a.reason)
		}
		l.Waiting(a.reason, pause)
		if err := l.Sleep(ctx, pause); err != nil {
			return err
		}
		wait *= 2
	}
	return nil
}

// halve sends a batch that was over a limit of size, the server's or that of a
// proxy before it, in two parts, and keeps later batches to what passed.
func (l *loader) halve(ctx context.Context, batch []Item) error {
	if len(batch) == 1 {
		l.refuse(Refusal{Line: batch[0].Line, Status: http.StatusRequestEntityTooLarge, Message: "too large for the server"})
		return nil
	}
	half := len(batch) / 2
	l.limit = min(l.limit, half)
	if err := l.settle(ctx, batch[:half]); err != nil {
		return err
	}
	return l.settle(ctx, batch[half:])
}

func (l *loader) refuse(r Refusal) {
	l.sum.Refused++
	l.Refused(r)
}

func (l *loader) post(ctx context.Context, batch []Item) (answer, error) {
	var body bytes.Buffer
	for _, item := range batch {
		body.Write(item.Body)
		body.WriteByte('\n')
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.endpoint, &body)
	if err != nil {
		return answer{}, fmt.Errorf("ask for %s: %w", l.endpoint, err)
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("User-Agent", "shipledger-import")
	res, err := l.client.Do(req)
	if err != nil {
		return l.unreachable(ctx, batch, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if err != nil {
		return l.unreachable(ctx, batch, err)
	}
	l.answered = true
	if p := res.Header.Get("X-Shipledger-Position"); p != "" {
		l.sum.Position = p
	}
	if res.StatusCode == http.StatusOK {
		return l.results(batch, res.Header, text)
	}
	if res.StatusCode == http.StatusRequestEntityTooLarge {
		return answer{again: batch, tooLarge: true}, nil
	}
	why := readRefusal(res.StatusCode, text)
	if transient(res.StatusCode) {
		return answer{again: batch, wait: l.retryAfter(res.Header), reason: fmt.Sprintf("%d %s", res.StatusCode, why.Message)}, nil
	}
	return answer{}, l.fatal(why, res.Header)
}

// transient tells whether the same request may be taken later.
func transient(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout ||
		status >= 500 && status != http.StatusNotImplemented
}

// unreachable sorts what went wrong with the connection: a server that was
// never there is told at once, a server that went away is waited for.
func (l *loader) unreachable(ctx context.Context, batch []Item, err error) (answer, error) {
	if ctx.Err() != nil {
		return answer{}, ctx.Err()
	}
	if _, bad := errors.AsType[*tls.CertificateVerificationError](err); bad {
		return answer{}, fmt.Errorf("reach %s: %w", l.endpoint, err)
	}
	op, isOp := errors.AsType[*net.OpError](err)
	if isOp && op.Op == "dial" && !l.answered {
		return answer{}, fmt.Errorf("no server at %s: %w: start one with `shipledger up`, or set SHIPLEDGER_URL", l.endpoint, op)
	}
	return answer{again: batch, reason: "no answer: " + err.Error()}, nil
}

func (l *loader) retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return min(time.Duration(s), time.Hour/time.Second) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return t.Sub(l.Now())
	}
	return 0
}

// fatal gives the error for an answer that every further call would get too.
func (l *loader) fatal(why Refusal, h http.Header) error {
	cause := why.Message
	if why.Code != "" {
		cause += " (" + why.Code + ")"
	}
	switch {
	case why.Status == http.StatusUnauthorized:
		return fmt.Errorf("the server does not accept the token: %s: set SHIPLEDGER_TOKEN to an active one with the scope admin, %s",
			cause, whereToken)
	case why.Status == http.StatusForbidden:
		return fmt.Errorf("this token may not load a history: %s: it needs the scope admin, %s", cause, whereToken)
	case why.Status == http.StatusNotFound:
		return fmt.Errorf("%s does not exist: set SHIPLEDGER_URL to the address of a Shipledger server", l.endpoint)
	case why.Status >= 300 && why.Status < 400:
		return fmt.Errorf("the server redirects to %q: set SHIPLEDGER_URL to the address that it redirects to", h.Get("Location"))
	}
	return fmt.Errorf("the server refused the batch with %d: %s", why.Status, cause)
}

// results takes the answers to the items of a batch apart.
func (l *loader) results(batch []Item, h http.Header, text []byte) (answer, error) {
	var got struct {
		Duplicate int              `json:"duplicate"`
		Results   []jsontext.Value `json:"results"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return answer{}, fmt.Errorf("%s did not answer as a Shipledger server does: check SHIPLEDGER_URL: %w", l.endpoint, err)
	}
	if len(got.Results) != len(batch) {
		return answer{}, fmt.Errorf("the server answered %d results to %d events", len(got.Results), len(batch))
	}
	a := answer{wait: l.retryAfter(h)}
	taken := 0
	for i, raw := range got.Results {
		var head struct {
			Index  int `json:"index"`
			Status int `json:"status"`
		}
		if err := json.Unmarshal(raw, &head); err != nil {
			return answer{}, fmt.Errorf("read result %d of a batch: %w", i, err)
		}
		if head.Index != i {
			return answer{}, fmt.Errorf("result %d of a batch says that it is number %d", i, head.Index)
		}
		if head.Status >= 200 && head.Status < 300 {
			taken++
			continue
		}
		why := readRefusal(head.Status, raw)
		switch {
		case transient(head.Status):
			a.again = append(a.again, batch[i])
			a.reason = fmt.Sprintf("%d %s", head.Status, why.Message)
		case head.Status == http.StatusUnauthorized, head.Status == http.StatusForbidden:
			// The credential was changed meanwhile: no other item will fare better.
			l.count(taken, got.Duplicate)
			return answer{}, l.fatal(why, h)
		default:
			why.Line = batch[i].Line
			l.refuse(why)
		}
	}
	l.count(taken, got.Duplicate)
	return a, nil
}

func (l *loader) count(taken, duplicate int) {
	duplicate = min(duplicate, taken)
	l.sum.Duplicate += duplicate
	l.sum.Accepted += taken - duplicate
}

// readRefusal reads any of the error bodies of contract 6, a proxy's as well.
func readRefusal(status int, text []byte) Refusal {
	r := Refusal{Status: status}
	var body struct {
		Detail  jsontext.Value `json:"detail"`
		Error   jsontext.Value `json:"error"`
		Code    string         `json:"code"`
		Message string         `json:"message"`
	}
	if json.Unmarshal(text, &body) == nil {
		r.Code, r.Message = body.Code, body.Message
		var inner struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		for _, nested := range []jsontext.Value{body.Error, body.Detail} {
			if len(nested) > 0 && nested.Kind() == '{' && json.Unmarshal(nested, &inner) == nil {
				r.Code, r.Message = first(r.Code, inner.Code), first(r.Message, inner.Message)
			}
		}
		r.readDetail(body.Detail)
	}
	r.Message = first(r.Message, http.StatusText(status), "refused without a reason")
	return r
}

// readDetail prefers what the detail says of fields to the message about them.
func (r *Refusal) readDetail(detail jsontext.Value) {
	if len(detail) == 0 {
		return
	}
	switch detail.Kind() {
	case '"':
		var s string
		if json.Unmarshal(detail, &s) == nil {
			r.Message = first(r.Message, s)
		}
	case '[':
		var faults []struct {
			Loc     []any  `json:"loc"`
			Message string `json:"msg"`
		}
		if json.Unmarshal(detail, &faults) != nil {
			return
		}
		var said []string
		for _, f := range faults {
			var path []string
			for _, step := range f.Loc {
				if step != "body" {
					path = append(path, fmt.Sprint(step))
				}
			}
			field := strings.Join(path, ".")
			if field != "" {
				r.Fields = append(r.Fields, field)
				field += ": "
			}
			said = append(said, field+f.Message)
		}
		r.Message = first(strings.Join(said, "; "), r.Message)
	}
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
