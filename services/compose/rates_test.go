package compose_test

import (
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/shipledger/shipledger/pkg/ratelimit"
	"github.com/shipledger/shipledger/services/compose"
)

// parse reads a command line as the binary does.
func parse(t *testing.T, args ...string) (compose.Config, error) {
	t.Helper()
	var cfg compose.Config
	parser, err := kong.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return cfg, err
}

func TestRatesThatNobodySetAreThoseOfTheContract(t *testing.T) {
	cfg, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if got := ratelimit.Config(cfg.Rates); got != ratelimit.Default() {
		t.Errorf("%+v, want %+v", got, ratelimit.Default())
	}
}

func TestEveryRateHasAFlagAndAVariable(t *testing.T) {
	for _, class := range []struct {
		name string
		of   func(ratelimit.Config) ratelimit.Rate
	}{
		{"ingestion", func(c ratelimit.Config) ratelimit.Rate { return c.Ingestion }},
		{"account-ingestion", func(c ratelimit.Config) ratelimit.Rate { return c.AccountIngestion }},
		{"read", func(c ratelimit.Config) ratelimit.Rate { return c.Read }},
		{"events-write", func(c ratelimit.Config) ratelimit.Rate { return c.EventsWrite }},
		{"write", func(c ratelimit.Config) ratelimit.Rate { return c.Write }},
		{"session", func(c ratelimit.Config) ratelimit.Rate { return c.Session }},
	} {
		t.Run(class.name, func(t *testing.T) {
			cfg, err := parse(t, "--rate-"+class.name+"=7/10s,burst=9")
			if got := class.of(ratelimit.Config(cfg.Rates)); err != nil || got != (ratelimit.Rate{Tokens: 7, Per: 10 * time.Second, Burst: 9}) {
				t.Errorf("by the flag: %v, %v", got, err)
			}
			variable := "SHIPLEDGER_RATE_" + strings.ToUpper(strings.ReplaceAll(class.name, "-", "_"))
			t.Setenv(variable, "8/1h")
			cfg, err = parse(t)
			if got := class.of(ratelimit.Config(cfg.Rates)); err != nil || got != (ratelimit.Rate{Tokens: 8, Per: time.Hour, Burst: 8}) {
				t.Errorf("by the variable: %v, %v", got, err)
			}
			t.Setenv(variable, "many")
			if _, err := parse(t); err == nil || !strings.Contains(err.Error(), "rate-"+class.name) || !strings.Contains(err.Error(), "write 1000/1m") {
				t.Errorf("a wrong rate: %v", err)
			}
		})
	}
}
