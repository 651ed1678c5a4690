package ratelimit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Rate says how a bucket fills: Tokens in every Per, up to Burst.
//
// It is written as tokens over a time, 1000/1m, where the burst equals the
// tokens, and else with the burst behind, 60/1m,burst=100.
type Rate struct {
	Tokens int
	Per    time.Duration
	Burst  int
}

// MaxFill is the longest that the own budget of a credential may take to be
// full: whoever keeps budgets forgets them no sooner.
const MaxFill = 24 * time.Hour

const burstMark = ",burst="

// ParseRate reads what String writes.
func ParseRate(text string) (Rate, error) {
	refuse := func(why string, args ...any) (Rate, error) {
		return Rate{}, fmt.Errorf("rate %q: %s; write 1000/1m, or 60/1m,burst=100", text, fmt.Sprintf(why, args...))
	}
	rate, burst, hasBurst := strings.Cut(text, burstMark)
	tokens, per, ok := strings.Cut(rate, "/")
	if !ok {
		return refuse("it has no time")
	}
	var r Rate
	var err error
	if r.Tokens, err = strconv.Atoi(tokens); err != nil || r.Tokens < 1 {
		return refuse("%q is not a number above zero", tokens)
	}
	if r.Per, err = time.ParseDuration(per); err != nil || r.Per <= 0 {
		return refuse("%q is not a time such as 1m, 1h or 10s", per)
	}
	r.Burst = r.Tokens
	if hasBurst {
		if r.Burst, err = strconv.Atoi(burst); err != nil || r.Burst < 1 {
			return refuse("the burst %q is not a number above zero", burst)
		}
	}
	if !r.valid() {
		return refuse("a burst may be at most %d, and its bucket must be full within %v", maxBurst, maxFill)
	}
	return r, nil
}

// String writes a rate as ParseRate reads it.
func (r Rate) String() string {
	text := strconv.Itoa(r.Tokens) + "/" + shortest(r.Per)
	if r.Burst != r.Tokens {
		text += burstMark + strconv.Itoa(r.Burst)
	}
	return text
}

// Time writes the time that Tokens come in, as ParseRate reads it.
func (r Rate) Time() string { return shortest(r.Per) }

// shortest writes 1m, not 1m0s.
func shortest(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, for flags and variables.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}

// Limits that no budget needs and that keep what is computed of a rate exact: a
// bucket remembers for as long as it takes to fill.
const (
	maxBurst = 1 << 30
	maxFill  = 31 * 24 * time.Hour
)

func (r Rate) valid() bool {
	return r.Tokens > 0 && r.Per > 0 && r.Burst > 0 && r.Burst <= maxBurst && r.fillSeconds() <= maxFill.Seconds()
}

// PerSecond is how many tokens come in a second.
func (r Rate) PerSecond() float64 { return float64(r.Tokens) / r.Per.Seconds() }

// FillTime is how long an empty bucket takes to be full.
func (r Rate) FillTime() time.Duration { return duration(r.fillSeconds()) }

func (r Rate) fillSeconds() float64 { return float64(r.Burst) / r.PerSecond() }
