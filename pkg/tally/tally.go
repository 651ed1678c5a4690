// Package tally counts events where they are accepted, so that what became of
// them can be held against it.
//
// The committer writes into every frame how many events of which account and
// type it holds, and the running total of its stream. Whoever later asks how
// many were accepted up to a position reads headers, and no event: what the
// tables say is checked against what the write side said when it answered.
//
//	frame 257   Shipledger-Tally:  901@256 acme:deployment.completed=2,version.created=1
//	frame 256   Shipledger-Tally:  898@256 acme:build.started=1
//	            Shipledger-Totals: acme:build.started=400,deployment.completed=498
//
// The first number is the total of the stream up to and with the frame, the
// second the sequence of the last frame that carries the totals of everything.
// An answer is those totals and the tallies since, a few hundred frames at most.
//
// Totals grow with accounts and types, so they are written less often the more
// there are: they add about as many bytes to a log as one account's name to
// every frame, however many accounts share it.
package tally

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/shipledger/shipledger/pkg/event"
)

// The headers of a frame.
const (
	Header       = "Shipledger-Tally"
	TotalsHeader = "Shipledger-Totals"
)

const (
	// leastApart is the fewest frames between two that carry totals.
	leastApart = 256
	// MaxTotals bounds the bytes of TotalsHeader: with the largest frame of many
	// events (512 KiB) it stays below what a server takes (1 MiB). A ledger of
	// more keeps counting from the last totals that fitted.
	MaxTotals = 256 << 10
)

// Key is what events are counted by.
type Key struct {
	Account string
	Type    event.Type
}

// Counts is a number of events by account and type.
type Counts map[Key]uint64

// Of counts events.
func Of(events []event.Recorded) Counts {
	c := Counts{}
	for i := range events {
		c.Count(&events[i].Event)
	}
	return c
}

// Count adds one event.
func (c Counts) Count(e *event.Event) { c[Key{e.Account, e.Type}]++ }

// Add adds all of other.
func (c Counts) Add(other Counts) {
	for k, n := range other {
		c[k] += n
	}
}

// Sum gives the number of events.
func (c Counts) Sum() (n uint64) {
	for _, more := range c {
		n += more
	}
	return n
}

// Book keeps the running totals of one stream. The zero value is that of an
// empty stream. It is for one goroutine.
type Book struct {
	totals Counts
	total  uint64
	at     uint64 // sequence of the last frame with totals; 0: none
	shown  int    // bytes that the totals take
}

// Headers gives the headers of a frame at seq that holds these events, where
// room says how many bytes may go into totals. It does not enter the frame.
func (b *Book) Headers(seq uint64, counts Counts, room int) map[string]string {
	at := b.at
	var totals []byte
	if len(b.totals) > 0 && seq-b.at >= max(leastApart, uint64(len(b.totals))) && b.shown <= min(room, MaxTotals) {
		all := maps.Clone(b.totals)
		all.Add(counts)
		totals = appendCounts(make([]byte, 0, b.shown), all)
		if b.shown = len(totals); b.shown <= min(room, MaxTotals) {
			at = seq
		}
	}
	line := strconv.AppendUint(make([]byte, 0, 96), b.total+counts.Sum(), 10)
	line = append(line, '@')
	line = strconv.AppendUint(line, at, 10)
	line = append(line, ' ')
	h := map[string]string{Header: string(appendCounts(line, counts))}
	if at == seq {
		h[TotalsHeader] = string(totals)
	}
	return h
}

// Enter adds a frame that is stored.
func (b *Book) Enter(seq uint64, counts Counts, headers map[string]string) {
	if b.totals == nil {
		b.totals = Counts{}
	}
	for k := range counts {
		if _, known := b.totals[k]; !known {
			b.shown += len(k.Type) + len("=1,")
		}
	}
	b.totals.Add(counts)
	b.total += counts.Sum()
	if shown, ok := headers[TotalsHeader]; ok {
		b.at, b.shown = seq, len(shown)
	}
}

// Total gives the number of events entered.
func (b *Book) Total() uint64 { return b.total }

// MarshalText writes the book, for UnmarshalText.
func (b *Book) MarshalText() ([]byte, error) {
	head := fmt.Appendf(nil, "%d@%d %d ", b.total, b.at, b.shown)
	return appendCounts(head, b.totals), nil
}

// UnmarshalText reads what MarshalText wrote.
func (b *Book) UnmarshalText(text []byte) error {
	words := strings.SplitN(string(text), " ", 3)
	if len(words) < 3 {
		return fmt.Errorf("%q is no book of totals", text)
	}
	l, err := ParseLine(words[0] + " " + words[2])
	if err != nil {
		return err
	}
	shown, err := strconv.Atoi(words[1])
	if err != nil {
		return fmt.Errorf("bytes of the totals: %w", err)
	}
	if sum := l.Counts.Sum(); sum != l.Total {
		return fmt.Errorf("%w: %d in all, %d by account and type", ErrInconsistent, l.Total, sum)
	}
	*b = Book{totals: l.Counts, total: l.Total, at: l.At, shown: shown}
	return nil
}

// appendCounts writes account:type=n,type=n account:type=n, in order.
func appendCounts(dst []byte, c Counts) []byte {
	keys := make([]Key, 0, 8)
	for k := range c {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Type, b.Type))
	})
	for i, k := range keys {
		switch {
		case i == 0 || k.Account != keys[i-1].Account:
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = append(append(dst, url.QueryEscape(k.Account)...), ':')
		default:
			dst = append(dst, ',')
		}
		dst = append(append(dst, url.QueryEscape(string(k.Type))...), '=')
		dst = strconv.AppendUint(dst, c[k], 10)
	}
	return dst
}

func parseCounts(text string) (Counts, error) {
	c := Counts{}
	if text == "" {
		return c, nil
	}
	for group := range strings.SplitSeq(text, " ") {
		account, list, ok := strings.Cut(group, ":")
		if !ok {
			return nil, fmt.Errorf("%q names no account", group)
		}
		account, err := url.QueryUnescape(account)
		if err != nil {
			return nil, err
		}
		for part := range strings.SplitSeq(list, ",") {
			name, number, _ := strings.Cut(part, "=")
			name, err := url.QueryUnescape(name)
			if err != nil {
				return nil, err
			}
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("count of %s: %w", name, err)
			}
			c[Key{account, event.Type(name)}] += n
		}
	}
	return c, nil
}

// Line is a frame's tally.
type Line struct {
	Total  uint64 // events of the stream up to and with the frame
	At     uint64 // sequence of the last frame with totals, 0 for none
	Counts Counts // the frame's own
}

// ParseLine reads Header.
func ParseLine(text string) (Line, error) {
	numbers, list, ok := strings.Cut(text, " ")
	total, at, ok2 := strings.Cut(numbers, "@")
	if !ok || !ok2 {
		return Line{}, fmt.Errorf("%q is no tally", text)
	}
	var l Line
	var err error
	if l.Total, err = strconv.ParseUint(total, 10, 64); err != nil {
		return Line{}, fmt.Errorf("total of a tally: %w", err)
	}
	if l.At, err = strconv.ParseUint(at, 10, 64); err != nil {
		return Line{}, fmt.Errorf("place of the totals: %w", err)
	}
	if l.Counts, err = parseCounts(list); err != nil {
		return Line{}, fmt.Errorf("read a tally: %w", err)
	}
	return l, nil
}
