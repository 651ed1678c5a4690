package containers_test

import (
	"slices"
	"testing"
	"time"
)

// trouble is something that happens to a part of a system, and how it ends.
type trouble struct {
	name       string
	begin, end func(s *system, part string)
}

var troubles = []trouble{
	{"killed", (*system).kill, (*system).back},
	{"paused", (*system).pause, (*system).resume},
	{"cut off", (*system).cut, (*system).join},
}

// parts of a system of several containers, and whether reports are acknowledged
// while one is away.
var parts = []struct {
	name     string
	writesOn bool
}{
	{"nats", false},
	{"ingest", false},
	{"console", false},
	{"clickhouse", true},
	{"query", true},
	{"projector", true},
	{"accounts", true},
	{"mcp", true},
}

// lasts is how long a trouble holds where nothing else tells its end.
const lasts = 2 * time.Second

func TestOneContainerLosesNothingWhenItIsKilledPausedOrStopped(t *testing.T) {
	s := start(t, "embedded.yaml", "shipledger")
	c := s.credentials("shipledger")
	r := s.report("embedded", c.APIKey)
	r.goesOn(t, 20)
	for _, w := range troubles[:2] { // cut off, nobody could ask it
		w.begin(s, "shipledger")
		<-time.After(lasts)
		w.end(s, "shipledger")
		t.Logf("%s: 20 more acknowledged %s after it was back", w.name, r.goesOn(t, 20).Round(time.Millisecond))
	}
	if code := s.stop("shipledger"); code != 0 {
		t.Errorf("told to stop, it exits with %d", code)
	}
	s.back("shipledger")
	t.Logf("stopped: 20 more acknowledged %s after it was back", r.goesOn(t, 20).Round(time.Millisecond))
	s.healthy()
	s.settles(r, "embedded", c.PAT)
}

func TestSeveralContainersLoseNothingWhicheverIsKilledPausedOrCutOff(t *testing.T) {
	s := start(t, "separate.yaml", "console")
	c := s.credentials("accounts")
	r := s.report("separate", c.APIKey)
	r.goesOn(t, 20)
	for _, part := range parts {
		for _, w := range troubles {
			w.begin(s, part.name)
			if part.writesOn {
				r.goesOn(t, 20)
			} else {
				<-time.After(lasts)
			}
			w.end(s, part.name)
			t.Logf("%s %s: 20 more acknowledged %s after it was back", part.name, w.name, r.goesOn(t, 20).Round(time.Millisecond))
		}
	}
	s.healthy()
	s.settles(r, "separate", c.PAT)
	for _, name := range slices.Backward(s.order) {
		if code := s.stop(name); code != 0 {
			t.Errorf("told to stop, %s exits with %d", name, code)
		}
	}
}
