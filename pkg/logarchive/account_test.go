package logarchive_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/logarchive"
)

func TestAnAccountsArchiveHoldsItsOwnEventsOnly(t *testing.T) {
	log := memlog.New()
	for i, body := range []string{
		`[{"source":"/accounts/acme","id":"A1"},{"source":"/accounts/other","id":"secret"},{"source":"/accounts/acme","id":"A2"}]`,
		`[{"source":"/accounts/acme-two","id":"secret"}]`,
	} {
		f := eventlog.Frame{ID: body, Body: []byte(body), Headers: map[string]string{"Shipledger-Tally": "3@0 other:secret=1"}}
		if _, err := log.AppendFrame(ctx, f, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := logarchive.WriteAccount(ctx, &out, "acme", []logarchive.Source{{Stream: "t0", Log: log}}, logarchive.Options{}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Contains(text, "secret") || strings.Count(text, "\n") != 3 || !strings.Contains(text, `"indexes":[0,2],"body":[{"source":"/accounts/acme","id":"A1"},{"source":"/accounts/acme","id":"A2"}]`) ||
		!strings.Contains(text, `{"end":true,"frames":1,"events":2,"sum":"`) {
		t.Error(text)
	}
}
