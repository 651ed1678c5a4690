package ratelimit

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// state is what processes share of a bucket. Stored it reads
//
//	tokens at [owner tokens until]…
//
// with times in nanoseconds since 1970.
type state struct {
	tokens float64
	at     int64
	holds  []hold
}

// hold is a lease: tokens that a process has taken and may still give out. They
// count against the burst, or a bucket that fills meanwhile would give more.
type hold struct {
	owner  string
	tokens int
	until  int64
}

func full(r Rate, at int64) state { return state{tokens: float64(r.Burst), at: at} }

// fill adds what came since the last time and forgets leases that are over. A
// clock that went back adds nothing.
func (s *state) fill(r Rate, at int64) {
	if at > s.at {
		s.tokens += time.Duration(at-s.at).Seconds() * r.PerSecond()
		s.at = at
	}
	if len(s.holds) > 0 {
		s.holds = slices.DeleteFunc(s.holds, func(h hold) bool { return h.until <= s.at })
	}
	s.limit(r)
}

func (s *state) limit(r Rate) {
	held := 0
	for _, h := range s.holds {
		held += h.tokens
	}
	s.tokens = max(0, min(s.tokens, float64(r.Burst-held)))
}

// release ends the lease of owner, who gives tokens back.
func (s *state) release(owner string, tokens int, r Rate) {
	s.holds = slices.DeleteFunc(s.holds, func(h hold) bool { return h.owner == owner })
	s.tokens += float64(tokens)
	s.limit(r)
}

func (s *state) hold(owner string, tokens int, until int64) {
	if tokens > 0 {
		s.holds = append(s.holds, hold{owner, tokens, until})
	}
}

func (s *state) copied() state {
	return state{s.tokens, s.at, append(make([]hold, 0, len(s.holds)+1), s.holds...)}
}

func (s *state) append(dst []byte) []byte {
	dst = strconv.AppendFloat(dst, s.tokens, 'g', -1, 64)
	dst = strconv.AppendInt(append(dst, ' '), s.at, 10)
	for _, h := range s.holds {
		dst = append(append(dst, ' '), h.owner...)
		dst = strconv.AppendInt(append(dst, ' '), int64(h.tokens), 10)
		dst = strconv.AppendInt(append(dst, ' '), h.until, 10)
	}
	return dst
}

// decode reads what append wrote, and tells whether that is what it was given.
func decode(text []byte) (s state, ok bool) {
	words := strings.Fields(string(text))
	if len(words) < 2 || len(words)%3 != 2 {
		return state{}, false
	}
	var err error
	number := func(word string, most int64) int64 {
		n, e := strconv.ParseInt(word, 10, 64)
		if e != nil || n < 0 || n > most {
			err = strconv.ErrRange
		}
		return n
	}
	const ever = 1<<63 - 1
	if s.tokens, err = strconv.ParseFloat(words[0], 64); err != nil || !(s.tokens >= 0 && s.tokens <= maxBurst) {
		return state{}, false
	}
	s.at = number(words[1], ever)
	for rest := words[2:]; len(rest) > 0; rest = rest[3:] {
		s.holds = append(s.holds, hold{rest[0], int(number(rest[1], maxBurst)), number(rest[2], ever)})
	}
	return s, err == nil
}
