// Package ratelimit counts requests against the budgets of credentials and
// accounts (contract 3.6).
//
// A budget is a token bucket. Buckets stand in a Bank: Memory is that of one
// process, Leased that of several, which draw on shared buckets a few tokens at
// a time. Limiter knows which buckets a request draws on. Whoever asks says what
// time it is.
package ratelimit

import (
	"fmt"
	"math"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
)

// Config holds a rate for every class of contract 3.6.
type Config struct {
	Ingestion        Rate // any credential, on ingestion
	AccountIngestion Rate // all API keys of an account together, on ingestion
	Read             Rate // other requests, by the highest scope held
	EventsWrite      Rate
	Write            Rate // write and admin
	Session          Rate
}

// Default is what the contract says where nobody says otherwise.
func Default() Config {
	perMinute := func(n int) Rate { return Rate{n, time.Minute, n} }
	return Config{
		Ingestion:        perMinute(1000),
		AccountIngestion: Rate{10_000, time.Hour, 10_000},
		Read:             perMinute(120),
		EventsWrite:      perMinute(60),
		Write:            perMinute(30),
		Session:          Rate{300, time.Minute, 500},
	}
}

// WithDefaults gives the classes that nobody set the rates of Default.
func (c Config) WithDefaults() Config {
	defaults := Default()
	set := c.classes()
	for i, class := range defaults.classes() {
		if *set[i].rate == (Rate{}) {
			*set[i].rate = *class.rate
		}
	}
	return c
}

// Validate finds rates that no bucket can have.
func (c Config) Validate() error {
	for _, class := range c.classes() {
		if !class.rate.valid() {
			return fmt.Errorf("the rate of %s, %v, is none: tokens, time and burst must be above zero, the burst at most %d and there within %v",
				class.name, class.rate, maxBurst, maxFill)
		}
	}
	return nil
}

// Slowest is how long the slowest bucket takes to be full: no bucket remembers
// anything for longer.
func (c Config) Slowest() time.Duration {
	var slowest time.Duration
	for _, class := range c.classes() {
		slowest = max(slowest, class.rate.FillTime())
	}
	return slowest
}

type class struct {
	name string
	rate *Rate
}

func (c *Config) classes() []class {
	return []class{
		{"ingestion", &c.Ingestion},
		{"the ingestion of an account", &c.AccountIngestion},
		{"read", &c.Read},
		{"events:write", &c.EventsWrite},
		{"write", &c.Write},
		{"sessions", &c.Session},
	}
}

// A Bank keeps buckets.
//
// Implementations must be safe for concurrent use, and must let through at most
// what the rate allows, whoever asks.
type Bank interface {
	// Take takes up to n tokens out of the bucket of that name, and tells how
	// many it gave and how many are left. A bucket nobody asked for is full. A
	// negative n gives tokens back that were taken and not needed.
	Take(bucket string, r Rate, n int, now time.Time) (granted int, left float64)
}

// A Budget is the state of the tighter of the limits that apply to a request.
type Budget struct {
	Granted    int
	Limit      int
	Remaining  int
	Full       time.Time     // when the bucket is whole again
	RetryAfter time.Duration // until one token is there; zero while one is
}

// Limiter draws on the buckets that a request must pay.
type Limiter struct {
	cfg  Config
	bank Bank
	now  func() time.Time
}

// NewLimiter returns a limiter whose buckets stand in bank.
func NewLimiter(cfg Config, bank Bank, now func() time.Time) *Limiter {
	return &Limiter{cfg, bank, now}
}

// Take takes up to n tokens and tells how many were granted; with n = 0 it tells
// the state. Where two buckets apply, a request needs a
// token of both, and the tighter one is told.
func (l *Limiter) Take(id *credential.Identity, ingestion bool, n int) Budget {
	now := l.now()
	rate, name := l.class(id, ingestion)
	if !ingestion || id.Kind != credential.APIKey {
		granted, left := l.bank.Take(name, rate, n, now)
		return budget(rate, granted, left, now)
	}
	// The account first: what its bucket does not give is not taken from the key's.
	account := "account." + id.Account
	granted, left := l.bank.Take(account, l.cfg.AccountIngestion, n, now)
	ofAccount := budget(l.cfg.AccountIngestion, granted, left, now)
	granted, left = l.bank.Take(name, rate, granted, now)
	ofKey := budget(rate, granted, left, now)
	if over := ofAccount.Granted - granted; over > 0 { // give back what the key's bucket did not match
		l.bank.Take(account, l.cfg.AccountIngestion, -over, now)
		ofAccount.Remaining += over
	}
	ofAccount.Granted = granted
	if n > ofAccount.Granted && ofAccount.RetryAfter > ofKey.RetryAfter || ofAccount.Remaining < ofKey.Remaining {
		return ofAccount
	}
	return ofKey
}

// class gives the rate and the bucket of a request (contract 3.6). A credential
// with a rate of its own has it for either bucket.
func (l *Limiter) class(id *credential.Identity, ingestion bool) (Rate, string) {
	rate, name := l.classOfAll(id, ingestion)
	if id.Limits != nil && id.Limits.Rate != (credential.Rate{}) {
		rate = Rate(id.Limits.Rate)
	}
	return rate, name
}

func (l *Limiter) classOfAll(id *credential.Identity, ingestion bool) (Rate, string) {
	name := id.RecordID
	switch {
	case ingestion:
		return l.cfg.Ingestion, "ingestion." + name
	case id.Kind == credential.Session:
		return l.cfg.Session, "other." + name
	case id.Scopes.Has(credential.Write) || id.Scopes.Has(credential.Admin):
		return l.cfg.Write, "other." + name
	case id.Scopes.Has(credential.EventsWrite):
		return l.cfg.EventsWrite, "other." + name
	}
	return l.cfg.Read, "other." + name
}

func budget(r Rate, granted int, left float64, now time.Time) Budget {
	b := Budget{
		Granted: granted, Limit: r.Burst, Remaining: max(0, int(left)),
		Full: now.Add(duration((float64(r.Burst) - left) / r.PerSecond())),
	}
	if left < 1 {
		b.RetryAfter = duration((1 - left) / r.PerSecond())
	}
	return b
}

func duration(seconds float64) time.Duration {
	return time.Duration(math.Ceil(max(0, seconds) * float64(time.Second)))
}
