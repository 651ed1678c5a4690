package bench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what a run found.
type Report struct {
	Machine      Machine      `json:"machine"`
	Rounds       int          `json:"rounds"`
	RoundSeconds float64      `json:"round_seconds"`
	Singles      []Single     `json:"singles"`
	Paced        []Paced      `json:"paced"`
	Readable     []Readable   `json:"readable"`
	Batches      []Batch      `json:"batches"`
	Verified     []Verified   `json:"verified"`
	Revoked      []Revoked    `json:"revoked"`
	Imports      []Import     `json:"imports"`
	Rebuilds     []Rebuild    `json:"rebuilds"`
	Stored       []Stored     `json:"stored"`
	Reads        []Reads      `json:"reads"`
	Sides        []SideBySide `json:"sides"`
	Partitions   []Partitions `json:"partitions"`
	LeftOut      []string     `json:"left_out"` // sides that could not be measured here, and why
	Mixed        []Mixed      `json:"mixed"`
	Overload     *Overload    `json:"overload,omitzero"`
	StartUps     []StartUp    `json:"start_ups"`
	Soak         *Soak        `json:"soak,omitzero"`
}

// Single compares requests of one event each.
type Single struct {
	Connections int     `json:"connections"`
	Decode      Side    `json:"decode"`
	Ingest      Side    `json:"ingest"`
	Ratio       float64 `json:"ratio"` // median of the rounds' ratios
}

// Side is one of the two, medians of the rounds; Max is the largest of all.
type Side struct {
	PerSecond float64 `json:"per_second"`
	Times
	CPUMicros         float64 `json:"cpu_micros"`          // of the process, a request
	ChildrenCPUMicros float64 `json:"children_cpu_micros"` // of its ClickHouse, a request
}

// Times are milliseconds.
type Times struct {
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
}

// SideBySide is one way to take an event, posted to in turns with the others.
type SideBySide struct {
	Connections int    `json:"connections"`
	Name        string `json:"name"`
	About       string `json:"about"`
	Side
	Allocs float64 `json:"allocs"` // a request, of the whole process; 0: not known
	Ratio  float64 `json:"ratio"`  // to the decode-only handler, median of the rounds' ratios
}

// Partitions is a log of so many, posted to for one account of each of four.
type Partitions struct {
	Connections int `json:"connections"`
	Partitions  int `json:"partitions"`
	Side
	Ratio float64 `json:"ratio"` // to a log of one, median of the rounds' ratios
}

// Mixed is readers and writers on the same connections.
type Mixed struct {
	Connections     int     `json:"connections"`
	WritesPerSecond float64 `json:"writes_per_second"`
	ReadsPerSecond  float64 `json:"reads_per_second"`
	Writes          Times   `json:"writes"`
	Reads           Times   `json:"reads"`
	ReadsRefused    int     `json:"reads_refused"` // with 503
}

// Overload is twice the maximum offered, in events a second.
type Overload struct {
	Maximum           float64   `json:"maximum"`
	Offered           float64   `json:"offered"`
	Accepted          float64   `json:"accepted"`
	Ratio             float64   `json:"ratio"`  // median of the rounds' ratios
	Ratios            []float64 `json:"ratios"` // of accepted to the mean of the maximum before and the one after
	MaximumCost       FloodCost `json:"maximum_cost"`
	OverCost          FloodCost `json:"over_cost"`
	Refused           int       `json:"refused"` // requests
	WithoutRetryAfter int       `json:"without_retry_after"`
	Refusals          Times     `json:"refusals"` // from the request to its refusal
	Answers           Times     `json:"answers"`  // from when a request was due
	Lost              int       `json:"lost"`     // events acknowledged and not there
	RecoverySeconds   float64   `json:"recovery_seconds"`
}

// FloodCost is processor time in µs an event that was accepted, refusals included. The
// client has the same cores, and is half of what an overload is.
type FloodCost struct {
	Process float64 `json:"process"`
	Engine  float64 `json:"engine"`
	Client  float64 `json:"client"`
}

// StartUp is what a ledger of a size costs: a history over two years, of one large
// account and many small ones.
type StartUp struct {
	Events             int     `json:"events"`
	Accounts           int     `json:"accounts"`
	Seconds            float64 `json:"seconds"`              // until it is ready, its engine included
	FoldSeconds        float64 `json:"fold_seconds"`         // the same without a snapshot, and with an empty read model
	ProjectedPerSecond float64 `json:"projected_per_second"` // from then until all is readable, in one process with everything else
	MemoryMB           float64 `json:"memory_mb"`            // once it was ready
	PeakMB             float64 `json:"peak_mb"`              // while it projected
	EngineMB           float64 `json:"engine_mb"`            // right after that
	LogBytes           float64 `json:"log_bytes"`            // of files, an event
	ReadModelBytes     float64 `json:"read_model_bytes"`     // the same
	PerSecond          float64 `json:"per_second"`           // single events on 64 connections
	Times
}

// Soak is half of the maximum for a long time.
type Soak struct {
	Minutes   float64      `json:"minutes"`
	PerSecond float64      `json:"per_second"`
	Samples   []SoakSample `json:"samples"`
	Faults    []string     `json:"faults"` // what grew; none: nothing did
}

// SoakSample is ten seconds of it.
type SoakSample struct {
	Minute float64 `json:"minute"`
	Times
	MemoryMB   float64 `json:"memory_mb"`
	HeapMB     float64 `json:"heap_mb"`
	EngineMB   float64 `json:"engine_mb"`
	Goroutines float64 `json:"goroutines"`
	Parts      int     `json:"parts"`
	// Microseconds of processor time an event; what merges took is of ClickHouse's.
	CPUMicros       float64 `json:"cpu_micros"`
	EngineCPUMicros float64 `json:"engine_cpu_micros"`
	MergeCPUMicros  float64 `json:"merge_cpu_micros"`
	// Checkpoints of the log that were signed since the process began.
	Checkpoints float64 `json:"checkpoints"`
}

// Paced is how long answers take at a fixed rate.
type Paced struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"per_second"`
	Times
}

// Readable is from the answer to the first read that shows what it accepted.
type Readable struct {
	Name string `json:"name"`
	Times
}

// Batch is NDJSON of a thousand events a request.
type Batch struct {
	Connections     int     `json:"connections"`
	Events          int     `json:"events"`
	PerSecond       float64 `json:"per_second"`
	CPUMicros       float64 `json:"cpu_micros"`
	ReadableSeconds float64 `json:"readable_seconds"` // from the last answer until all can be read
}

// Import is a history loaded into an empty ledger.
type Import struct {
	Name            string  `json:"name"`
	Accepted        int     `json:"accepted"`
	Refused         int     `json:"refused"`
	Whole           bool    `json:"whole"` // not cut short by the bound of time
	PerSecond       float64 `json:"per_second"`
	ReadableSeconds float64 `json:"readable_seconds"`
}

// Rebuild is all tables made anew from the log, beside the live ones, and inserts
// of the same rows in blocks of the same size with nothing else to do. Both put
// merges off: those of the rebuild are a part of its comparison.
type Rebuild struct {
	Events           int     `json:"events"`
	Load             string  `json:"load"` // of the last minute, before it
	Seconds          float64 `json:"seconds"`
	PerSecond        float64 `json:"per_second"`
	RawPerSecond     float64 `json:"raw_per_second"`
	Ratio            float64 `json:"ratio"`
	CPUSeconds       float64 `json:"cpu_seconds"`        // of the process, until it was compared
	EngineCPUSeconds float64 `json:"engine_cpu_seconds"` // of its ClickHouse
	// What inserting alone used: this process, with the rows at hand, and ClickHouse.
	RawCPUSeconds       float64 `json:"raw_cpu_seconds"`
	RawEngineCPUSeconds float64 `json:"raw_engine_cpu_seconds"`

	Peak             float64 `json:"peak_mb"`            // memory of the process
	EnginePeak       float64 `json:"engine_peak_mb"`     // of its ClickHouse, comparison included
	StoodStillMillis float64 `json:"stood_still_millis"` // the live projection, for the clones
	CompareSeconds   float64 `json:"compare_seconds"`
}

// Stored is bytes of files an event, beyond those of an empty ledger.
type Stored struct {
	Name      string  `json:"name"`
	Events    int     `json:"events"`
	Log       float64 `json:"log_bytes"`
	ReadModel float64 `json:"read_model_bytes"` // parts that are merged and not yet removed included
}

// Reads are the times of questions on one read model.
type Reads struct {
	Events          int         `json:"events"`
	Products        int         `json:"products"`     // of the account that has half of the deployments
	Environments    int         `json:"environments"` // the same
	SmallAccounts   int         `json:"small_accounts"`
	StoredPerSecond float64     `json:"stored_per_second"` // events made and stored
	MergedSeconds   float64     `json:"merged_seconds"`    // until the engine merged no more
	Parts           uint64      `json:"parts"`
	Rows            uint64      `json:"rows"`
	Bytes           uint64      `json:"bytes"`
	Floor           Times       `json:"floor"` // SELECT 1 by the same driver
	Questions       []Question  `json:"questions"`
	Repeated        []Repeated  `json:"repeated"`
	Tables          []TableSize `json:"tables"`     // largest first
	EngineMB        float64     `json:"engine_mb"`  // most that the engine held at once, storing included
	LoadAfter       string      `json:"load_after"` // of the machine, in the last minute
}

// TableSize is what a table takes on disk, its columns, marks and indexes.
type TableSize struct {
	Name    string `json:"name"`
	Rows    uint64 `json:"rows"`
	Bytes   uint64 `json:"bytes"`
	Dearest string `json:"dearest"` // columns that take most, with their bytes a row, where parts keep columns apart
}

// Question is one question over HTTP. A question of several pages is asked page
// by page, and its time is that of all.
type Question struct {
	Account    string  `json:"account"`
	Name       string  `json:"name"`
	Samples    int     `json:"samples"`
	Pages      int     `json:"pages"`
	Bytes      int     `json:"bytes"`         // of the largest answer, all pages, not compressed
	RowsRead   float64 `json:"rows_read"`     // by the engine, as it says itself, all statements of a sample
	Statements float64 `json:"statements"`    // a sample
	EngineCPU  float64 `json:"engine_cpu_ms"` // of the engine's process, merges included
	MergeCPU   float64 `json:"merge_cpu_ms"`  // of its merges, which are no part of an answer, between the samples included
	GoCPU      float64 `json:"go_cpu_ms"`     // of the API and of the client that asks, which share a process
	// Collections is how often the process of both collected garbage meanwhile.
	Collections uint64  `json:"collections"`
	P90         float64 `json:"p90_ms"`
	Times
}

// Repeated is a question asked by many connections at once, as fast as answers
// come, beside a handler that does nothing but write the same bytes: what is
// more than its time is ours, the rest is the client's and net/http's.
type Repeated struct {
	Name       string  `json:"name"`
	Bytes      int     `json:"bytes"` // of an answer
	PerSecond  float64 `json:"per_second"`
	Bare       float64 `json:"bare_per_second"`
	CPUMicros  float64 `json:"cpu_us"` // an answer, client included
	BareMicros float64 `json:"bare_cpu_us"`
	Engine     float64 `json:"engine_cpu_us"` // an answer
	Statements float64 `json:"statements"`    // a thousand answers
	Refused    int     `json:"refused"`       // with 503, beside the answers
	Times
}

func storedPer(name string, before, after size, events int) Stored {
	n := float64(max(events, 1))
	return Stored{name, events, float64(after.log-before.log) / n, float64(after.readModel-before.readModel) / n}
}

// sample is one round.
type sample struct {
	perSecond, cpu, children float64
	Times
}

func (d *driven) sample(before, after used) sample {
	spent := after.minus(before)
	micros := func(t time.Duration) float64 { return t.Seconds() * 1e6 / float64(max(d.all, 1)) }
	return sample{float64(d.requests) / d.took.Seconds(), micros(spent.process), micros(spent.children), times(d.times)}
}

func times(h *hdr.Histogram) Times {
	ms := func(micros int64) float64 { return float64(micros) / 1000 }
	return Times{ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99)), ms(h.ValueAtQuantile(99.9)), ms(h.Max())}
}

func medians(rounds []sample) Side {
	of := func(field func(sample) float64) float64 {
		values := make([]float64, len(rounds))
		for i, r := range rounds {
			values[i] = field(r)
		}
		return median(values)
	}
	out := Side{
		PerSecond:         of(func(s sample) float64 { return s.perSecond }),
		CPUMicros:         of(func(s sample) float64 { return s.cpu }),
		ChildrenCPUMicros: of(func(s sample) float64 { return s.children }),
		Times:             Times{P50: of(func(s sample) float64 { return s.P50 }), P99: of(func(s sample) float64 { return s.P99 }), P999: of(func(s sample) float64 { return s.P999 })},
	}
	for _, r := range rounds {
		out.Max = max(out.Max, r.Max)
	}
	return out
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	m := &r.Machine
	fmt.Fprintf(&b, "\n%d cores (%s), %s, %s, shipledger %s; fsync %.2f ms, a lone append to the log %.2f ms, load before %s\n",
		m.Cores, m.CPU, m.Kernel, m.Go, m.Shipledger, m.FsyncMillis, m.AppendMillis, m.Load)
	if len(r.Singles) > 0 {
		fmt.Fprintf(&b, "\nOne event a request, closed loop, medians of %d interleaved rounds of %.1f s; times in ms, CPU in µs a request\n", r.Rounds, r.RoundSeconds)
		fmt.Fprintf(&b, "%12s │ %-48s │ %-64s │\n", "", "decode-only handler", "shipledger, durable before the answer")
		fmt.Fprintf(&b, "%12s │ %8s %7s %7s %7s %7s %7s │ %8s %7s %7s %7s %7s %7s %15s │ %6s\n", "connections", "req/s", "p50", "p99", "p99.9", "max", "CPU", "req/s", "p50", "p99", "p99.9", "max", "CPU", "ClickHouse CPU", "ratio")
	}
	for _, s := range r.Singles {
		d, i := &s.Decode, &s.Ingest
		fmt.Fprintf(&b, "%12d │ %8.0f %7.2f %7.2f %7.1f %7.1f %7.1f │ %8.0f %7.2f %7.2f %7.1f %7.1f %7.1f %15.1f │ %6.2f\n", s.Connections,
			d.PerSecond, d.P50, d.P99, d.P999, d.Max, d.CPUMicros, i.PerSecond, i.P50, i.P99, i.P999, i.Max, i.CPUMicros, i.ChildrenCPUMicros, s.Ratio)
	}
	r.printSides(&b)
	heading(&b, len(r.Paced), "At half of its own requests, 64 connections, from when a request was due")
	for _, p := range r.Paced {
		fmt.Fprintf(&b, "  %-36s %8.0f req/s   p50 %.2f ms   p99 %.2f ms   p99.9 %.1f ms   max %.1f ms\n", p.Name, p.PerSecond, p.P50, p.P99, p.P999, p.Max)
	}
	heading(&b, len(r.Readable), "Accepted → readable")
	for _, a := range r.Readable {
		fmt.Fprintf(&b, "  %-36s p50 %.1f ms   p99 %.1f ms   max %.1f ms\n", a.Name, a.P50, a.P99, a.Max)
	}
	heading(&b, len(r.Batches), "Batches of 1000 events, NDJSON")
	for _, a := range r.Batches {
		fmt.Fprintf(&b, "  %-36s %8.0f events/s   %.1f µs CPU an event   %d events, readable %.1f s after the last\n",
			fmt.Sprintf("%d connections", a.Connections), a.PerSecond, a.CPUMicros, a.Events, a.ReadableSeconds)
	}
	heading(&b, len(r.Verified), fmt.Sprintf("Verify a credential in the process, of %d", verifiedKeys))
	for _, v := range r.Verified {
		fmt.Fprintf(&b, "  %-36s %6.0f ns   %.2f allocations\n", v.Name, v.Nanos, v.Allocs)
	}
	heading(&b, len(r.Revoked), "Revoked in every process, from the request to its answer")
	for _, a := range r.Revoked {
		fmt.Fprintf(&b, "  %-36s p50 %.1f ms   p90 %.1f ms   p99 %.1f ms   max %.1f ms   %d keys, %d processes: %d told to all before the answer, %d let in after it\n",
			a.Name, a.P50, a.P90, a.P99, a.Max, a.Keys, a.Processes, a.Propagated, a.Violations)
	}
	heading(&b, len(r.Imports), "Import into an empty ledger")
	for _, a := range r.Imports {
		note := ""
		if !a.Whole {
			note = ", cut short"
		}
		fmt.Fprintf(&b, "  %-36s %8.0f events/s   %d accepted, %d refused%s, readable %.1f s after the last\n", a.Name, a.PerSecond, a.Accepted, a.Refused, note, a.ReadableSeconds)
	}
	heading(&b, len(r.Rebuilds), "Rebuild of all tables from the log, beside native inserts of the same rows in the same blocks")
	for _, a := range r.Rebuilds {
		fmt.Fprintf(&b, "  %-36s %8.0f events/s   raw %.0f events/s   ratio %.2f   load before %s\n", fmt.Sprintf("%d events", a.Events), a.PerSecond, a.RawPerSecond, a.Ratio, a.Load)
		n := float64(max(a.Events, 1)) / 1e6
		fmt.Fprintf(&b, "  %-36s CPU an event: %.1f µs and %.1f µs of ClickHouse, raw %.1f µs and %.1f µs\n", "", a.CPUSeconds/n, a.EngineCPUSeconds/n, a.RawCPUSeconds/n, a.RawEngineCPUSeconds/n)
		fmt.Fprintf(&b, "  %-36s peak memory %.0f MB, of ClickHouse %.0f MB\n", "", a.Peak, a.EnginePeak)
		fmt.Fprintf(&b, "  %-36s live tables stood still %.0f ms, merges and comparison %.1f s, equal\n", "", a.StoodStillMillis, a.CompareSeconds)
	}
	heading(&b, len(r.Stored), "Stored an event, in bytes of files")
	for _, s := range r.Stored {
		fmt.Fprintf(&b, "  %-36s %8.0f in the log   %6.0f in the read model   %d events\n", s.Name, s.Log, s.ReadModel, s.Events)
	}
	for i := range r.Reads {
		r.Reads[i].print(&b)
	}
	r.printGrowth(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) printSides(b *strings.Builder) {
	heading(b, len(r.Sides), "The same events in turns, closed loop; times in ms, CPU in µs a request, of the process and of those below it")
	for _, s := range r.Sides {
		allocs := "      -"
		if s.Allocs > 0 {
			allocs = fmt.Sprintf("%7.0f", s.Allocs)
		}
		fmt.Fprintf(b, "  %4d %-30s %8.0f req/s  ratio %5.2f │ p50 %7.2f  p99 %7.2f  p99.9 %7.2f  max %8.1f │ CPU %6.1f + %6.1f  allocations %s │ %s\n",
			s.Connections, s.Name, s.PerSecond, s.Ratio, s.P50, s.P99, s.P999, s.Max, s.CPUMicros, s.ChildrenCPUMicros, allocs, s.About)
	}
	for _, why := range r.LeftOut {
		fmt.Fprintf(b, "  left out: %s\n", why)
	}
	heading(b, len(r.Partitions), fmt.Sprintf("Logs of one and of several partitions in turns, for %d accounts; times in ms, CPU in µs a request", partitioned))
	for _, p := range r.Partitions {
		fmt.Fprintf(b, "  %4d connections, %d partitions  %8.0f req/s  ratio %5.2f │ p50 %7.2f  p99 %7.2f  p99.9 %7.2f │ CPU %6.1f + %6.1f\n",
			p.Connections, p.Partitions, p.PerSecond, p.Ratio, p.P50, p.P99, p.P999, p.CPUMicros, p.ChildrenCPUMicros)
	}
	heading(b, len(r.Mixed), "Readers and writers on the same connections, one read beside four events; times in ms")
	for _, m := range r.Mixed {
		fmt.Fprintf(b, "  %4d connections  %8.0f events/s  p50 %7.2f  p99 %7.2f  p99.9 %7.2f │ %7.0f reads/s  p50 %7.2f  p99 %7.2f  p99.9 %7.2f, %d refused\n", m.Connections,
			m.WritesPerSecond, m.Writes.P50, m.Writes.P99, m.Writes.P999, m.ReadsPerSecond, m.Reads.P50, m.Reads.P99, m.Reads.P999, m.ReadsRefused)
	}
	if o := r.Overload; o != nil {
		rounds := ""
		if len(o.Ratios) > 1 {
			rounds = fmt.Sprintf(", median of %.2f", o.Ratios) // [0.95 0.91 1.02]
		}
		fmt.Fprintf(b, "\nTwice the maximum, batches of %d\n  maximum %.0f events/s, offered %.0f, accepted %.0f: %.2f of the maximum before and after it%s\n"+
			"  %d requests refused, %d of them without Retry-After, told after p50 %.1f ms, p99 %.1f ms; accepted ones answered after p50 %.1f ms, p99 %.1f ms\n"+
			"  CPU in µs an accepted event, of the process, ClickHouse and the client: %.1f + %.1f + %.1f at the maximum, %.1f + %.1f + %.1f at twice of it\n"+
			"  %d acknowledged events are missing; calm again after %.2f s\n",
			overBatch, o.Maximum, o.Offered, o.Accepted, o.Ratio, rounds, o.Refused, o.WithoutRetryAfter, o.Refusals.P50, o.Refusals.P99, o.Answers.P50, o.Answers.P99,
			o.MaximumCost.Process, o.MaximumCost.Engine, o.MaximumCost.Client, o.OverCost.Process, o.OverCost.Engine, o.OverCost.Client, o.Lost, o.RecoverySeconds)
	}
	r.printSizes(b)
	if s := r.Soak; s != nil && len(s.Samples) >= 4 {
		early, late := s.quarters()
		both := func(value func(SoakSample) float64) string {
			return fmt.Sprintf("%.1f → %.1f", medianOf(early, value), medianOf(late, value))
		}
		worst := slices.MaxFunc(s.Samples, func(a, b SoakSample) int { return cmp.Compare(a.P99, b.P99) })
		fmt.Fprintf(b, "\nHalf of the maximum, %.0f events/s, for %.0f minutes: medians of ten seconds each, of the second quarter and of the last\n", s.PerSecond, s.Minutes)
		fmt.Fprintf(b, "  p50 %s ms, p99 %s ms (the worst ten seconds %.0f, in minute %.1f), memory %s MB, heap %s MB, ClickHouse %s MB, goroutines %s, parts %s; %.0f checkpoints of the log were signed meanwhile\n"+
			"  CPU an event %s µs, of ClickHouse %s µs, %s of them merges\n",
			both(func(x SoakSample) float64 { return x.P50 }), both(func(x SoakSample) float64 { return x.P99 }), worst.P99, worst.Minute,
			both(func(x SoakSample) float64 { return x.MemoryMB }), both(func(x SoakSample) float64 { return x.HeapMB }), both(func(x SoakSample) float64 { return x.EngineMB }),
			both(func(x SoakSample) float64 { return x.Goroutines }), both(func(x SoakSample) float64 { return float64(x.Parts) }),
			s.Samples[len(s.Samples)-1].Checkpoints,
			both(func(x SoakSample) float64 { return x.CPUMicros }), both(func(x SoakSample) float64 { return x.EngineCPUMicros }), both(func(x SoakSample) float64 { return x.MergeCPUMicros }))
		for _, fault := range s.Faults {
			fmt.Fprintf(b, "  FAULT: %s\n", fault)
		}
	}
}

func (r *Reads) print(b *strings.Builder) {
	var samples int
	var collected uint64
	for _, q := range r.Questions {
		samples, collected = samples+q.Samples, collected+q.Collections
	}
	fmt.Fprintf(b, "\nReads over HTTP, %d events: %d products × %d environments beside %d small accounts; made and stored at %.0f events/s,\n"+
		"%d rows in %d parts, %.1f GB; load after the run %s; garbage collected %d times in %d samples; times in ms\n",
		r.Events, r.Products, r.Environments, r.SmallAccounts, r.StoredPerSecond, r.Rows, r.Parts, float64(r.Bytes)/1e9, r.LoadAfter, collected, samples)
	fmt.Fprintf(b, "  %-12s %-40s %7s %5s %9s %10s %10s %10s %8s %8s │ %8s %8s %8s %8s\n", "account", "question", "samples", "pages", "KB", "rows read", "statements", "engine CPU", "merges", "Go CPU", "p50", "p90", "p99", "max")
	fmt.Fprintf(b, "  %-12s %-40s %7s %5s %9s %10s %10s %10s %8s %8s │ %8.1f %8s %8.1f %8.1f\n", "", "SELECT 1", "", "", "", "", "1", "", "", "", r.Floor.P50, "", r.Floor.P99, r.Floor.Max)
	for _, q := range r.Questions {
		fmt.Fprintf(b, "  %-12s %-40s %7d %5d %9.1f %10.0f %10.1f %10.1f %8.1f %8.1f │ %8.1f %8.1f %8.1f %8.1f\n",
			q.Account, q.Name, q.Samples, q.Pages, float64(q.Bytes)/1000, q.RowsRead, q.Statements, q.EngineCPU, q.MergeCPU, q.GoCPU, q.P50, q.P90, q.P99, q.Max)
	}
	heading(b, len(r.Tables), "Tables on disk; the columns that take most, in bytes a row")
	for _, t := range r.Tables {
		fmt.Fprintf(b, "  %-20s %11d rows  %8.1f MB  %6.1f B a row  %6.1f B an event │ %s\n", t.Name, t.Rows, float64(t.Bytes)/1e6,
			float64(t.Bytes)/float64(max(t.Rows, 1)), float64(t.Bytes)/float64(max(r.Events, 1)), t.Dearest)
	}
	heading(b, len(r.Repeated), fmt.Sprintf("The same question again, %d connections, beside a handler that writes the same bytes; CPU in µs an answer, client and API together", repeatedOn))
	if len(r.Repeated) > 0 {
		fmt.Fprintf(b, "  %-44s %9s %10s %10s %6s %8s %8s %8s %10s %6s │ %8s %8s\n", "question", "bytes", "a second", "bare", "ratio", "CPU", "bare", "engine", "statem./k", "503", "p50 ms", "p99 ms")
	}
	for _, q := range r.Repeated {
		fmt.Fprintf(b, "  %-44s %9d %10.0f %10.0f %6.2f %8.1f %8.1f %8.2f %10.2f %6d │ %8.2f %8.2f\n",
			q.Name, q.Bytes, q.PerSecond, q.Bare, q.PerSecond/q.Bare, q.CPUMicros, q.BareMicros, q.Engine, q.Statements, q.Refused, q.P50, q.P99)
	}
}

func heading(b *strings.Builder, rows int, text string) {
	if rows > 0 {
		fmt.Fprintf(b, "\n%s\n", text)
	}
}
