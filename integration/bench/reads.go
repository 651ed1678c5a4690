package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/keyring"
	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/schemas"
	"github.com/shipledger/shipledger/services/accounts"
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/query"
)

const (
	fillAtOnce   = 40_000           // events a store
	mergeLimit   = 3 * time.Minute  // until the engine has merged what was stored
	mergedAfter  = 5                // times in a row that no merge is seen, a second apart: it pauses between two
	readLimit    = 10 * time.Second // of the samples of one question
	leastSamples = 20
	milliseconds = "2006-01-02T15:04:05.000Z"
)

// reads measures questions over HTTP, on a read model of as many generated
// events: the real services of query and its keyring, with the embedded engine
// as a process of its own. The log is left out, since reads do not touch it.
func (b *bench) reads(ctx context.Context, s shape, events int) (err error) {
	r, err := b.openReads(ctx, s, events)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	out := Reads{Products: s.products, Environments: s.environments, SmallAccounts: s.small}
	if err := r.load(ctx, &out, b.logf); err != nil {
		return err
	}
	defer tuned()()
	if out.Floor, err = r.floor(ctx, b.Samples); err != nil {
		return err
	}
	for _, account := range []string{bigAccount, smallAccount(7)} {
		questions, err := r.questions(ctx, account)
		if err != nil {
			return err
		}
		for _, q := range questions {
			if !strings.Contains(q.name, b.Question) {
				continue
			}
			b.logf("%s: %s", account, q.name)
			row, err := r.measure(ctx, account, q, b.Samples)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", account, q.name, err)
			}
			out.Questions = append(out.Questions, row)
			if q.write { // those that follow are asked beside no writes, nor beside what those leave to merge
				if err := r.merged(ctx); err != nil {
					return err
				}
			}
		}
	}
	if b.Question == "" {
		if out.Repeated, err = b.repeated(ctx, r); err != nil {
			return err
		}
	}
	for _, pid := range childrenOf(os.Getpid()) {
		out.EngineMB = max(out.EngineMB, peakMB(pid))
	}
	out.LoadAfter = machineLoad()
	b.report.Reads = append(b.report.Reads, out)
	return nil
}

// tuned has this process collect garbage as seldom as the product's do, until what it
// gives is called. It holds what the write side does for its decisions: to look through
// that takes 20 to 40 ms on both cores, and a page that is asked for meanwhile took up to
// twice its time.
func tuned() func() {
	runtime.GC() // what loading left
	before := debug.SetGCPercent(100)
	debug.SetGCPercent(before) // GOGC may have set it
	compose.TuneMemory()
	return func() { debug.SetGCPercent(before) }
}

// collections is how often this process has collected its garbage.
func collections() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// readServer is the read side: an engine, the model on it, and an API.
type readServer struct {
	stops   []func() error
	model   *chmodel.Model
	writer  *chmodel.Writer
	conn    driver.Conn // for the floor, and to ask how the engine is
	history *history
	random  *mathrand.Rand
	client  *http.Client
	base    map[string]string // by account
	cold    map[string]string // the same without answers that are kept
	first   map[string]string // and without anything else that is
	pat     map[string]string
	rows    readmodel.Rows
	events  int

	cost chmodel.Cost
}

func (r *readServer) close() error {
	var errs []error
	for _, stop := range slices.Backward(r.stops) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

func (b *bench) openReads(ctx context.Context, s shape, events int) (r *readServer, err error) {
	r = &readServer{
		events: events, history: newHistory(s, events, time.Now().UTC().Truncate(time.Hour)), random: mathrand.New(mathrand.NewPCG(5, 6)),
		client: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1}},
		base:   map[string]string{}, cold: map[string]string{}, first: map[string]string{}, pat: map[string]string{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	logger := slog.New(slog.NewTextHandler(b.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	engine, err := chserver.Locate(chserver.LocateConfig{})
	if err != nil {
		return r, fmt.Errorf("find the engine: %w", err)
	}
	dir, err := os.MkdirTemp(b.dir, "reads-")
	if err != nil {
		return r, err
	}
	r.stops = append(r.stops, func() error { return os.RemoveAll(dir) })
	srv, err := chserver.New(chserver.Config{Dir: filepath.Join(dir, "clickhouse"), Engine: engine}, logger)
	if err != nil {
		return r, err
	}
	if err := r.run(ctx, srv.Run); err != nil {
		return r, fmt.Errorf("start the engine: %w", err)
	}
	auth := srv.Auth()
	cfg := chmodel.Config{DialContext: srv.DialContext, User: auth.User, Password: auth.Password, Database: auth.Database, Alone: true}
	if r.model, err = chmodel.Open(ctx, cfg, logger); err != nil {
		return r, err
	}
	r.stops = append(r.stops, r.model.Close)
	cfg.HotBytes, cfg.Alone = -1, false // every read is the first one of its account
	forgetful, err := chmodel.Open(ctx, cfg, logger)
	if err != nil {
		return r, err
	}
	r.stops = append(r.stops, forgetful.Close)
	if err := r.model.Migrate(ctx); err != nil {
		return r, err
	}
	r.writer = r.model.Writer(r.model.Active())
	r.stops = append(r.stops, r.writer.Close)
	if r.conn, err = clickhouse.Open(&clickhouse.Options{
		DialContext: srv.DialContext, Auth: clickhouse.Auth{Username: auth.User, Password: auth.Password, Database: auth.Database},
	}); err != nil {
		return r, err
	}
	r.stops = append(r.stops, r.conn.Close)
	services := map[*query.Service]map[string]string{
		query.New(r.model, event.TrackStream(0)):                     r.base,
		query.New(&restless{Model: r.model}, event.TrackStream(0)):   r.cold,
		query.New(&restless{Model: forgetful}, event.TrackStream(0)): r.first,
	}
	for _, account := range []string{bigAccount, smallAccount(7)} {
		if err := r.serve(ctx, services, account, filepath.Join(dir, account), logger); err != nil {
			return r, err
		}
	}
	return r, nil
}

// run runs something until r is closed, and returns when it is ready.
func (r *readServer) run(ctx context.Context, run func(context.Context, func()) error) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- run(ctx, func() { close(ready) }) }()
	r.stops = append(r.stops, func() error { cancel(); return <-ended })
	select {
	case <-ready:
		return nil
	case err := <-ended:
		ended <- err
		return fmt.Errorf("it ended: %w", err)
	case <-time.After(startLimit):
		return errors.New("it is not ready")
	}
}

// restless is a model that is another one whenever it is asked, so that no answer
// of an earlier one counts.
type restless struct {
	*chmodel.Model

	editions atomic.Uint32
}

// Edition implements readmodel.Freshness.
func (r *restless) Edition() uint32 { return r.editions.Add(1) }

// serve starts APIs whose first account is this one, as a first start makes it.
func (r *readServer) serve(ctx context.Context, services map[*query.Service]map[string]string, account, dir string, logger *slog.Logger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	peppers, err := credential.NewPeppers(map[int][]byte{1: make([]byte, 32)})
	if err != nil {
		return err
	}
	log := memlog.New()
	if _, err := accounts.Bootstrap(ctx, accounts.BootstrapConfig{DataDir: dir, Account: account}, log, peppers, time.Now, rand.Reader); err != nil {
		return err
	}
	ring := keyring.New(keyring.Config{}, log, peppers, time.Now, logger)
	if err := r.run(ctx, ring.Run); err != nil {
		return fmt.Errorf("follow the credentials: %w", err)
	}
	spec, err := httpapi.ParseSpec(schemas.OpenAPI)
	if err != nil {
		return err
	}
	for service, bases := range services {
		if bases[account], err = r.listen(ctx, spec, service, ring, logger); err != nil {
			return err
		}
	}
	l := ledger{data: dir}
	if err := l.readCredentials(); err != nil {
		return err
	}
	r.pat[account] = l.pat
	return nil
}

// listen serves an API with rate limits that nobody reaches.
func (r *readServer) listen(ctx context.Context, spec *httpapi.Spec, service *query.Service, ring httpapi.Authenticator, logger *slog.Logger) (base string, err error) {
	plenty := ratelimit.Rate{Tokens: 1_000_000, Per: time.Second, Burst: 1_000_000}
	limiter := ratelimit.NewLimiter(ratelimit.Config{Read: plenty, Write: plenty, Session: plenty, EventsWrite: plenty}, ratelimit.NewMemory(), time.Now)
	api, err := httpapi.New(httpapi.Config{Spec: spec, Services: []string{"query"}, Authenticator: ring, Limiter: limiter, Logger: logger}, service.Handlers(),
		httpapi.Handlers{"getHealth": httpapi.ServeHealth(func(*httpapi.Request) httpapi.Health { return httpapi.Health{Status: httpapi.HealthOK} })})
	if err != nil {
		return "", err
	}
	counted := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		api.ServeHTTP(w, req.WithContext(chmodel.WithCost(req.Context(), &r.cost)))
	})
	listening := make(chan net.Addr, 1)
	server := &httpapi.Server{Addr: "127.0.0.1:0", Handler: counted, Grace: time.Second, Listening: func(a net.Addr) { listening <- a }}
	if err := r.run(ctx, server.Run); err != nil {
		return "", err
	}
	return "http://" + (<-listening).String(), nil
}

// load generates and stores the events, then waits until the engine has merged
// what it will merge by itself.
func (r *readServer) load(ctx context.Context, out *Reads, logf func(string, ...any)) error {
	type portion struct {
		rows *readmodel.Rows
		upTo readmodel.Progress
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	made, free := make(chan portion, 1), make(chan *readmodel.Rows, 2)
	free <- &readmodel.Rows{}
	free <- &readmodel.Rows{}
	go func() {
		defer close(made)
		for r.history.events < r.events {
			rows := <-free
			upTo, err := r.history.fill(rows, min(fillAtOnce, r.events-r.history.events))
			select {
			case made <- portion{rows, upTo, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	stored, said := 0, time.Now()
	for p := range made {
		if p.err != nil {
			return p.err
		}
		if err := r.writer.Store(ctx, p.rows, p.upTo); err != nil {
			return err
		}
		stored += len(p.rows.Events)
		free <- p.rows
		if time.Since(said) > 10*time.Second {
			logf("%d of %d events, %.0f a second", stored, r.events, float64(stored)/time.Since(began).Seconds())
			said = time.Now()
		}
	}
	out.Events, out.StoredPerSecond = stored, float64(stored)/time.Since(began).Seconds()
	began = time.Now()
	if err := r.merged(ctx); err != nil {
		return err
	}
	out.MergedSeconds = time.Since(began).Seconds()
	if err := r.conn.QueryRow(ctx, "SELECT count(), sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()").
		Scan(&out.Parts, &out.Rows, &out.Bytes); err != nil {
		return err
	}
	return r.tables(ctx, out)
}

// merged waits until the engine merges nothing any more.
func (r *readServer) merged(ctx context.Context) error {
	began := time.Now()
	for idle := 0; idle < mergedAfter && time.Since(began) < mergeLimit; time.Sleep(time.Second) {
		var merging uint64
		if err := r.conn.QueryRow(ctx, "SELECT count() FROM system.merges").Scan(&merging); err != nil {
			return err
		}
		if idle++; merging > 0 {
			idle = 0
		}
	}
	return nil
}

// dearest is how many columns of a table are named.
const dearest = 5

// tables gives what each table holds, and which of its columns take most of it.
func (r *readServer) tables(ctx context.Context, out *Reads) error {
	columns := map[string][]string{}
	err := r.each(ctx, `
		SELECT table, column, toFloat64(sum(column_bytes_on_disk)) / sum(rows) AS bytes FROM system.parts_columns
		WHERE active AND database = currentDatabase() AND part_type = 'Wide' GROUP BY table, column ORDER BY bytes DESC`, func(rows driver.Rows) error {
		var table, column string
		var bytes float64
		err := rows.Scan(&table, &column, &bytes)
		if len(columns[table]) < dearest {
			columns[table] = append(columns[table], fmt.Sprintf("%s %.1f", column, bytes))
		}
		return err
	})
	if err != nil {
		return err
	}
	return r.each(ctx, `
		SELECT table, sum(rows), sum(bytes_on_disk) AS bytes FROM system.parts
		WHERE active AND database = currentDatabase() GROUP BY table ORDER BY bytes DESC`, func(rows driver.Rows) error {
		var t TableSize
		err := rows.Scan(&t.Name, &t.Rows, &t.Bytes)
		t.Dearest = strings.Join(columns[t.Name], ", ")
		out.Tables = append(out.Tables, t)
		return err
	})
}

func (r *readServer) each(ctx context.Context, sql string, scan func(driver.Rows) error) error {
	rows, err := r.conn.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// floor is what the least statement costs, beside which the others stand.
func (r *readServer) floor(ctx context.Context, n int) (Times, error) {
	h := hdr.New(1, maxMicros, significant)
	for range n {
		began := time.Now()
		var one uint8
		if err := r.conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
			return Times{}, err
		}
		if err := h.RecordValue(max(1, time.Since(began).Microseconds())); err != nil {
			return Times{}, err
		}
	}
	return times(h), nil
}

// readQuestion is what is asked again and again: one path, or the pages of one answer.
type readQuestion struct {
	name  string
	path  func() string
	all   bool // every page, added up
	write bool // an event of the account is stored before each sample, and others'
	first bool // nothing is kept of the account
	have  bool // the caller has the answer: 304
	kept  bool // the server may have the answer from before
}

// questions are those of an account.
func (r *readServer) questions(ctx context.Context, account string) ([]readQuestion, error) {
	fixed := func(path string) func() string { return func() string { return path } }
	past := func() string { // any moment of the second year, never twice the same
		return r.history.begin.Add(years2/2 + time.Duration(r.random.Int64N(int64(years2/2)))).Format(milliseconds)
	}
	var newest struct {
		Items []struct {
			ID              string `json:"id"`
			ProductName     string `json:"product_name"`
			EnvironmentName string `json:"environment_name"`
			VersionID       string `json:"version_id"`
			ProductID       string `json:"product_id"`
			EnvironmentID   string `json:"environment_id"`
		} `json:"items"`
	}
	if err := r.get(ctx, account, "/deployments/", &newest); err != nil {
		return nil, err
	}
	if len(newest.Items) == 0 {
		return nil, errors.New("it has no deployments")
	}
	n := &newest.Items[0]
	of := "product=" + url.QueryEscape(n.ProductName)
	in := of + "&environment=" + url.QueryEscape(n.EnvironmentName)
	middle, err := r.middle(ctx, account)
	if err != nil {
		return nil, err
	}
	quarter := "from=" + r.history.begin.Add(years2-90*24*time.Hour).Format(time.RFC3339) + "&to=" + r.history.begin.Add(years2).Format(time.RFC3339)
	all := []readQuestion{
		{name: "matrix, whole", path: fixed("/matrix?limit=500"), all: true},
		{name: "matrix, whole, while its account is written to", path: fixed("/matrix?limit=500"), all: true, write: true},
		{name: "matrix, whole, first read of an account", path: fixed("/matrix?limit=500"), all: true, first: true},
		{name: "matrix, whole, kept", path: fixed("/matrix?limit=500"), all: true, kept: true},
		{name: "matrix, whole, 304", path: fixed("/matrix?limit=500"), all: true, have: true, kept: true},
		{name: "matrix, 50 products", path: fixed("/matrix?limit=50")},
		{name: "matrix, 50 products, kept", path: fixed("/matrix?limit=50"), kept: true},
		{name: "matrix, 50 products, 304", path: fixed("/matrix?limit=50"), have: true, kept: true},
		{name: "matrix, one product", path: fixed("/matrix?" + of)},
		{name: "matrix, drift only", path: fixed("/matrix?drift=true&limit=50")},
		{name: "matrix, whole, at a past moment", path: func() string { return "/matrix?limit=500&at=" + past() }, all: true},
		{name: "matrix, 50 products, at a past moment", path: func() string { return "/matrix?limit=50&at=" + past() }},
		{name: "matrix, one product, at a past moment", path: func() string { return "/matrix?" + of + "&at=" + past() }},
		{name: "matrix, drift only, at a past moment", path: func() string { return "/matrix?drift=true&limit=50&at=" + past() }},
		{name: "matrix, whole, as known then", path: func() string { return "/matrix?limit=500&known_at=" + past() }, all: true},
		{name: "timeline", path: fixed("/deployments/")},
		{name: "timeline, product and environment", path: fixed("/deployments/?" + in)},
		{name: "timeline, environment", path: fixed("/deployments/?environment=" + url.QueryEscape(n.EnvironmentName))},
		{name: "timeline, environment type", path: fixed("/deployments/?environment_type=production")},
		{name: "timeline, product", path: fixed("/deployments/?" + of)},
		{name: "timeline, failed", path: fixed("/deployments/?status=failed")},
		{name: "timeline, a hand", path: fixed("/deployments/?deployed_by=user-7")},
		{name: "timeline, a rare hand", path: fixed("/deployments/?deployed_by=" + rareHand)},
		{name: "timeline, in metadata", path: fixed("/deployments/?meta.change.id=CHG-7")},
		{name: "timeline, page in the middle", path: fixed(middle)},
		{name: "timeline, kept", path: fixed("/deployments/"), kept: true},
		{name: "deployment", path: fixed("/deployments/" + n.ID)},
		{name: "version", path: fixed("/versions/" + n.VersionID)},
		{name: "product", path: fixed("/products/" + n.ProductID)},
		{name: "environment", path: fixed("/environments/" + n.EnvironmentID)},
		{name: "cell history", path: fixed("/matrix/history?" + in)},
		{name: "diff of two moments", path: func() string { return "/matrix/diff?from=" + past() + "&to=" + past() }},
		{name: "dora, 90 days, one environment", path: fixed("/metrics/dora?" + quarter + "&environment=" + url.QueryEscape(n.EnvironmentName))},
		{name: "environments", path: fixed("/environments/")},
		{name: "products", path: fixed("/products/")},
		{name: "versions", path: fixed("/versions/?" + of)},
		{name: "events", path: fixed("/events/")},
	}
	if account == bigAccount {
		return all, nil
	}
	few := map[string]bool{
		"matrix, whole": true, "matrix, whole, kept": true, "matrix, whole, 304": true, "matrix, whole, at a past moment": true,
		"timeline": true, "timeline, product and environment": true, "timeline, failed": true, "deployment": true, "version": true, "timeline, a rare hand": true, "timeline, in metadata": true,
		"cell history": true, "dora, 90 days, one environment": true, "events": true,
	}
	var out []readQuestion
	for _, q := range all {
		if few[q.name] {
			out = append(out, q)
		}
	}
	return out, nil
}

// middle gives a page of the timeline that a reader comes to by cursors: the
// cursor of a list that ends half-way.
func (r *readServer) middle(ctx context.Context, account string) (string, error) {
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(r.history.begin.Add(years2 / 2))) // the years of a history always fit
	var page struct {
		NextCursor string `json:"next_cursor"`
	}
	if err := r.get(ctx, account, "/deployments/?limit=1", &page); err != nil {
		return "", err
	}
	return "/deployments/?cursor=" + url.QueryEscape(withKey(page.NextCursor, id.String())), nil
}

func (r *readServer) get(ctx context.Context, account, path string, into any) error {
	a, err := r.ask(ctx, r.base, account, path, "")
	if err != nil {
		return err
	}
	return json.Unmarshal(a.body, into)
}

type readAnswer struct {
	status int
	body   []byte
	tag    string
}

func (r *readServer) ask(ctx context.Context, base map[string]string, account, path, have string) (readAnswer, error) {
	return r.askInto(ctx, new(bytes.Buffer), base, account, path, have)
}

// askInto reads the answer into a buffer that may be used again: a client's garbage would be
// collected beside the services, which share its process.
func (r *readServer) askInto(ctx context.Context, into *bytes.Buffer, base map[string]string, account, path, have string) (readAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base[account]+path, http.NoBody)
	if err != nil {
		return readAnswer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+r.pat[account])
	if have != "" {
		req.Header.Set("If-None-Match", have)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return readAnswer{}, err
	}
	defer res.Body.Close()
	into.Reset()
	_, err = into.ReadFrom(res.Body)
	body := into.Bytes()
	if err == nil && res.StatusCode != http.StatusOK && (have == "" || res.StatusCode != http.StatusNotModified) {
		err = fmt.Errorf("%s answered %d: %.300s", path, res.StatusCode, body)
	}
	return readAnswer{res.StatusCode, body, res.Header.Get("ETag")}, err
}

// measure asks until it has the samples, or the time is up.
func (r *readServer) measure(ctx context.Context, account string, q readQuestion, samples int) (Question, error) {
	h := hdr.New(1, maxMicros, significant)
	out := Question{Account: account, Name: q.name}
	tags := map[string]string{}
	var answer bytes.Buffer
	var read, statements uint64
	var cpu used
	base := r.cold
	switch {
	case q.kept:
		base = r.base
	case q.first:
		base = r.first
	}
	pid := os.Getpid()
	children := childrenOf(pid)
	began, collected, merged := time.Now(), collections(), mergeTime(children)
	for i := -2; i < samples; i++ { // two to warm up
		if i > leastSamples && time.Since(began) > readLimit {
			break
		}
		if q.write {
			if err := r.storeOf(ctx, account); err != nil {
				return out, err
			}
		}
		r.cost.Rows.Store(0)
		r.cost.Statements.Store(0)
		before := cpuWith(pid, children)
		var took time.Duration
		size, pages := 0, 0
		for path := q.path(); path != ""; {
			start := time.Now()
			have := ""
			if q.have {
				have = tags[path]
			}
			a, err := r.askInto(ctx, &answer, base, account, path, have)
			took += time.Since(start)
			if err != nil {
				return out, err
			}
			if i >= 0 && q.have && a.status != http.StatusNotModified {
				return out, fmt.Errorf("%s answered %d to a caller that has it", path, a.status)
			}
			size += len(a.body)
			pages++
			path = nextPage(q, path, tags, a)
		}
		if i < 0 {
			continue
		}
		if err := h.RecordValue(max(1, took.Microseconds())); err != nil {
			return out, err
		}
		spent := cpuWith(pid, children).minus(before)
		cpu.process, cpu.children = cpu.process+spent.process, cpu.children+spent.children
		out.Samples++
		out.Bytes, out.Pages = max(out.Bytes, size), pages
		read, statements = read+r.cost.Rows.Load(), statements+r.cost.Statements.Load()
	}
	out.Collections = collections() - collected
	out.Times, out.P90 = times(h), float64(h.ValueAtQuantile(90))/1000
	out.RowsRead, out.Statements = float64(read)/float64(out.Samples), float64(statements)/float64(out.Samples)
	out.MergeCPU = (mergeTime(children) - merged).Seconds() * 1e3 / float64(out.Samples)
	out.GoCPU, out.EngineCPU = cpu.process.Seconds()*1e3/float64(out.Samples), cpu.children.Seconds()*1e3/float64(out.Samples)
	return out, nil
}

// storeOf stores events until there is a deployment's of an account among them.
func (r *readServer) storeOf(ctx context.Context, account string) error {
	for {
		upTo, err := r.history.fill(&r.rows, 4)
		if err != nil {
			return err
		}
		if err := r.writer.Store(ctx, &r.rows, upTo); err != nil {
			return err
		}
		if slices.ContainsFunc(r.rows.Deployments, func(d readmodel.RunRow) bool { return d.Record.Account == account }) {
			return nil
		}
	}
}

// nextPage gives the path of the page that follows, "" behind the last. A 304
// has no cursor, so its next page is the one that followed when there was a body.
func nextPage(q readQuestion, path string, tags map[string]string, a readAnswer) string {
	tags[path] = a.tag
	if !q.all {
		return ""
	}
	following := "next of " + path
	if a.status == http.StatusNotModified {
		return tags[following]
	}
	tags[following] = ""
	if cursor := lastCursor(a.body[max(0, len(a.body)-1000):]); cursor != "" { // it stands at the end
		first, _, _ := strings.Cut(path, "&cursor=")
		tags[following] = first + "&cursor=" + url.QueryEscape(cursor)
	}
	return tags[following]
}

// nextCursor is where a list tells its next page.
var nextCursor = regexp.MustCompile(`"next_cursor":"([^"]+)"`)

func lastCursor(end []byte) string {
	if m := nextCursor.FindSubmatch(end); m != nil {
		return string(m[1])
	}
	return ""
}

// withKey gives the cursor of the same list that goes on after key.
func withKey(cursor, key string) string {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) < 8 {
		return cursor
	}
	return base64.RawURLEncoding.EncodeToString(append(b[:8:8], key...))
}
