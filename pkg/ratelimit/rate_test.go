package ratelimit_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/ratelimit"
)

func TestRateIsReadAsItIsWritten(t *testing.T) {
	for text, want := range map[string]ratelimit.Rate{
		"1000/1m":           {Tokens: 1000, Per: time.Minute, Burst: 1000},
		"10000/1h":          {Tokens: 10_000, Per: time.Hour, Burst: 10_000},
		"60/1m,burst=100":   {Tokens: 60, Per: time.Minute, Burst: 100},
		"5/1m30s,burst=1":   {Tokens: 5, Per: 90 * time.Second, Burst: 1},
		"1/250ms":           {Tokens: 1, Per: 250 * time.Millisecond, Burst: 1},
		"20/10m,burst=1000": {Tokens: 20, Per: 10 * time.Minute, Burst: 1000},
	} {
		got, err := ratelimit.ParseRate(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v; written again %s", text, got, err, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		r := ratelimit.Rate{
			Tokens: rapid.IntRange(1, 1<<20).Draw(t, "tokens"),
			Per:    time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "per")),
			Burst:  rapid.IntRange(1, 700).Draw(t, "burst"),
		}
		if got, err := ratelimit.ParseRate(r.String()); err != nil || got != r {
			t.Fatalf("%+v is written %s and read %+v, %v", r, r, got, err)
		}
	})
}

func TestWrongRateIsRefusedWithWhatIsWrong(t *testing.T) {
	for text, says := range map[string]string{
		"":                         "has no time",
		"1000":                     "has no time",
		"many/1m":                  `"many" is not a number`,
		"0/1m":                     `"0" is not a number above zero`,
		"-5/1m":                    `"-5" is not a number above zero`,
		"1.5/1m":                   `"1.5" is not a number`,
		"60/minute":                `"minute" is not a time`,
		"60/0s":                    `"0s" is not a time`,
		"60/-1m":                   `"-1m" is not a time`,
		"60/1m,burst=":             `the burst "" is not`,
		"60/1m,burst=0":            `the burst "0" is not`,
		"60/1m+100":                `"1m+100" is not a time`,
		"1/24h,burst=1000":         "full within",
		"9000000000/1m":            "at most",
		"99999999999999999999/1m":  "is not a number",
		"60/1m,burst=100,burst=10": "the burst",
	} {
		_, err := ratelimit.ParseRate(text)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "write 1000/1m") {
			t.Errorf("%q: %v, want it to say %q and what to write", text, err, says)
		}
	}
}

func TestClassesThatNobodySetAreTheDefaults(t *testing.T) {
	strict := ratelimit.Rate{Tokens: 6, Per: time.Minute, Burst: 6}
	want := ratelimit.Default()
	want.Read = strict
	if got := (ratelimit.Config{Read: strict}).WithDefaults(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	bad := ratelimit.Default()
	bad.EventsWrite.Burst = 0
	if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "events:write") {
		t.Errorf("a class without a burst: %v", err)
	}
	if err := want.Validate(); err != nil {
		t.Error(err)
	}
	if got := want.Slowest(); got != time.Hour {
		t.Errorf("the slowest bucket is full after %v, want an hour", got)
	}
}
