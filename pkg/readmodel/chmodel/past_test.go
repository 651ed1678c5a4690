package chmodel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/chmodel"
	"github.com/shipledger/shipledger/pkg/readmodel/memmodel"
)

// Each week has a success of each product; what is asked for lies between them, far
// before the first, far behind the last, and on the border of a period.
func TestThePastIsFoundHoweverFarBackItLies(t *testing.T) {
	const products, weeks, account = 5, 60, "it's \\ a\tname"
	m, w := open(t, chservertest.Start(t))
	var rows readmodel.Rows
	offset := event.Offset(0)
	begin := epoch.AddDate(-3, 0, 0)
	at := func(product, n int) time.Time {
		return begin.Add(time.Duration(n*(product*product+1)) * 7 * 24 * time.Hour)
	}
	for n := range weeks {
		for i := range products {
			offset++
			liveIn(&rows, account, fmt.Sprintf("product%d", i), fmt.Sprint(n), event.Position{Stream: "t0", Offset: offset})
			c := &rows.Cells[len(rows.Cells)-1]
			c.EffectiveAt = at(i, n)
			c.Record.CompletedAt = c.EffectiveAt
		}
	}
	if err := w.Store(t.Context(), &rows, readmodel.Progress{Stream: "t0", Offset: offset, Time: epoch}); err != nil {
		t.Fatal(err)
	}
	for _, when := range []time.Time{
		begin.Add(-time.Millisecond), begin, begin.Add(time.Millisecond), begin.AddDate(0, 0, 20), begin.AddDate(0, 5, 3), begin.AddDate(1, 0, 0),
		begin.AddDate(1, 2, 0), begin.AddDate(2, 0, 0), begin.AddDate(2, 6, 1), epoch, epoch.AddDate(20, 0, 0), time.UnixMilli(0), time.UnixMilli(-1),
	} {
		for _, limit := range []int{1, 100} { // of what a page has, and of all
			for after, i := "", 0; i < products; i += limit {
				got, err := m.Matrix(t.Context(), account, readmodel.MatrixFilter{At: when}, readmodel.Page{After: after, Limit: limit})
				if err != nil {
					t.Fatal(err)
				}
				for j := range got.Items {
					item := &got.Items[j]
					after = item.Key()
					product := i + j
					want := ""
					for n := range weeks {
						if !at(product, n).After(when) {
							want = fmt.Sprint(n)
						}
					}
					live := ""
					if len(item.Cells) > 0 {
						live = item.Cells[0].Live.Version
					}
					if live != want {
						t.Errorf("%s at %s by %d: version %q is live, want %q", item.Product.Name, when, limit, live, want)
					}
				}
			}
		}
	}
}

// A thousand cells, each deployed to about every 45 days, some failing, one event of four received
// up to 90 days late or up to 40 before its time: at every moment, and of what was known at every
// moment, the whole matrix, what drifts, pages of a few products and what has changed are those of
// the plain model.
func TestAPastMomentOfManyCellsIsThatOfThePlainModel(t *testing.T) {
	const deployments = 16_000 // half of them of the big account
	var cfg chmodel.Config
	m, w := open(t, chservertest.Start(t), func(c *chmodel.Config) { c.Alone, cfg = true, *c })
	cfg.HotBytes = -1
	cold, err := chmodel.Open(t.Context(), cfg, logger(t)) // keeps nothing, so that it sifts products for what drifted
	if err == nil {
		t.Cleanup(func() { _ = cold.Close() })
		err = cold.Refresh(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	plain := memmodel.New()
	l := newLedger(deployments, epoch)
	store := func(rows *readmodel.Rows, upTo readmodel.Progress) {
		t.Helper()
		if err := errors.Join(plain.Store(t.Context(), rows, upTo), w.Store(t.Context(), rows, upTo)); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	moment := func() time.Time { return epoch.Add(-time.Duration(random.IntN(370*24)) * time.Hour) }
	names := l.names()
	for i := 0; i < len(names.Products); i += 4 {
		names.Products[i].CreatedAt = moment()
	}
	names.Environments[2].CreatedAt = moment()
	store(names, readmodel.Progress{Stream: "t0"})
	var rows readmodel.Rows
	other := func(at *time.Time) {
		if random.IntN(4) == 0 {
			*at = at.Add(time.Duration(random.IntN(130*24)-40*24) * time.Hour)
		}
	}
	for range 4 {
		upTo := l.fill(&rows, deployments/2)
		for i := range rows.Cells {
			other(&rows.Cells[i].ReceivedAt)
		}
		for i := range rows.Attempts {
			other(&rows.Attempts[i].ReceivedAt)
		}
		store(&rows, upTo)
	}
	ask := func(f readmodel.MatrixFilter, p readmodel.Page) (readmodel.Matrix, error) {
		if _, err := m.AsOf(t.Context()); err != nil {
			return readmodel.Matrix{}, err
		}
		return m.Matrix(readmodel.AfterAsOf(t.Context()), big, f, p)
	}
	for range 3 { // names are kept, and then the cells of now: a page of a quarter reads all
		if _, err := ask(readmodel.MatrixFilter{}, readmodel.Page{Limit: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		at, known := moment(), moment()
		few := readmodel.Page{Limit: 7, After: benchProducts[random.IntN(len(benchProducts)/2)]}
		for _, f := range []readmodel.MatrixFilter{
			{At: at, Environments: []string{"*"}},
			{At: at},
			{At: at, DriftOnly: true},
			{At: at, DriftOnly: true, Environments: []string{"dev", "production-*"}, Search: "7"},
			{At: at, DriftOnly: true, Environments: []string{"staging"}}, // there is none
			{KnownAt: known, Environments: []string{"*"}},
			{KnownAt: known},
			{KnownAt: known, DriftOnly: true},
			{At: at, KnownAt: known, Environments: []string{"*"}},
			{At: at, KnownAt: known},
			{At: at, KnownAt: at, DriftOnly: true},
		} {
			for _, p := range []readmodel.Page{few, {Limit: len(benchProducts)}} {
				want, err := plain.Matrix(t.Context(), big, f, p)
				if err != nil {
					t.Fatal(err)
				}
				got, err := ask(f, p)
				if diff := unlike(t, bare(want), bare(got)); diff != "" || err != nil {
					t.Fatalf("%+v, %d products after %q: %v (-plain +this):\n%.2000s", f, p.Limit, p.After, err, diff)
				}
				if !f.DriftOnly {
					continue
				}
				got, err = cold.Matrix(t.Context(), big, f, p)
				if diff := unlike(t, bare(want), bare(got)); diff != "" || err != nil {
					t.Fatalf("%+v, %d products after %q, sifted: %v (-plain +this):\n%.2000s", f, p.Limit, p.After, err, diff)
				}
			}
		}
		for _, f := range []readmodel.ChangeFilter{
			{From: at, To: moment()},
			{From: at, To: moment(), KnownAt: known},
			{From: at, To: at.Add(time.Hour), KnownAt: at},
			{Left: event.EnvironmentIDOf(big, "dev"), Right: event.EnvironmentIDOf(big, "test"), At: at, KnownAt: known},
			{Left: event.EnvironmentIDOf(big, "dev"), Right: event.EnvironmentIDOf(big, "test"), KnownAt: known},
		} {
			all := readmodel.Page{Limit: 10_000}
			want, err := plain.Changes(t.Context(), big, f, all)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Changes(t.Context(), big, f, all)
			if diff := unlike(t, want, got); diff != "" || err != nil {
				t.Fatalf("%+v: %v (-plain +this):\n%.2000s", f, err, diff)
			}
		}
	}
}

// bare is a matrix without what is no part of an answer: memos, and whether what is empty is nil.
func bare(m readmodel.Matrix) readmodel.Matrix {
	for i := range m.Items {
		m.Items[i].Memo = nil
		if len(m.Items[i].Cells) == 0 {
			m.Items[i].Cells = nil
		}
	}
	return m
}

// unlike tells how answers differ. To compare thousands of cells by reflection takes half a
// second, so it is done where they are not written alike.
func unlike(t *testing.T, want, got any) string {
	t.Helper()
	wanted, err := json.Marshal(want)
	written, failed := json.Marshal(got)
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(wanted, written) {
		return ""
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

// The pages of a matrix at one moment are read once, until the account has newer events.
func TestThePagesOfAPastMomentAreReadOnce(t *testing.T) {
	m, w, upTo := keeping(t, 0, 2, 20)
	f := readmodel.MatrixFilter{At: epoch.AddDate(0, 0, 1)}
	ask := func(after string) (statements uint64, page readmodel.Matrix) {
		t.Helper()
		if _, err := m.AsOf(t.Context()); err != nil {
			t.Fatal(err)
		}
		var cost chmodel.Cost
		page, err := m.Matrix(readmodel.AfterAsOf(chmodel.WithCost(context.WithoutCancel(t.Context()), &cost)), "account0", f, readmodel.Page{After: after, Limit: 10})
		if err != nil || len(page.Items) != 10 {
			t.Fatal(len(page.Items), err)
		}
		return cost.Statements.Load(), page
	}
	for range 3 { // names are kept, and then the cells of now
		ask("")
	}
	store := func(account, version string) {
		t.Helper()
		upTo.Offset++
		var rows readmodel.Rows
		liveIn(&rows, account, "product013", version, event.Position{Stream: "t0", Offset: upTo.Offset})
		rows.Products, rows.Environments = nil, nil
		if err := w.Store(t.Context(), &rows, upTo); err != nil {
			t.Fatal(err)
		}
	}
	store("account1", "2")
	_, first := ask("")
	after := first.Items[9].Key()
	if n, _ := ask(after); n != 0 {
		t.Errorf("the second page took %d statements", n)
	}
	store("account0", "3")
	if n, page := ask(after); n == 0 || page.Items[3].Cells[0].Live.Version != "3" {
		t.Errorf("after an event %d statements, and %+v", n, page.Items[3].Cells[0].Live.Version)
	}
}
