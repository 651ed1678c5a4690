package chmodel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
)

var (
	benchDeployments = flag.Int("bench.deployments", 200_000, "deployments in the tables that BenchmarkRead reads; each has two events")
	benchCells       = flag.String("bench.cells", "200x5", "products and environments of the account that BenchmarkRead asks about")
)

// A ledger makes deployment events: half of them of one account with 200
// products in 5 environments, the rest of a thousand accounts; over a year.
type ledger struct {
	random   *rand.Rand
	total    int
	n        int
	offset   event.Offset
	started  event.Record
	accounts []string
	end      time.Time

	products, environments []string // of the big account
}

func newLedger(total int, end time.Time) *ledger {
	l := &ledger{random: rand.New(rand.NewPCG(1, 2)), total: total, end: end, products: benchProducts, environments: benchEnvironments}
	for i := range 1000 {
		l.accounts = append(l.accounts, fmt.Sprintf("account-%d", i))
	}
	return l
}

var (
	benchEnvironments = []string{"dev", "test", "staging", "production-eu", "production-us"}
	benchProducts     = func() (names []string) {
		for i := range 200 {
			names = append(names, fmt.Sprintf("service-%03d", i))
		}
		return names
	}()
)

const big = "big"

func (l *ledger) record() event.Record {
	account := big
	products := len(l.products)
	if l.n%2 == 1 {
		account, products = l.accounts[l.random.IntN(len(l.accounts))], 5
	}
	product, environment := l.products[l.random.IntN(products)], l.environments[l.random.IntN(len(l.environments))]
	at := l.end.Add(-365 * 24 * time.Hour).Add(time.Duration(float64(l.n) / float64(l.total) * float64(365*24*time.Hour))).Truncate(time.Millisecond)
	l.n++
	rec := event.Record{
		Kind: event.Deployment, Account: account, ProductID: event.ProductIDOf(account, product), ProductName: product,
		EnvironmentID: event.EnvironmentIDOf(account, environment), EnvironmentName: environment,
		Version: fmt.Sprintf("1.%d.0", l.n/1000), Status: event.Started, CreatedAt: at, StartedAt: at,
	}
	rec.VersionID = event.VersionIDOf(account, rec.ProductID, rec.Version)
	_ = rec.ID.SetTime(uint64(at.UnixMilli()))
	binary.BigEndian.PutUint64(rec.ID[8:], l.random.Uint64())
	rec.Attributes[event.SourceSystem] = "github"
	rec.Attributes[event.SCMSHA] = fmt.Sprintf("%016x%016x%08x", l.random.Uint64(), l.random.Uint64(), l.random.Uint32())
	rec.Attributes[event.SCMBranch], rec.Attributes[event.SCMRepository] = "main", account+"/"+product
	rec.Attributes[event.InvokeID] = fmt.Sprint(16_000_000_000 + l.n)
	rec.Attributes[event.BuildNumber] = fmt.Sprint(l.n / 100)
	rec.Attributes[event.By] = "user-" + fmt.Sprint(l.random.IntN(50))
	if l.random.IntN(10) == 0 {
		rec.Extra = map[string]event.Extra{"workflow": {Value: []byte(`"deploy"`)}, "change": {Value: fmt.Appendf(nil, `{"id":"CHG-%d"}`, l.random.IntN(2000))}}
	}
	return rec
}

// fill adds the rows of n events.
func (l *ledger) fill(rows *readmodel.Rows, n int) readmodel.Progress {
	rows.Reset()
	var at time.Time
	for range n {
		l.offset++
		p := event.Position{Stream: "t0", Offset: l.offset}
		rec := l.started
		if rec.Status == event.Started {
			rec.CompletedAt, rec.Status = rec.StartedAt.Add(time.Minute), event.Completed
			if l.random.IntN(20) == 0 {
				rec.Status = event.Failed
			}
			l.started = event.Record{}
		} else {
			rec = l.record()
			l.started = rec
		}
		at = rec.CreatedAt
		if rec.Status == event.Completed {
			at = rec.CompletedAt
			rows.Cells = append(rows.Cells, readmodel.Cell{Record: rec, EffectiveAt: at, ReceivedAt: at, Position: p})
		} else {
			rows.Attempts = append(rows.Attempts, readmodel.Attempt{Record: rec, At: at, ReceivedAt: at, Position: p})
		}
		author := event.Author{CredentialID: "k1", CredentialName: "ci", Mode: event.Live}
		var id ulid.ULID
		_ = id.SetTime(uint64(at.UnixMilli()))
		binary.BigEndian.PutUint64(id[8:], l.random.Uint64())
		a := &rec.Attributes
		rows.Events = append(rows.Events, readmodel.EventRow{
			Account: rec.Account, Position: p, ID: id, Type: event.TypeOf(rec.Kind, rec.Status), Subject: rec.ID.String(), ReceivedAt: at, EffectiveAt: at,
			Author: author, Status: rec.Status.String(),
			Request: fmt.Sprintf(`{"product_name":%q,"version":%q,"environment_name":%q,"status":%q,"scm_sha":%q,"scm_branch":"main","scm_repository":%q,"source_system":"github","invoke_id":%q,"build_number":%q,"deployed_by":%q}`,
				rec.ProductName, rec.Version, rec.EnvironmentName, rec.Status, a[event.SCMSHA], a[event.SCMRepository], a[event.InvokeID], a[event.BuildNumber], a[event.By]),
		})
		rows.Deployments = append(rows.Deployments, readmodel.RunRow{Record: rec, Author: author, Position: p})
	}
	return readmodel.Progress{Stream: "t0", Offset: l.offset, Time: at}
}

// names gives the rows of products and environments.
func (l *ledger) names() *readmodel.Rows {
	var rows readmodel.Rows
	for i, account := range append([]string{big}, l.accounts...) {
		products := l.products
		if i > 0 {
			products = products[:5]
		}
		for _, name := range products {
			rows.Products = append(rows.Products, readmodel.ProductRow{Product: event.Product{ID: event.ProductIDOf(account, name), Name: name}, Account: account})
		}
		for _, name := range l.environments {
			rows.Environments = append(rows.Environments, readmodel.EnvironmentRow{
				Environment: event.Environment{ID: event.EnvironmentIDOf(account, name), Name: name, Class: event.ClassOf(name)}, Account: account,
			})
		}
	}
	return &rows
}

func BenchmarkStore(b *testing.B) {
	srv := chservertest.Start(b)
	for _, size := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprintf("%dEvents", size), func(b *testing.B) {
			_, w := open(b, srv)
			l := newLedger(10_000_000, time.Now())
			var rows readmodel.Rows
			stored, events := 0, 0
			for b.Loop() {
				b.StopTimer()
				upTo := l.fill(&rows, size)
				b.StartTimer()
				if err := w.Store(b.Context(), &rows, upTo); err != nil {
					b.Fatal(err)
				}
				events += size
				stored += len(rows.Events) + 2*len(rows.Deployments) + 2*len(rows.Cells) + 2*len(rows.Attempts)
			}
			b.ReportMetric(float64(stored)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	srv := chservertest.Start(b)
	m, w := open(b, srv, func(c *chmodel.Config) { c.QueryTimeout = time.Minute })
	l := newLedger(*benchDeployments, time.Now())
	var products, environments int
	if _, err := fmt.Sscanf(*benchCells, "%dx%d", &products, &environments); err != nil {
		b.Fatal(err)
	}
	for i := len(l.products); i < products; i++ {
		l.products = append(l.products, fmt.Sprintf("service-%03d", i))
	}
	for i := len(l.environments); i < environments; i++ {
		l.environments = append(l.environments, fmt.Sprintf("env-%d", i))
	}
	if err := w.Store(b.Context(), l.names(), readmodel.Progress{Stream: "t0"}); err != nil {
		b.Fatal(err)
	}
	var rows readmodel.Rows
	for left := 2 * *benchDeployments; left > 0; {
		n := min(left, 50_000)
		left -= n
		if err := w.Store(b.Context(), &rows, l.fill(&rows, n)); err != nil {
			b.Fatal(err)
		}
	}
	sizes(b, srv, m)
	product := func(account string) event.ProductID { return event.ProductIDOf(account, benchProducts[3]) }
	environment := func(account string) event.EnvironmentID {
		return event.EnvironmentIDOf(account, benchEnvironments[3])
	}
	page := readmodel.Page{Limit: 50}
	for _, account := range []string{big, "account-7"} {
		middle := readmodel.Page{Limit: 50}
		var id ulid.ULID
		_ = id.SetTime(uint64(time.Now().Add(-180 * 24 * time.Hour).UnixMilli()))
		middle.After = id.String()
		newest, err := m.Deployments(b.Context(), account, readmodel.RunFilter{}, page)
		if err != nil || len(newest) == 0 {
			b.Fatal(len(newest), err)
		}
		runs := func(f readmodel.RunFilter, p readmodel.Page) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := m.Deployments(ctx, account, f, p)
				return err
			}
		}
		matrix := func(f readmodel.MatrixFilter, limit int) func(context.Context) error {
			return func(ctx context.Context) error {
				_, err := m.Matrix(ctx, account, f, readmodel.Page{Limit: limit})
				return err
			}
		}
		for _, q := range []struct {
			name string
			ask  func(context.Context) error
		}{
			{"Matrix", matrix(readmodel.MatrixFilter{}, 1000)},
			{"MatrixPage", matrix(readmodel.MatrixFilter{}, 20)},
			{"MatrixAt", matrix(readmodel.MatrixFilter{At: time.Now().Add(-180 * 24 * time.Hour)}, 1000)},
			{"MatrixAtPage", matrix(readmodel.MatrixFilter{At: time.Now().Add(-180 * 24 * time.Hour)}, 20)},
			{"MatrixKnownAt", matrix(readmodel.MatrixFilter{KnownAt: time.Now().Add(-180 * 24 * time.Hour)}, 1000)},
			{"MatrixDrift", matrix(readmodel.MatrixFilter{DriftOnly: true}, 50)},
			{"Timeline", runs(readmodel.RunFilter{}, page)},
			{"TimelineMiddle", runs(readmodel.RunFilter{}, middle)},
			{"TimelineFailed", runs(readmodel.RunFilter{Statuses: []event.Status{event.Failed}}, page)},
			{"TimelineCell", runs(readmodel.RunFilter{Product: product(account), Environment: environment(account)}, page)},
			{"TimelineProduct", runs(readmodel.RunFilter{Product: product(account)}, page)},
			{"TimelineEnvironment", runs(readmodel.RunFilter{Environment: environment(account)}, page)},
			{"TimelineMetadata", runs(readmodel.RunFilter{Meta: []readmodel.MetaFilter{{Path: []string{"change", "id"}, Value: "CHG-7"}}}, page)},
			{"TimelineMetadataCommon", runs(readmodel.RunFilter{Meta: []readmodel.MetaFilter{{Path: []string{"workflow"}, Value: "deploy"}}}, page)},
			{"TimelineHand", runs(readmodel.RunFilter{By: "user-7"}, page)},
			{"Deployment", func(ctx context.Context) error {
				_, err := m.Deployment(ctx, account, newest[0].Record.ID)
				return err
			}},
			{"History", func(ctx context.Context) error {
				_, err := m.History(ctx, account, newest[0].Record.ID)
				return err
			}},
			{"Owner", func(ctx context.Context) error {
				_, err := m.Owner(ctx, readmodel.DeploymentObject, newest[0].Record.ID.String())
				return err
			}},
			{"AsOf", func(ctx context.Context) error { _, err := m.AsOf(ctx); return err }},
		} {
			b.Run(account+"/"+q.name, func(b *testing.B) {
				var read atomic.Uint64
				ctx := clickhouse.Context(b.Context(), clickhouse.WithProgress(func(p *clickhouse.Progress) { read.Add(p.Rows) }))
				spent := engineTime(b)
				for b.Loop() {
					if err := q.ask(ctx); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(engineTime(b)-spent)*10/float64(b.N), "engine-ms/op")
				b.ReportMetric(float64(read.Load())/float64(b.N), "rows/op")
			})
		}
	}
}

// engineTime gives the processor time of the children of this process, in hundredths of a second.
func engineTime(tb testing.TB) (spent int) {
	tb.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		tb.Fatal(err)
	}
	for _, list := range lists {
		children, _ := os.ReadFile(list) // threads come and go
		for child := range strings.FieldsSeq(string(children)) {
			stat, _ := os.ReadFile("/proc/" + child + "/stat")
			if fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(fields) > 12 {
				user, _ := strconv.Atoi(fields[11])
				system, _ := strconv.Atoi(fields[12])
				spent += user + system
			}
		}
	}
	return spent
}

// sizes tells what a row takes of the disk.
func sizes(b *testing.B, srv *chserver.Server, m *chmodel.Model) {
	b.Helper()
	rows, err := connectTo(b, srv, m).Query(b.Context(), `
		SELECT table, sum(rows), count(), sum(bytes_on_disk) / sum(rows), sum(secondary_indices_compressed_bytes) / sum(rows) FROM system.parts
		WHERE active AND database = currentDatabase() GROUP BY table ORDER BY sum(bytes_on_disk) DESC LIMIT 6`)
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var table string
		var n, parts uint64
		var bytes, indexes float64
		if err := rows.Scan(&table, &n, &parts, &bytes, &indexes); err != nil {
			b.Fatal(err)
		}
		b.Logf("%s: %d rows in %d parts, %.1f bytes each, %.2f of them of indexes", table, n, parts, bytes, indexes)
	}
}

// The past of an account of 1,000 products in 10 environments, each deployed to every
// three days, over 60 days: as dense as the account of a thousand products and five
// million deployments in two years. An operation is the whole matrix in two pages.
func BenchmarkPast(b *testing.B) {
	const products, environments, days, account = 1000, 10, 60, "past"
	srv := chservertest.Start(b)
	m, w := open(b, srv)
	random := rand.New(rand.NewPCG(3, 4))
	var rows readmodel.Rows
	for i := range products {
		name := fmt.Sprintf("service-%03d", i)
		rows.Products = append(rows.Products, readmodel.ProductRow{Account: account, Product: event.Product{ID: event.ProductIDOf(account, name), Name: name}})
	}
	for i := range environments {
		name := fmt.Sprintf("env-%d", i)
		rows.Environments = append(rows.Environments, readmodel.EnvironmentRow{Account: account, Environment: event.Environment{ID: event.EnvironmentIDOf(account, name), Name: name}})
	}
	known, offset := rows, event.Offset(0)
	const runs = products * environments * days / 3
	begin := epoch.Add(-days * 24 * time.Hour)
	store := func() {
		if err := w.Store(b.Context(), &rows, readmodel.Progress{Stream: "t0", Offset: offset, Time: epoch}); err != nil {
			b.Fatal(err)
		}
		rows.Reset()
	}
	for i := range runs {
		product, environment := known.Products[random.IntN(products)], known.Environments[random.IntN(environments)]
		at := begin.Add(time.Duration(i) * (days * 24 * time.Hour / runs)).Truncate(time.Millisecond)
		rec := event.Record{
			Kind: event.Deployment, Account: account, ProductID: product.ID, EnvironmentID: environment.ID, Version: fmt.Sprintf("1.%d.0", i/1000),
			Status: event.Started, CreatedAt: at, StartedAt: at,
		}
		rec.VersionID = event.VersionIDOf(account, rec.ProductID, rec.Version)
		_ = rec.ID.SetTime(uint64(at.UnixMilli()))
		binary.BigEndian.PutUint64(rec.ID[8:], random.Uint64())
		rec.Attributes[event.SCMSHA] = fmt.Sprintf("%016x%016x%08x", random.Uint64(), random.Uint64(), random.Uint32())
		rec.Attributes[event.BuildNumber] = strconv.Itoa(i / 100)
		rec.Attributes[event.By] = "user-" + strconv.Itoa(random.IntN(50))
		rec.Attributes[event.URL] = "https://ci.example.com/" + strconv.Itoa(i)
		offset++
		rows.Attempts = append(rows.Attempts, readmodel.Attempt{Record: rec, At: at, ReceivedAt: at.Add(time.Second), Position: event.Position{Stream: "t0", Offset: offset}})
		offset++
		rec.CompletedAt, rec.Status = at.Add(time.Minute+time.Duration(random.IntN(300_000))*time.Millisecond), event.Completed
		p, received := event.Position{Stream: "t0", Offset: offset}, rec.CompletedAt.Add(time.Second)
		if random.IntN(20) == 0 {
			rec.Status = event.Failed
			rows.Attempts = append(rows.Attempts, readmodel.Attempt{Record: rec, At: rec.CompletedAt, ReceivedAt: received, Position: p})
		} else {
			rows.Cells = append(rows.Cells, readmodel.Cell{Record: rec, EffectiveAt: rec.CompletedAt, ReceivedAt: received, Position: p})
		}
		if i%20_000 == 0 {
			store()
		}
	}
	store()
	conn := connectTo(b, srv, m)
	for _, table := range []string{"cells", "past_attempts", "cell_periods"} {
		if err := conn.Exec(b.Context(), "OPTIMIZE TABLE "+table+"_v1"); err != nil {
			b.Fatal(err)
		}
		var n, bytes uint64
		if err := conn.QueryRow(b.Context(), "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() AND table = {table:String}",
			clickhouse.Named("table", table+"_v1")).Scan(&n, &bytes); err != nil {
			b.Fatal(err)
		}
		b.Logf("%s: %d rows of %d events, %.1f bytes a row, %.1f an event", table, n, offset, float64(bytes)/float64(n), float64(bytes)/float64(offset))
	}
	past := func() time.Time { return epoch.Add(-time.Duration(random.Int64N(int64(days / 2 * 24 * time.Hour)))) }
	for name, ask := range map[string]func(*testing.B){
		"Matrix": func(b *testing.B) {
			f, after, cells := readmodel.MatrixFilter{At: past()}, "", 0
			for page := range 2 {
				got, err := m.Matrix(b.Context(), account, f, readmodel.Page{After: after, Limit: products / 2})
				if err != nil || len(got.Items) != products/2 || got.More == (page == 1) {
					b.Fatal(len(got.Items), err)
				}
				after = got.Items[len(got.Items)-1].Key()
				for i := range got.Items {
					cells += len(got.Items[i].Cells)
				}
			}
			if cells < products*environments*9/10 {
				b.Fatal(cells)
			}
		},
		"Diff": func(b *testing.B) {
			from := past()
			if _, err := m.Changes(b.Context(), account, readmodel.ChangeFilter{From: from, To: from.Add(10 * 24 * time.Hour)}, readmodel.Page{Limit: 500}); err != nil {
				b.Fatal(err)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			for range 3 {
				ask(b)
			}
			goBefore, engineBefore := ownCPU(b), engineTime(b)
			for b.Loop() {
				ask(b)
			}
			b.ReportMetric(float64((ownCPU(b)-goBefore).Microseconds())/1e3/float64(b.N), "go-ms/op")
			b.ReportMetric(float64(engineTime(b)-engineBefore)*10/float64(b.N), "engine-ms/op")
		})
	}
}

// ownCPU gives the processor time of this process.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
