package logarchive_test

import (
	"encoding/json"
	"testing"

	"github.com/shipledger/shipledger/pkg/logarchive"
)

// FuzzProof: no proof holds that was not made for this key.
func FuzzProof(f *testing.F) {
	signer, err := logarchive.NewSigner(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{}`, `{"format":"shipledger-proof/1","event":"t0.1.0","frame":{"stream":"t0","seq":1,"body":{}},"checkpoint":"x","path":[]}`, `{"format":"shipledger-proof/1","frame":null,"checkpoint":"shipledger/log\n1\nAA==\n"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p logarchive.Proof
		if json.Unmarshal(text, &p) != nil {
			return
		}
		if r, c, err := p.Verify(signer.PublicKey()); err == nil {
			t.Errorf("%q proves %v under %v", text, r, c)
		}
		_, _ = logarchive.ParsePublicKey(string(text))
	})
}
