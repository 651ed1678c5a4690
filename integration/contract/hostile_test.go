package contract_test

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shipledger/shipledger/integration/hostile"
	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

var (
	hostileRequests = flag.Int("requests", 4000, "how many generated requests are sent")
	hostileSeed     = flag.Uint64("seed", 1, "what requests are generated from")
)

const (
	perRound  = 10_000 // requests to one system; what it keeps of them ends with it
	workers   = 3      // clients that send at the same time
	tolerated = 10     // findings, before a round is ended
	// growth is what the heap may have more after a later round than after an
	// early one: what the process keeps for itself.
	growth = 48 << 20
)

// A siege sends generated requests and counts what was answered.
type siege struct {
	addr    string
	bearers []hostile.Bearer
	secrets [][]byte // random parts, which no answer may hold
	slow    bool     // the read model is an engine, which a busy machine may hold up

	mu       sync.Mutex
	statuses map[string]map[string]int // by operation
	findings []string
}

// A verdict collects what is wrong with one answer, in place of a test.
type verdict struct {
	testing.TB
	faults []string
}

func (*verdict) Helper() {}

func (v *verdict) Errorf(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

func (v *verdict) Fatalf(format string, args ...any) { v.Errorf(format, args...) }

// run sends n requests of a seed.
func (s *siege) run(t *testing.T, seed uint64, n int) {
	var wg sync.WaitGroup
	for w := range workers {
		g, err := hostile.New(document, seed<<8|uint64(w), s.bearers)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			c := hostileConn{addr: s.addr}
			defer c.close()
			for range (n + w) / workers {
				if !s.one(g, &c) {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, f := range s.findings {
		t.Errorf("seed %d: %s", seed, f)
	}
}

// one sends one request and judges its answer. It tells whether to go on.
func (s *siege) one(g *hostile.Generator, c *hostileConn) bool {
	r := g.Next()
	a, err := c.send(&r)
	var v verdict
	told := "hung up"
	switch {
	case err == nil:
		told = strconv.Itoa(a.status)
		if a.header.Get("X-Request-Id") == "" && a.header.Get("Content-Type") != "" {
			told = "HTTP " + told // of net/http, which does not take it for a request
		}
		s.judge(&v, &r, a)
		g.Learn(&r, a.status, a.header, a.body)
	case cutOff(&r, a, err) && s.refused(&r): // its credential has ended meanwhile, and it with that
	case !r.Unframed && isHTTP(&r): // of what it cannot read, the server need not hear the end
		v.Errorf("no answer: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.statuses[r.Operation.ID] == nil {
		s.statuses[r.Operation.ID] = map[string]int{}
	}
	s.statuses[r.Operation.ID][told]++
	if len(v.faults) > 0 {
		wire := r.Append(nil)
		s.findings = append(s.findings, fmt.Sprintf("%s with %s, %s %q: %s\n%.1500q", r.Operation.ID, r.Bearer, r.Intent, r.How, strings.Join(v.faults, "\n\t"), wire))
	}
	return len(s.findings) < tolerated
}

// cutOff tells whether an answer that is written while it is read ended in its middle.
func cutOff(r *hostile.Request, a hostileAnswer, err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) && a.status == http.StatusOK && strings.HasPrefix(r.Operation.ID, "export")
}

// refused tells whether a request is not let in by now.
func (s *siege) refused(r *hostile.Request) bool {
	c := hostileConn{addr: s.addr}
	defer c.close()
	a, err := c.send(r)
	return err == nil && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden)
}

// isHTTP tells whether a request can be read at all.
func isHTTP(r *hostile.Request) bool {
	_, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.Append(nil))))
	return err == nil
}

// rpcID is the id of a call in its answer.
var rpcID = regexp.MustCompile(`"id":"(?:[^"\\]|\\.)*"`)

// judge holds an answer to the document, and to what is never answered.
func (s *siege) judge(v *verdict, r *hostile.Request, a hostileAnswer) {
	var head bytes.Buffer
	_ = a.header.Write(&head)
	body := a.body
	if r.Operation.ID == "callMCP" { // JSON-RPC gives back the id of a call as it came
		body = rpcID.ReplaceAll(body, nil)
	}
	for _, secret := range s.secrets {
		if bytes.Contains(body, secret) || bytes.Contains(head.Bytes(), secret) {
			at := max(bytes.Index(a.body, secret), 0)
			v.Errorf("the answer holds the secret %s: %.500s", secret, a.body[max(at-200, 0):])
		}
	}
	for name := range a.header {
		if strings.Contains(strings.ToLower(name), hostile.Marker) {
			v.Errorf("the request made a header of the answer: %s", name)
		}
	}
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if media != "application/json" && !slices.Contains([]string{"", "text/event-stream", "text/csv", "application/x-ndjson", "application/vnd.apache.parquet"}, media) &&
		bytes.Contains(a.body, []byte(hostile.Marker)) {
		v.Errorf("%s shows what was sent", media)
	}
	if a.header.Get("X-Request-Id") == "" {
		if a.status != http.StatusBadRequest && a.status != http.StatusRequestHeaderFieldsTooLarge && a.status != http.StatusExpectationFailed || media != "text/plain" {
			v.Errorf("%d without X-Request-Id: %.500s", a.status, a.body)
		}
		return
	}
	busy := s.slow && (bytes.Contains(a.body, []byte("READ_MODEL_BEHIND")) || bytes.Contains(a.body, []byte("READ_MODEL_UNAVAILABLE")))
	if a.status >= http.StatusInternalServerError && !busy {
		v.Errorf("%d: %.2000s", a.status, a.body)
		return
	}
	if media != "" && a.header.Get("X-Content-Type-Options") != "nosniff" {
		v.Errorf("%d lets browsers guess what it is", a.status)
	}
	httpapitest.CheckResponse(v, document, r.Method, r.Path(), a.status, a.header, a.body)
}

type hostileAnswer struct {
	status int
	header http.Header
	body   []byte
}

// hostileConn is a client that writes whatever it is told to.
type hostileConn struct {
	addr string
	conn *net.TCPConn
	from *bufio.Reader
	out  []byte
}

func (c *hostileConn) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// hangs is how long an answer may take before the server counts as stuck.
const hangs = 2 * time.Minute

func (c *hostileConn) send(r *hostile.Request) (a hostileAnswer, err error) {
	fresh := c.conn == nil
	if fresh {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return a, err
		}
		c.conn = conn.(*net.TCPConn) //nolint:forcetypeassert // it is TCP that was dialled
		c.from = bufio.NewReader(conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(hangs))
	c.out = r.Append(c.out[:0])
	written, conn := make(chan struct{}), c.conn
	go func() { // the server may answer, and hang up, before it was told everything
		defer close(written)
		_, _ = conn.Write(c.out)
		if r.Unframed {
			_ = conn.CloseWrite()
		}
	}()
	a, again, err := c.read(r)
	if err != nil || !again || r.Unframed {
		c.close()
	}
	<-written
	if err != nil && !fresh && errors.Is(err, io.EOF) && !r.Unframed { // the server ended an idle connection meanwhile
		return c.send(r)
	}
	return a, err
}

func (c *hostileConn) read(r *hostile.Request) (a hostileAnswer, again bool, err error) {
	var response *http.Response
	for response == nil || response.StatusCode < http.StatusOK {
		if response, err = http.ReadResponse(c.from, &http.Request{Method: r.Method}); err != nil { //nolint:bodyclose // it ends with its connection
			return a, false, err
		}
	}
	a.status, a.header = response.StatusCode, response.Header
	if response.Header.Get("Content-Type") == "text/event-stream" && r.Method != http.MethodHead {
		begin, err := newBlocks(response.Body).next()
		a.body = []byte(begin)
		return a, false, err
	}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		return a, false, err
	}
	if a.header.Get("Content-Encoding") == "gzip" && len(a.body) > 0 && !strings.HasSuffix(a.header.Get("Content-Type"), "parquet") {
		z, err := gzip.NewReader(bytes.NewReader(a.body))
		if err != nil {
			return a, false, err
		}
		if a.body, err = io.ReadAll(z); err != nil {
			return a, false, err
		}
	}
	return a, !response.Close, nil
}

// besieged gives a system on memory with every sort of credential; every fourth
// one has budgets that are soon used up.
func besieged(t *testing.T, round int) *siege {
	m := onMemory(t)
	if round%4 == 3 {
		m.limiter = ratelimit.NewLimiter(ratelimit.Config{}.WithDefaults(), ratelimit.NewMemory(), time.Now)
		m.restart()
	}
	s := &siege{statuses: map[string]map[string]int{}}
	bearers := m.bearers() // which may start it anew
	m.deployed(m.deployment("success"))
	m.read("/deployments/") // the position that requests name is there: nobody waits for it
	for _, b := range bearers {
		admits := func(op *httpapi.Operation) bool { status, _ := b.says(op); return status == 0 }
		s.bearers = append(s.bearers, hostile.Bearer{Name: b.name, Token: b.token, Cookie: b.kind == credential.Session, Admits: admits})
		if len(b.token) > 60 {
			s.secrets = append(s.secrets, []byte(b.token)[len(b.token)-46:len(b.token)-6])
		}
	}
	s.addr = strings.TrimPrefix(m.url, "http://")
	return s
}

// A million of them with `make hostile`, a few thousand here. What each system
// keeps of them goes with it: then the heap and the goroutines are what they were.
//
// Rows: VR-11
func TestHostileRequestsAreAnsweredAsDocumented(t *testing.T) {
	rounds := (*hostileRequests + perRound - 1) / perRound
	total := map[string]map[string]int{}
	var heap []uint64
	goroutines := 0
	for round := range rounds {
		n := min(perRound, *hostileRequests-round*perRound)
		ok := t.Run("round "+strconv.Itoa(round), func(t *testing.T) {
			s := besieged(t, round)
			s.run(t, *hostileSeed+uint64(round), n)
			for operation, counts := range s.statuses {
				if total[operation] == nil {
					total[operation] = map[string]int{}
				}
				for status, n := range counts {
					total[operation][status] += n
				}
			}
		})
		client.CloseIdleConnections()
		heap = append(heap, settled())
		if round == 0 {
			goroutines = runtime.NumGoroutine()
		}
		if rounds > 1 {
			progress(round+1, rounds, heap[round])
		}
		if !ok {
			break
		}
	}
	if rounds > 1 {
		showTable(os.Stdout, total)
	}
	if left := fewest(goroutines); left > goroutines {
		t.Errorf("%d goroutines after the first round, %d after the last", goroutines, left)
	}
	early := slices.Max(heap[:min(len(heap), 3)])
	if late := slices.Min(heap[len(heap)-min(len(heap), 3):]); late > early+growth {
		t.Errorf("the heap holds %d MB after the first rounds and %d MB after the last", early>>20, late>>20)
	}
}

// settled gives the bytes that are in use when nothing is left to collect.
func settled() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers let go
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// fewest waits until there are no more goroutines than wanted, and gives how
// many there are.
func fewest(wanted int) int {
	deadline, again := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for runtime.NumGoroutine() > wanted {
		select {
		case <-again.C:
		case <-deadline:
			return runtime.NumGoroutine()
		}
	}
	return wanted
}

func progress(done, of int, heap uint64) {
	const width = 40
	filled := width * done / of
	fmt.Fprintf(os.Stderr, "\r[%s%s] %d of %d rounds, heap %d MB ", strings.Repeat("#", filled), strings.Repeat(".", width-filled), done, of, heap>>20)
	if done == of {
		fmt.Fprintln(os.Stderr)
	}
}

// showTable writes how often each operation answered with which status.
func showTable(w io.Writer, total map[string]map[string]int) {
	sum, all := map[string]int{}, 0
	for _, counts := range total {
		for status, n := range counts {
			sum[status] += n
			all += n
		}
	}
	row := func(name string, counts map[string]int) {
		fmt.Fprintf(w, "%-24s", name)
		for _, status := range slices.SortedFunc(maps.Keys(counts), cmp.Compare) {
			fmt.Fprintf(w, " %s:%d", status, counts[status])
		}
		fmt.Fprintln(w)
	}
	for _, operation := range slices.Sorted(maps.Keys(total)) {
		row(operation, total[operation])
	}
	row(fmt.Sprintf("all %d", all), sum)
}

// The same in short against the real log and the real engine, in an account of
// its own: what is text to the one is SQL to the other.
func TestHostileRequestsAreAnsweredAsDocumentedByTheRealEngine(t *testing.T) {
	t.Parallel()
	l := onEmbedded(t)
	slug := "hostile-" + strconv.FormatInt(names.Add(1), 10)
	made := l.manage(http.MethodPost, "/accounts/", body{"account": slug, "admin_email": "admin@example.com"}, as(l.admin)).is(http.StatusCreated)
	s := &siege{statuses: map[string]map[string]int{}, slow: true, addr: strings.TrimPrefix(l.url, "http://")}
	for _, member := range []string{"api_key", "pat", "admin_pat"} {
		token := made.text(member)
		s.bearers = append(s.bearers, hostile.Bearer{Name: member, Token: token, Admits: func(op *httpapi.Operation) bool {
			return member == "admin_pat" || member == "pat" && op.Method == http.MethodGet || member == "api_key" && op.Ingestion
		}})
		s.secrets = append(s.secrets, []byte(randomPart(token)))
	}
	s.bearers = append(s.bearers, hostile.Bearer{Name: "none", Admits: func(op *httpapi.Operation) bool { return op.Public }})
	s.run(t, *hostileSeed, 1500)
}
