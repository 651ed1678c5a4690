package containers_test

import (
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
