package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

const (
	shownRefusals = 20   // printed as they come; a file of the wrong form has one for each line
	keptRefusals  = 1000 // listed in the JSON result
	plainEvery    = 10 * time.Second
)

// meter counts what was read of the source: the size of the file is known
// before the number of its lines is.
type meter struct {
	io.Reader
	bytes atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.bytes.Add(int64(n))
	return n, err
}

// report shows an import: a bar on a terminal, now and then a line where there
// is none, and the result. Progress and refusals go to the error output, the
// result alone to the standard output.
type report struct {
	out, err  io.Writer
	asJSON    bool
	source    *meter
	size      int64 // of the source in bytes; -1: unknown
	bar       *progressbar.ProgressBar
	lastPlain time.Duration
	refusals  []Refusal
	refusedN  int
}

func newReport(out, errOut io.Writer, asJSON bool, source *meter, size int64) *report {
	r := &report{out: out, err: errOut, asJSON: asJSON, source: source, size: size}
	if f, ok := errOut.(*os.File); ok && !asJSON && term.IsTerminal(int(f.Fd())) {
		r.bar = progressbar.NewOptions64(size,
			progressbar.OptionSetWriter(errOut),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(false), // its clock stops between batches; ours is in the description
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionShowDescriptionAtLineEnd(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	return r
}

func (r *report) progress(s Summary) {
	switch {
	case r.asJSON:
	case r.bar != nil:
		r.bar.Describe(r.describe(s))
		_ = r.bar.Set64(r.source.bytes.Load())
	case s.Elapsed-r.lastPlain >= plainEvery:
		r.lastPlain = s.Elapsed
		r.say("%s", r.describe(s))
	}
}

// describe says how far the import is. The time left follows from the share of
// the file that was read, compressed or not.
func (r *report) describe(s Summary) string {
	text := fmt.Sprintf("%s lines, %s/s", group(s.Events()), group(int(s.Rate())))
	read := r.source.bytes.Load()
	if r.size <= 0 || read <= 0 {
		return text
	}
	done := min(float64(read)/float64(r.size), 1)
	left := time.Duration(float64(s.Elapsed) * (1 - done) / done)
	if r.bar == nil {
		text += fmt.Sprintf(", %.0f %%", done*100)
	}
	return text + fmt.Sprintf(", %s left", left.Round(time.Second))
}

func (r *report) waiting(reason string, d time.Duration) {
	if !r.asJSON {
		r.say("%s; next try in %s", reason, d)
	}
}

func (r *report) refused(f Refusal) {
	r.refusedN++
	if r.asJSON {
		if len(r.refusals) < keptRefusals {
			r.refusals = append(r.refusals, f)
		}
		return
	}
	switch {
	case r.refusedN <= shownRefusals:
		r.say("%s", f)
	case r.refusedN == shownRefusals+1:
		r.say("more lines are refused; --json lists up to %d of them", keptRefusals)
	}
}

// say prints a line above the bar.
func (r *report) say(format string, args ...any) {
	if r.bar != nil {
		_ = r.bar.Clear()
	}
	_, _ = fmt.Fprintf(r.err, format+"\n", args...)
}

// finish prints the result; failure is why the import fails, or nil.
func (r *report) finish(s Summary, failure error) error {
	if r.bar != nil {
		_ = r.bar.Clear()
		_ = r.bar.Exit()
	}
	if r.asJSON {
		return r.printJSON(s, failure)
	}
	_, err := fmt.Fprintf(r.out, "%-10s %12s\n%-10s %12s\n%-10s %12s\n%-10s %12s\n%-10s %12.1f\n%-10s %12s\n",
		"lines", group(s.Events()),
		"accepted", group(s.Accepted),
		"duplicate", group(s.Duplicate),
		"refused", group(s.Refused),
		"seconds", s.Elapsed.Seconds(),
		"events/s", group(int(s.Rate())))
	return err
}

func (r *report) printJSON(s Summary, failure error) error {
	result := struct {
		Lines           int       `json:"lines"`
		Accepted        int       `json:"accepted"`
		Duplicate       int       `json:"duplicate"`
		Refused         int       `json:"refused"`
		Retries         int       `json:"retries"`
		Seconds         float64   `json:"seconds"`
		EventsPerSecond float64   `json:"events_per_second"`
		Position        string    `json:"position,omitempty"`
		Refusals        []Refusal `json:"refusals"`
		RefusalsLeftOff int       `json:"refusals_left_off,omitzero"`
		Error           string    `json:"error,omitempty"`
	}{
		Lines: s.Events(), Accepted: s.Accepted, Duplicate: s.Duplicate, Refused: s.Refused, Retries: s.Retries,
		Seconds: s.Elapsed.Seconds(), EventsPerSecond: s.Rate(), Position: s.Position,
		Refusals: r.refusals, RefusalsLeftOff: r.refusedN - len(r.refusals),
	}
	if failure != nil {
		result.Error = failure.Error()
	}
	if err := json.MarshalWrite(r.out, result, jsontext.WithIndent("  ")); err != nil {
		return err
	}
	_, err := fmt.Fprintln(r.out)
	return err
}

// group writes a number with separators between thousands.
func group(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
