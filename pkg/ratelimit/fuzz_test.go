package ratelimit_test

import (
	"testing"

	"github.com/shipledger/shipledger/pkg/ratelimit"
)

func FuzzParseRate(f *testing.F) {
	for _, seed := range []string{"1000/1m", "60/1m,burst=100", "1/744h", "0/1m", "1/0", "9223372036854775807/1ns", "1/1m,burst=", "1/1m,burst=1,burst=2", "+1/1m", "1/1e9h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ratelimit.ParseRate(text)
		if err != nil {
			return
		}
		again, err := ratelimit.ParseRate(r.String())
		if err != nil || again != r || r.PerSecond() <= 0 {
			t.Errorf("%q is %+v, written as %s and read as %+v, %v", text, r, r, again, err)
		}
	})
}
