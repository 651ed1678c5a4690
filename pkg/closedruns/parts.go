package closedruns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// Eight parts of a level become one of the next, so that an entry is written at
// most four times, and a look-up asks the filters of 21 parts and of one more for
// every 512 that were sealed.
const (
	fanIn    = 8
	maxLevel = 3
)

// abandoned is how old a file must be that nobody finished, to be removed.
const abandoned = time.Hour

// Pace wraps what files are written to, to slow it down.
type Pace func(io.Writer) io.Writer

// Unpaced writes as fast as it goes.
func Unpaced(w io.Writer) io.Writer { return w }

// Parts are the sealed parts of one partition. One goroutine seals and looks up,
// another one may settle meanwhile.
//
// Several processes may have one directory: a file never changes, its name tells
// its content, and one that was removed is read on by who has opened it.
type Parts struct {
	dir, prefix string
	scratch     []byte // of Lookup

	mu      sync.RWMutex
	files   []*file   // oldest first
	waiting []waiting // to be written, oldest first; the parts behind those of files
}

type waiting struct {
	number int
	part   Part
}

// Part is a *tracking.Part.
type Part interface {
	Len() int
	Lookup(hash uint64) []event.Offset
	All() iter.Seq[tracking.ClosedRun] // in the order of tracking.ClosedRun.Compare
}

// New gives the parts, none so far, whose files are in dir and have names that
// begin with prefix, a dot behind it. The directory is made, and must take a file.
func New(dir, prefix string) (*Parts, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep closed runs on the disk: %w", err)
	}
	f, err := os.CreateTemp(dir, prefix+".*.tmp")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return nil, fmt.Errorf("keep closed runs on the disk: %w", err)
	}
	return &Parts{dir: dir, prefix: prefix, scratch: make([]byte, blockBytes)}, nil
}

// Lookup gives the entries under a hash. What a damaged file holds is not known:
// the error is then ErrDamaged, and the file is removed so that the next start
// fetches it anew.
func (p *Parts) Lookup(hash uint64) (out []event.Offset, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, w := range p.waiting {
		out = append(out, w.part.Lookup(hash)...)
	}
	for _, f := range p.files {
		if out, err = f.lookup(hash, p.scratch, out); err != nil {
			if errors.Is(err, ErrDamaged) {
				err = errors.Join(err, ignoreMissing(os.Remove(f.path)))
			}
			return nil, err
		}
	}
	return out, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Seal adds the part that was sealed as number, counted from 0, to what is looked
// up. It is in memory until Settle.
func (p *Parts) Seal(number int, part Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, waiting{number, part})
}

// Waiting tells how many parts are in memory still.
func (p *Parts) Waiting() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.waiting)
}

// Unwritten tells how many entries these parts hold.
func (p *Parts) Unwritten() (n int) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, w := range p.waiting {
		n += w.part.Len()
	}
	return n
}

// Settle writes the parts before number that are in memory, and merges what there
// is to merge of them. Whatever fails, what was sealed is looked up as before.
func (p *Parts) Settle(number int, pace Pace) error {
	for next, ok := p.next(number); ok; next, ok = p.next(number) {
		f, err := write(p.dir, p.prefix, 0, next.number, next.part.Len(), whole(next.part), pace)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.files, p.waiting = append(p.files, f), slices.Clone(p.waiting[1:])
		p.mu.Unlock()
	}
	for at, ok := p.complete(); ok; at, ok = p.complete() {
		if err := p.merge(at, pace); err != nil {
			return err
		}
	}
	return nil
}

// Settled tells how many of the parts that were sealed are in files.
func (p *Parts) Settled() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if len(p.files) == 0 {
		return 0
	}
	return p.files[len(p.files)-1].name.end()
}

// next gives the oldest part before number that is in memory.
func (p *Parts) next(number int) (w waiting, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if len(p.waiting) == 0 || p.waiting[0].number >= number {
		return waiting{}, false
	}
	return p.waiting[0], true
}

func whole(part Part) iter.Seq2[tracking.ClosedRun, error] {
	return func(yield func(tracking.ClosedRun, error) bool) {
		for e := range part.All() {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// complete tells where files begin that are to become one.
func (p *Parts) complete() (at int, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for at := range len(p.files) - fanIn + 1 {
		first := p.files[at].name
		last := p.files[at+fanIn-1].name // names rise, and lie side by side
		if first.level < maxLevel && first.number%fanIn == 0 && last.level == first.level && last.number == first.number+fanIn-1 {
			return at, true
		}
	}
	return 0, false
}

// merge writes the files from at on into one, and removes them.
func (p *Parts) merge(at int, pace Pace) error {
	p.mu.RLock()
	group := slices.Clone(p.files[at : at+fanIn])
	p.mu.RUnlock()
	most := uint64(0)
	for _, f := range group {
		most += f.n
	}
	first := group[0].name
	merged, err := write(p.dir, p.prefix, first.level+1, first.number/fanIn, int(most), together(group), pace) //nolint:gosec // a count
	if err != nil {
		return err
	}
	p.mu.Lock() // nobody is reading them
	defer p.mu.Unlock()
	p.files = slices.Replace(slices.Clone(p.files), at, at+fanIn, merged)
	var errs []error
	for _, f := range group {
		errs = append(errs, f.remove())
	}
	return errors.Join(errs...)
}

// together yields the entries of files in one order, without those that have
// moved since.
func together(group []*file) iter.Seq2[tracking.ClosedRun, error] {
	return func(yield func(tracking.ClosedRun, error) bool) {
		heads := make([]head, 0, len(group))
		defer func() {
			for _, h := range heads {
				h.stop()
			}
		}()
		for _, f := range group {
			next, stop := iter.Pull2(f.all())
			if h := (head{next: next, stop: stop}); h.advance() {
				heads = append(heads, h)
			}
		}
		var held tracking.ClosedRun // not yielded: the next one may end it
		holds := false
		for len(heads) > 0 {
			least := 0
			for i := range heads {
				if heads[i].err != nil {
					yield(tracking.ClosedRun{}, heads[i].err)
					return
				}
				if heads[i].at.Compare(heads[least].at) < 0 {
					least = i
				}
			}
			next := heads[least].at
			ended := holds && held.EndedBy(next)
			if holds && !ended && !yield(held, nil) {
				return
			}
			held, holds = next, !ended
			if !heads[least].advance() {
				heads = slices.Delete(heads, least, least+1)
			}
		}
		if holds {
			yield(held, nil)
		}
	}
}

// head is where a file is read.
type head struct {
	next func() (tracking.ClosedRun, error, bool)
	stop func()
	at   tracking.ClosedRun
	err  error
}

// advance reads the next entry; false: there is none.
func (h *head) advance() (ok bool) {
	if h.at, h.err, ok = h.next(); !ok {
		h.stop()
	}
	return ok
}

// Names gives the names of the files, oldest first.
func (p *Parts) Names() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]string, len(p.files))
	for i, f := range p.files {
		out[i] = p.prefix + "." + f.name.String()
	}
	return out
}

// Content gives what a file of Names holds, until the next Settle.
func (p *Parts) Content(name string) (io.Reader, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, f := range p.files {
		if p.prefix+"."+f.name.String() == name {
			return io.NewSectionReader(f.f, 0, f.bytes), nil
		}
	}
	return nil, fmt.Errorf("there is no part %s of the index of closed runs", name)
}

// Load begins with the files of these names, which hold the first number parts:
// those that stand in the directory, and the others as fetch gives them. All
// other files of the prefix are removed. Where it fails there are no parts.
func (p *Parts) Load(number int, names []string, fetch func(name string) (io.ReadCloser, error)) (err error) {
	p.Close()
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	begin := 0
	for _, full := range names {
		n, err := p.parse(full)
		if err != nil {
			return err
		}
		if n.number*width(n.level) != begin {
			return fmt.Errorf("part %s does not begin behind part %d", full, begin)
		}
		begin = n.end()
		f, err := open(p.dir, p.prefix, n)
		if err != nil {
			if f, err = p.fetch(n, full, fetch); err != nil {
				return err
			}
		}
		p.files = append(p.files, f)
	}
	if begin != number {
		return fmt.Errorf("there are files of %d parts, not %d", begin, number)
	}
	return p.sweep(names)
}

func (p *Parts) fetch(n name, full string, from func(name string) (io.ReadCloser, error)) (*file, error) {
	content, err := from(full)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return receive(p.dir, p.prefix, n, content)
}

func (p *Parts) parse(full string) (name, error) {
	rest, ok := strings.CutPrefix(full, p.prefix+".")
	if !ok {
		return name{}, fmt.Errorf("%q is no name of a part", full)
	}
	return parseName(rest)
}

// End gives the number of the part behind those that the file of that name holds;
// false where no file of the prefix has it.
func (p *Parts) End(name string) (int, bool) {
	n, err := p.parse(name)
	return n.end(), err == nil
}

// sweep removes the files of the prefix that are none of names, and what was
// begun long ago and never finished.
func (p *Parts) sweep(names []string) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), p.prefix+".") || slices.Contains(names, e.Name()) {
			continue
		}
		if strings.HasSuffix(e.Name(), ".tmp") {
			if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < abandoned {
				continue
			}
		}
		errs = append(errs, ignoreMissing(os.Remove(filepath.Join(p.dir, e.Name()))))
	}
	return errors.Join(errs...)
}

// Close lets go of the files, which stay where they are, and of what is in memory.
func (p *Parts) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.files {
		_ = f.f.Close() // it was only read since it was written
	}
	p.files, p.waiting = nil, nil
}
