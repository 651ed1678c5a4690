package closedruns_test

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/closedruns"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

const prefix = "t0.v1.runs"

// sealed is a part by what it holds.
type sealed []tracking.ClosedRun

func (s sealed) Len() int { return len(s) }

func (s sealed) Lookup(hash uint64) (out []event.Offset) {
	for _, e := range s {
		if e.Hash == hash {
			out = append(out, e.At)
		}
	}
	return out
}

func (s sealed) All() iter.Seq[tracking.ClosedRun] {
	return slices.Values(slices.SortedFunc(slices.Values(s), tracking.ClosedRun.Compare))
}

func open(t *testing.T, dir string) *closedruns.Parts {
	t.Helper()
	p, err := closedruns.New(dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

const movedMark = event.Offset(1) << 63

// standing is what the entries say, those that have moved left out.
func standing(entries []event.Offset) []event.Offset {
	return slices.Sorted(slices.Values(slices.DeleteFunc(slices.Clone(entries), func(o event.Offset) bool {
		return o&movedMark != 0 || slices.Contains(entries, o|movedMark)
	})))
}

func lookup(t interface{ Fatal(...any) }, p *closedruns.Parts, hash uint64) []event.Offset {
	out, err := p.Lookup(hash)
	if err != nil {
		t.Fatal(err)
	}
	return standing(out)
}

func TestPartsHoldWhatAMapWouldHold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		p := open(t, dir)
		defer p.Close()
		model := map[uint64][]event.Offset{}
		// Few hashes in all blocks, and many that fill them.
		next, number := event.Offset(1), 0
		parts := rapid.IntRange(1, 20).Draw(rt, "parts")
		for range parts {
			var part sealed
			for range rapid.IntRange(0, 12).Draw(rt, "entries") {
				h := rapid.Uint64Range(0, 6).Draw(rt, "hash") << 61
				if at := model[h]; len(at) > 0 && rapid.Bool().Draw(rt, "moves") {
					if old := at[0]; slices.ContainsFunc(part, func(e tracking.ClosedRun) bool { return e.At == old }) {
						part = slices.DeleteFunc(part, func(e tracking.ClosedRun) bool { return e.At == old })
					} else {
						part = append(part, tracking.ClosedRun{Hash: h, At: old | movedMark})
					}
					model[h] = slices.Clone(at[1:])
				}
				part = append(part, tracking.ClosedRun{Hash: h, At: next})
				model[h] = append(model[h], next)
				next++
			}
			for range rapid.SampledFrom([]int{0, 600}).Draw(rt, "others") {
				part = append(part, tracking.ClosedRun{Hash: uint64(next) * 0x9e3779b97f4a7c15, At: next})
				next++
			}
			p.Seal(number, part)
			number++
			if rapid.Bool().Draw(rt, "settle") {
				if err := p.Settle(rapid.IntRange(0, number).Draw(rt, "until"), closedruns.Unpaced); err != nil {
					rt.Fatal(err)
				}
			}
			for h, want := range model {
				if diff := cmp.Diff(want, lookup(rt, p, h)); diff != "" && len(want) > 0 {
					rt.Fatalf("under %x: %s", h, diff)
				}
			}
		}
		if err := p.Settle(number, closedruns.Unpaced); err != nil {
			rt.Fatal(err)
		}
		again := open(t, dir)
		defer again.Close()
		if err := again.Load(number, p.Names(), nil); err != nil {
			rt.Fatal(err)
		}
		for h, want := range model {
			if diff := cmp.Diff(want, lookup(rt, again, h)); diff != "" && len(want) > 0 {
				rt.Fatalf("after a start, under %x: %s", h, diff)
			}
		}
	})
}

// random gives parts of n entries each, whose hashes are as those of runs.
func random(p *closedruns.Parts, parts, n int) []tracking.ClosedRun {
	r := rand.New(rand.NewPCG(3, 4))
	var all []tracking.ClosedRun
	for i := range parts {
		var part sealed
		for range n {
			part = append(part, tracking.ClosedRun{Hash: r.Uint64(), At: event.Offset(len(all) + len(part) + 1)})
		}
		p.Seal(i, part)
		all = append(all, part...)
	}
	return all
}

func TestASettledRunTakesLessThanTwoBytesOfMemory(t *testing.T) {
	p := open(t, t.TempDir())
	all := random(p, 24, 5_000)
	if err := p.Settle(24, closedruns.Unpaced); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Names()); n != 3 {
		t.Errorf("24 parts are %d files, want 3", n)
	}
	each := float64(p.Memory()) / float64(len(all))
	t.Logf("%.2f bytes a run", each)
	if each >= 2 {
		t.Errorf("%.2f bytes a run", each)
	}
	for _, e := range all {
		if got := lookup(t, p, e.Hash); !slices.Equal(got, []event.Offset{e.At}) {
			t.Fatalf("under %x: %v, want %d", e.Hash, got, e.At)
		}
	}
	r, found := rand.New(rand.NewPCG(5, 6)), 0
	reads := p.Reads()
	const asked = 100_000
	for range asked {
		found += len(lookup(t, p, r.Uint64()))
	}
	if found > 0 {
		t.Errorf("%d runs were found that nobody closed", found)
	}
	if share := float64(p.Reads()-reads) / asked; share > 0.03 { // 3 files, each less than one in 100
		t.Errorf("%.3f of what is new reads a file", share)
	}
}

func TestAFileThatWasChangedIsNoticed(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	all := random(p, 1, 1_000)
	if err := p.Settle(1, closedruns.Unpaced); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, p.Names()[0])
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole); at += 97 {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		q := open(t, dir)
		err := q.Load(1, p.Names(), func(string) (io.ReadCloser, error) { return nil, errGone })
		if err == nil {
			err = readAll(q, all)
		}
		if !errors.Is(err, closedruns.ErrDamaged) && !errors.Is(err, errGone) {
			t.Fatalf("byte %d is another: %v", at, err)
		}
		if _, statErr := os.Stat(path); errors.Is(err, closedruns.ErrDamaged) && !errors.Is(statErr, os.ErrNotExist) {
			t.Fatalf("byte %d is another, and the file is still there: the next start would read it again", at)
		}
	}
}

var errGone = errors.New("gone")

func readAll(p *closedruns.Parts, all []tracking.ClosedRun) error {
	for _, e := range all {
		out, err := p.Lookup(e.Hash)
		if err != nil {
			return err
		}
		if !slices.Equal(out, []event.Offset{e.At}) {
			return errors.New("another answer")
		}
	}
	return nil
}

func TestAStartFetchesWhatItsDirectoryLacks(t *testing.T) {
	here, there := open(t, t.TempDir()), t.TempDir()
	all := random(here, 11, 300)
	if err := here.Settle(11, closedruns.Unpaced); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(there, prefix+".0.0."+strings.Repeat("0", 32))
	foreign := filepath.Join(there, "t1.v1.runs.0.0."+strings.Repeat("0", 32))
	for _, path := range []string{stale, foreign} {
		if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fetched := 0
	fetch := func(name string) (io.ReadCloser, error) {
		fetched++
		content, err := here.Content(name)
		return io.NopCloser(content), err
	}
	for range 2 {
		p := open(t, there)
		if err := p.Load(11, here.Names(), fetch); err != nil {
			t.Fatal(err)
		}
		if err := readAll(p, all); err != nil {
			t.Error(err)
		}
	}
	if fetched != 4 { // one of eight parts and three of one
		t.Errorf("%d files were fetched by two starts, want 4", fetched)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Error("what no snapshot names is still there")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("a file of another partition was removed")
	}

	p := open(t, t.TempDir())
	other := func(string) (io.ReadCloser, error) {
		content, err := here.Content(here.Names()[1])
		return io.NopCloser(content), err
	}
	if err := p.Load(11, here.Names(), other); !errors.Is(err, closedruns.ErrDamaged) {
		t.Errorf("what has another content is taken: %v", err)
	}
	if err := p.Load(12, here.Names(), fetch); err == nil {
		t.Error("files of 11 parts are taken for 12")
	}
	if err := p.Load(10, here.Names()[1:], fetch); err == nil {
		t.Error("files are taken whose first parts are missing")
	}
	if n := len(p.Names()); n != 0 {
		t.Errorf("%d parts are left after a start that failed", n)
	}
}

func TestADirectoryThatTakesNoFileIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := closedruns.New(filepath.Join(file, "dir"), prefix); err == nil {
		t.Error("a file was taken for a directory")
	}
}

func TestPartsThatCannotBeWrittenAreStillLookedUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parts")
	p := open(t, dir)
	all := random(p, 2, 50)
	full := errors.New("full")
	if err := p.Settle(2, func(io.Writer) io.Writer { return failing{full} }); !errors.Is(err, full) {
		t.Errorf("Settle gives %v", err)
	}
	if n := p.Unwritten(); n != len(all) {
		t.Errorf("%d are said to be in memory, want %d", n, len(all))
	}
	if err := readAll(p, all); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d files are left", len(left))
	}
	if err := p.Settle(2, closedruns.Unpaced); err != nil || p.Waiting() != 0 || p.Unwritten() != 0 {
		t.Errorf("later they are not written: %v, %d wait", err, p.Waiting())
	}
	if err := readAll(p, all); err != nil {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func BenchmarkLookupOfWhatIsNew(b *testing.B) {
	p, err := closedruns.New(b.TempDir(), prefix)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	random(p, 23, 1<<16)
	if err := p.Settle(23, closedruns.Unpaced); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for b.Loop() {
		if _, err := p.Lookup(r.Uint64()); err != nil {
			b.Fatal(err)
		}
	}
}
