package cli_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/services/cli"
)

// FuzzLines: each line of an import file is an item with a body that is JSON, or
// a fault; a broken one takes no other with it.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{"", "{}\n", `{"product_name":"a","time":"2026-01-01T00:00:00Z"}` + "\n\n[1]\r\nnull\n{\"a\":1,\"a\":2}", "\x1f\x8b\x08\x00", "{\"a\":\"\xff\"}", strings.Repeat("x", 300)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for item := range cli.NewLines(bytes.NewReader(text)).All() {
			if (item.Body == nil) == (item.Fault == "") || item.Body != nil && !json.Valid(item.Body) {
				t.Errorf("%q, line %d: %q, %s", text, item.Line, item.Body, item.Fault)
			}
		}
	})
}
