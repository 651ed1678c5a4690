package ratelimit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

var epoch = time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)

// desk is a limiter on a clock that the test holds.
type desk struct {
	*ratelimit.Limiter
	now time.Time
}

func newDesk(cfg ratelimit.Config) *desk {
	d := &desk{now: epoch}
	d.Limiter = ratelimit.NewLimiter(cfg, ratelimit.NewMemory(), func() time.Time { return d.now })
	return d
}

func key(account, id string) *credential.Identity {
	return &credential.Identity{Kind: credential.APIKey, Account: account, RecordID: id, Scopes: credential.EventsWrite}
}

func pat(id string, scopes credential.Scopes) *credential.Identity {
	return &credential.Identity{Kind: credential.PAT, Account: "acme", RecordID: id, Scopes: scopes}
}

func (d *desk) takeOne(t *testing.T, id *credential.Identity, ingestion bool) ratelimit.Budget {
	t.Helper()
	return d.Take(id, ingestion, 1)
}

func TestAKeyPostsAThousandAndNotOneMore(t *testing.T) {
	d := newDesk(ratelimit.Default())
	for i := range 1000 {
		if b := d.takeOne(t, key("acme", "k1"), true); b.Granted != 1 || b.Limit != 1000 || b.Remaining != 999-i {
			t.Fatalf("request %d: %+v", i+1, b)
		}
	}
	b := d.takeOne(t, key("acme", "k1"), true)
	if b.Granted != 0 || b.RetryAfter <= 0 || b.RetryAfter > time.Second {
		t.Errorf("request 1001: %+v", b)
	}
	d.now = d.now.Add(b.RetryAfter)
	if b := d.takeOne(t, key("acme", "k1"), true); b.Granted != 1 {
		t.Errorf("after RetryAfter: %+v", b)
	}
	if b := d.takeOne(t, key("acme", "k2"), true); b.Granted != 1 {
		t.Errorf("another key: %+v", b)
	}
}

func TestTheKeysOfAnAccountShareTenThousandAnHour(t *testing.T) {
	d := newDesk(ratelimit.Default())
	for i := range 10_000 {
		if b := d.takeOne(t, key("acme", string(rune('a'+i%11))), true); b.Granted != 1 {
			t.Fatalf("request %d: %+v", i+1, b)
		}
	}
	if b := d.takeOne(t, key("acme", "fresh"), true); b.Granted != 0 || b.Limit != 10_000 {
		t.Errorf("request 10001: %+v", b)
	}
	if b := d.takeOne(t, key("other", "k1"), true); b.Granted != 1 {
		t.Errorf("another account: %+v", b)
	}
	if b := d.takeOne(t, pat("p", credential.EventsWrite), true); b.Granted != 1 {
		t.Errorf("a token is not an API key: %+v", b)
	}
}

func TestTheHighestScopeDecidesTheClass(t *testing.T) {
	for scopes, want := range map[credential.Scopes]int{
		credential.Read:                                                                120,
		credential.Read | credential.EventsWrite:                                       60,
		credential.Read | credential.EventsWrite | credential.Write:                    30,
		credential.Read | credential.EventsWrite | credential.Write | credential.Admin: 30,
	} {
		if b := newDesk(ratelimit.Default()).takeOne(t, pat("p", scopes), false); b.Limit != want {
			t.Errorf("scopes %b: limit %d, want %d", scopes, b.Limit, want)
		}
	}
	session := &credential.Identity{Kind: credential.Session, RecordID: "s", Scopes: credential.Read}
	if b := newDesk(ratelimit.Default()).takeOne(t, session, false); b.Limit != 500 {
		t.Errorf("a session's burst is %d, want 500", b.Limit)
	}
}

func TestIngestionAndTheRestAreTwoBudgets(t *testing.T) {
	d := newDesk(ratelimit.Default())
	id := pat("p", credential.Read|credential.EventsWrite)
	for range 60 {
		d.takeOne(t, id, false)
	}
	if b := d.takeOne(t, id, false); b.Granted != 0 {
		t.Errorf("the 61st other request: %+v", b)
	}
	if b := d.takeOne(t, id, true); b.Granted != 1 {
		t.Errorf("an event: %+v", b)
	}
}

func TestABatchTakesWhatFits(t *testing.T) {
	d := newDesk(ratelimit.Default())
	if b := d.Take(key("acme", "k1"), true, 600); b.Granted != 600 || b.Remaining != 400 {
		t.Fatalf("first batch: %+v", b)
	}
	if b := d.Take(key("acme", "k1"), true, 600); b.Granted != 400 || b.Remaining != 0 || b.RetryAfter <= 0 {
		t.Errorf("second batch: %+v", b)
	}
	// What the key's bucket did not give was not taken from the account's.
	total := 1000
	for i := range 20 {
		total += d.Take(key("acme", string(rune('a'+i))), true, 1000).Granted
	}
	if total != 10_000 {
		t.Errorf("the account let %d through, want 10000", total)
	}
}

func TestAskingForNothingTellsTheState(t *testing.T) {
	d := newDesk(ratelimit.Default())
	d.takeOne(t, key("acme", "k1"), true)
	if b := d.Take(key("acme", "k1"), true, 0); b.Granted != 0 || b.Remaining != 999 {
		t.Errorf("state: %+v", b)
	}
}

func TestABucketOfSixtyRefusesTheNextAndThenPassesOneASecond(t *testing.T) {
	cfg := ratelimit.Default()
	cfg.Read = ratelimit.Rate{Tokens: 60, Per: time.Minute, Burst: 60}
	d := newDesk(cfg)
	id := pat("p", credential.Read)
	for i := range 60 {
		if b := d.takeOne(t, id, false); b.Granted != 1 {
			t.Fatalf("request %d: %+v", i+1, b)
		}
	}
	for range 5 {
		if b := d.takeOne(t, id, false); b.Granted != 0 || b.RetryAfter != time.Second {
			t.Fatalf("an empty bucket: %+v", b)
		}
		d.now = d.now.Add(time.Second)
		if b := d.takeOne(t, id, false); b.Granted != 1 {
			t.Fatalf("a second later: %+v", b)
		}
	}
}

func TestNeverMoreThanBurstAndRateAllow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := ratelimit.Rate{Tokens: rapid.IntRange(1, 100).Draw(t, "tokens"), Per: time.Minute, Burst: rapid.IntRange(1, 50).Draw(t, "burst")}
		bank, now, through := ratelimit.NewMemory(), epoch, 0
		for range rapid.IntRange(1, 100).Draw(t, "asks") {
			now = now.Add(time.Duration(rapid.IntRange(-1000, 5000).Draw(t, "ms")) * time.Millisecond)
			granted, left := bank.Take("b", r, rapid.IntRange(0, 60).Draw(t, "n"), now)
			through += granted
			if left < 0 || left > float64(r.Burst) {
				t.Fatalf("%v tokens are left of %d", left, r.Burst)
			}
		}
		passed := max(0, now.Sub(epoch).Seconds()) + 100 // a clock may have been ahead
		if most := float64(r.Burst) + passed*r.PerSecond(); float64(through) > most {
			t.Fatalf("%d went through, the rate allows %.1f", through, most)
		}
	})
}
