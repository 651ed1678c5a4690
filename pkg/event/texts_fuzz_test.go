package event_test

import (
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
)

// FuzzTexts feeds one text to everything that reads what clients write of
// positions, times and words. What is taken says the same when it is written again.
func FuzzTexts(f *testing.F) {
	for _, seed := range []string{
		"", "t0.1.0", "t0.8123.17,c.412.0", "o.9.0", "t00.1.0", "t0.18446744073709551615.1023", "t0.01.0", "t0.1", ",", "c.1.0,",
		"2026-03-02T10:00:00Z", "2026-03-02t10:00:00.123456789+02:00", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999-23:59", "2026-02-30T00:00:00Z",
		"started", " SUCCESS ", "İn_progress", "production", "Prod", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := event.ParsePosition(text); err == nil {
			if again, err := event.ParsePosition(p.String()); err != nil || again != p {
				t.Errorf("the position %q is %v, and that is read as %v, %v", text, p, again, err)
			}
		}
		if all, err := event.ParsePositions(text); err == nil && len(all) == 0 {
			t.Errorf("%q is no position at all", text)
		}
		if at, err := event.ParseTime(text); err == nil {
			again, err := event.ParseTime(at.Format(time.RFC3339Nano))
			if year := at.Year(); year >= 0 && year <= 9999 && (err != nil || !again.Equal(at)) {
				t.Errorf("the time %q is %v, and that is read as %v, %v", text, at, again, err)
			}
		}
		if s, ok := event.ParseStatus(text); ok {
			if again, ok := event.ParseStatus(s.String()); !ok || again != s {
				t.Errorf("the status %q is %v", text, s)
			}
		}
		if c, ok := event.ParseClass(text); ok {
			if again, ok := event.ParseClass(c.String()); !ok || again != c {
				t.Errorf("the class %q is %v", text, c)
			}
		}
	})
}
