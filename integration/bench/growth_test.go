package bench_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/integration/bench"
)

func TestGrowthIsTheExponentBetweenTheSmallestAndTheLargestSize(t *testing.T) {
	of := func(events int, p50, rows float64) bench.Reads {
		return bench.Reads{Events: events, Products: 1000, Environments: 10, Bytes: uint64(events) * 100, Questions: []bench.Question{{
			Account: "big", Name: "timeline", RowsRead: rows, Times: bench.Times{P50: p50},
		}}}
	}
	wide := of(3_000_000, 900, 900)
	wide.Environments = 1500
	for _, c := range []struct {
		what  string
		reads []bench.Reads
		want  string // the fields of the question's line
	}{
		{"one size", []bench.Reads{of(100_000, 5, 2000)}, ""},
		{"linear, and constant", []bench.Reads{of(100_000, 5, 2000), of(1_000_000, 16, 2000), of(10_000_000, 500, 2000), wide}, "big timeline 5.0 16.0 500.0 1.00 │ 2000.0 2000.0 2000.0 0.00"},
		{"the square root", []bench.Reads{of(100_000, 5, 100), of(10_000_000, 50, 100)}, "big timeline 5.0 50.0 0.50 │ 100.0 100.0 0.00"},
	} {
		var out bytes.Buffer
		if err := (&bench.Report{Reads: c.reads}).Print(&out); err != nil {
			t.Fatal(err)
		}
		_, growth, _ := strings.Cut(out.String(), "How it grows")
		got := ""
		for line := range strings.Lines(growth) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[1] == "timeline" {
				got = strings.Join(fields, " ")
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestLedgersAreNamedByEventsAndAccounts(t *testing.T) {
	got, err := bench.ParseLedgers("100000,1000000:1")
	if want := []bench.Ledger{{100_000, 5001}, {1_000_000, 1}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, wrong := range []string{"", "x", "0", "10:0", "10:x", "10,,20", "-1"} {
		if got, err := bench.ParseLedgers(wrong); err == nil {
			t.Errorf("%q: read as %v", wrong, got)
		}
	}
}

func TestASoakIsToldByTheMediansOfItsQuarters(t *testing.T) {
	s := &bench.Soak{PerSecond: 5000, Minutes: 30}
	for i := range 12 {
		s.Samples = append(s.Samples, bench.SoakSample{Minute: float64(i), Times: bench.Times{P50: float64(i), P99: 10}, Parts: 100})
	}
	s.Samples[7].P99 = 900
	var out bytes.Buffer
	if err := (&bench.Report{Soak: s}).Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"p50 4.0 → 10.0 ms", "p99 10.0 → 10.0 ms (the worst ten seconds 900, in minute 7.0)", "parts 100.0 → 100.0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not tell %q:\n%s", want, out.String())
		}
	}
}
