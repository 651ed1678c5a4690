package query

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// What is kept of answers, in bytes. An answer above the largest is not kept.
const (
	keptBytes   = 64 << 20
	largestKept = 8 << 20
	keptAnswers = 20_000
)

// answers are those that were given lately, so that who asks again is spared the
// work, and often the answer. Nothing in it is believed for its age: an answer
// counts only while its account has no event behind the position that it was
// drawn at and nothing before it was mended, which is asked every time.
type answers struct {
	mu    sync.Mutex
	bytes int
	cache *lru.Cache[string, *kept]
}

// kept is an answer without what tells how new it is. It does not change.
type kept struct {
	body []byte // up to as_of where the answer has one
	tag  string
	asOf bool // as_of belongs behind body

	at      []readmodel.Progress // that it was drawn at, or was found to hold at later
	edition uint32
	packed  *packed
}

// size is what counts against the bound: compressed it is a fifth or less.
func (k *kept) size() int { return len(k.body) + len(k.body)/5 }

func newAnswers() *answers {
	a := &answers{}
	a.cache, _ = lru.NewWithEvict(keptAnswers, func(_ string, k *kept) { a.bytes -= k.size() }) // the size is positive
	return a
}

func (a *answers) find(key string) *kept {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, _ := a.cache.Get(key)
	return k
}

func (a *answers) keep(key string, k *kept) {
	if len(k.body) > largestKept {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cache.Remove(key) // an old one would not be counted off where it is replaced
	a.cache.Add(key, k)
	for a.bytes += k.size(); a.bytes > keptBytes; {
		a.cache.RemoveOldest()
	}
}

// reading is a read that is a function of its address and of the events of its
// account alone: it depends on no clock.
type reading struct {
	s       *Service
	r       *httpapi.Request
	key     string
	at      httpapi.AsOf
	edition uint32
	drawn   []readmodel.Progress
}

// again waits as fresh does, and gives the answer where one is kept that still
// holds. If it is done, the handler has nothing left to do.
func (s *Service) again(w http.ResponseWriter, r *httpapi.Request) (c reading, done bool, err error) {
	c = reading{s: s, r: r, edition: s.model.Edition()}
	if c.drawn, err = s.freshOf(r, s.streamsOf(r.Identity.Account)); err != nil {
		return c, false, err
	}
	c.at = asOf(c.drawn)
	values := r.URL.Query()
	values.Del("min_position") // waited for
	c.key = r.Identity.Account + "\x00" + r.URL.Path + "?" + values.Encode()
	k := s.answers.find(c.key)
	holds := k != nil && k.edition == c.edition
	if holds {
		if holds, err = s.holds(r.Context(), r.Identity.Account, k, c.drawn); err != nil {
			return c, false, err
		}
	}
	if !holds {
		if !s.underWay.follow(r, &c) {
			return c, false, nil
		}
		if k = s.answers.find(c.key); k == nil || k.edition != c.edition || !slices.Equal(k.at, c.drawn) {
			return c, false, nil
		}
	}
	if s.model.Edition() != c.edition { // it may have been asked of another
		return c, false, nil
	}
	if !slices.Equal(k.at, c.drawn) { // need not be asked again up to here
		later := *k
		later.at = c.drawn
		s.answers.keep(c.key, &later)
	}
	return c, true, k.write(w, r, c.at)
}

// holds tells whether an answer is the one that would be given at progress.
func (s *Service) holds(ctx context.Context, account string, k *kept, progress []readmodel.Progress) (bool, error) {
	for _, p := range progress {
		var was readmodel.Progress
		for _, at := range k.at {
			if at.Stream == p.Stream {
				was = at
			}
		}
		seen := was.Offset
		if p.Offset < seen || p.Mended != was.Mended { // made anew, or events of old places were projected
			return false, nil
		}
		if p.Offset == seen {
			continue
		}
		key := account + "\x00" + p.Stream + "\x00" + strconv.FormatUint(uint64(seen), 10) + "\x00" + strconv.FormatUint(uint64(p.Offset), 10)
		newer, err, _ := s.newer.Do(key, func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpapi.WaitForPosition) // the first to ask may leave
			defer cancel()
			return s.model.Newer(ctx, account, p.Stream, seen)
		})
		if err != nil || newer.(bool) { //nolint:forcetypeassert // made right above
			return false, err
		}
	}
	return true, nil
}

// answer gives the answer, and keeps it.
func (c *reading) answer(w http.ResponseWriter, answer any) error {
	k, err := encode(answer)
	if err != nil {
		return err
	}
	k.at, k.edition = c.drawn, c.edition
	if c.key != "" && c.s.model.Edition() == c.edition {
		c.s.answers.keep(c.key, k)
	}
	return k.write(w, c.r, c.at)
}

// noAsOf is how an answer ends that shall tell how new it is, and does not yet.
var noAsOf = []byte(`"as_of":{"position":"","time":null}}`)

// encode writes an answer once, for its tag and for the wire. The ETag names
// what the answer shows. How new that is does not count, so the tag lasts while
// others write; it is weak for that reason.
func encode(answer any) (*kept, error) {
	body, ok := answer.(written)
	if !ok {
		var err error
		if body, err = marshal(answer); err != nil {
			return nil, err
		}
	}
	k := &kept{body: body, packed: &packed{}}
	if head, ok := bytes.CutSuffix(body, noAsOf); ok {
		k.body, k.asOf = head, true
	}
	sum := sha256.Sum256(k.body)
	k.tag = `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return k, nil
}

// written is an answer, or a piece of one, as marshal writes it.
type written []byte

func marshal(value any) (written, error) {
	b, err := json.Marshal(value, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true), json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write an answer: %w", err)
	}
	return b, nil
}

// write answers, with 304 where the caller has it.
func (k *kept) write(w http.ResponseWriter, r *httpapi.Request, at httpapi.AsOf) error {
	w.Header().Set("ETag", k.tag)
	if httpapi.MatchesETag(r.Header.Get("If-None-Match"), k.tag) {
		if err := r.Reverify(); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	var tail []byte
	if k.asOf {
		value, err := json.Marshal(at)
		if err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
		tail = append(append(append(tail, `"as_of":`...), value...), '}')
	}
	if r.Method == http.MethodGet && len(k.body) >= leastPacked && httpapi.TakesGzip(r.Header) {
		w.Header().Set("Content-Encoding", "gzip")
		err := r.Bytes(http.StatusOK, k.packed.with(k.body, tail))
		if err != nil { // nothing is written yet, and what will be is not compressed
			w.Header().Del("Content-Encoding")
		}
		return err
	}
	return r.Bytes(http.StatusOK, k.body, tail)
}

// leastPacked is from which size on an answer is compressed here, and not where
// all answers are.
const leastPacked = 4 << 10

// packed is the body of an answer as deflate, made when it is first wanted.
type packed struct {
	once sync.Once
	body []byte // ends at a byte
	sum  uint32
}

// with gives body and tail as gzip. The tail changes from one answer to the next
// and stands behind in a block of its own, as it is.
func (p *packed) with(body, tail []byte) []byte {
	p.once.Do(func() {
		var b bytes.Buffer
		z, _ := flate.NewWriter(&b, flate.DefaultCompression) // the level is valid, and a buffer takes all
		_, _ = z.Write(body)
		_ = z.Flush()
		p.body, p.sum = bytes.Clone(b.Bytes()), crc32.ChecksumIEEE(body)
	})
	out := make([]byte, 0, len(gzipHeader)+len(p.body)+5+len(tail)+8)
	out = append(append(out, gzipHeader...), p.body...)
	n := uint16(len(tail)) //nolint:gosec // a position and a time
	out = append(out, 1, byte(n), byte(n>>8), byte(^n), byte(^n>>8))
	out = append(out, tail...)
	out = binary.LittleEndian.AppendUint32(out, crc32.Update(p.sum, crc32.IEEETable, tail))
	return binary.LittleEndian.AppendUint32(out, uint32(len(body)+len(tail))) //nolint:gosec // modulo 2^32, as RFC 1952 has it
}

// gzipHeader is that of RFC 1952: deflate, no name, no time, unknown system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

// underWay are the answers that are being drawn, so that who asks the same at
// the same position waits for one instead of drawing it again. The zero value is
// ready.
type underWay struct {
	mu      sync.Mutex
	answers map[string]*drawing
	drawers map[*httpapi.Request]*drawing
}

type drawing struct {
	key     string
	at      []readmodel.Progress
	edition uint32
	done    chan struct{}
}

// follow waits until somebody else has drawn what c asks. It is false where
// nobody does: then others wait for r, until it has ended.
func (u *underWay) follow(r *httpapi.Request, c *reading) bool {
	u.mu.Lock()
	d := u.answers[c.key]
	if d == nil || d.edition != c.edition || !slices.Equal(d.at, c.drawn) {
		d = &drawing{c.key, c.drawn, c.edition, make(chan struct{})}
		if u.answers == nil {
			u.answers, u.drawers = map[string]*drawing{}, map[*httpapi.Request]*drawing{}
		}
		u.answers[c.key], u.drawers[r] = d, d
		u.mu.Unlock()
		return false
	}
	u.mu.Unlock()
	select {
	case <-d.done:
	case <-r.Context().Done():
	}
	return true
}

// end lets those go on who wait for r.
func (u *underWay) end(r *httpapi.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := u.drawers[r]
	if d == nil {
		return
	}
	delete(u.drawers, r)
	if u.answers[d.key] == d {
		delete(u.answers, d.key)
	}
	close(d.done)
}

// sharing lets callers of h share what it draws.
func (s *Service) sharing(h httpapi.Handler) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		defer s.underWay.end(r)
		return h(w, r)
	}
}

// tag answers with a read of state that nothing is kept of, or with 304 where
// the caller has it.
func tag(w http.ResponseWriter, r *httpapi.Request, at httpapi.AsOf, answer any) error {
	k, err := encode(answer)
	if err != nil {
		return err
	}
	return k.write(w, r, at)
}

// listed answers with rows, shown one by one, and keeps the answer.
func listed[R, T any](w http.ResponseWriter, c *reading, rows []R, key func(*R) string, as func(*R) T) error {
	rows, after := cut(rows, c.r.Limit(), key)
	return c.answer(w, httpapi.NewList(c.r, show(rows, as), after, httpapi.AsOf{}))
}

// inTurn lets callers share a question that none of them came too late for: who
// comes while one is under way waits for the next. The zero value is ready.
type inTurn[T any] struct {
	mu            sync.Mutex
	running, next *turn[T]
}

type turn[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func (q *inTurn[T]) do(ask func() (T, error)) (T, error) {
	q.mu.Lock()
	if q.running != nil && q.next != nil {
		mine := q.next
		q.mu.Unlock()
		<-mine.done
		return mine.value, mine.err
	}
	mine, before := &turn[T]{done: make(chan struct{})}, q.running
	if before == nil {
		q.running = mine
	} else {
		q.next = mine
	}
	q.mu.Unlock()
	if before != nil {
		<-before.done
	}
	defer func() { // also where ask panics: others wait
		q.mu.Lock()
		q.running, q.next = q.next, nil
		q.mu.Unlock()
		close(mine.done)
	}()
	mine.value, mine.err = ask()
	return mine.value, mine.err
}
