package contract_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
)

// Contract 21: a credential that a pipeline printed into an event is kept as its
// kind, key id and last four characters.
func TestCredentialInAnEventIsStoredAndAnsweredRedacted(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		secrets := []string{
			m.key, m.admin, m.token("sk", "admin"), m.tokenOf(other, "pat", "write"), m.token("sk", "test"),
			must(credential.Mint(credential.APIKey, "elsewhere", "k7", "live", zeros{})),
		}
		m.secrets = append(m.secrets, secrets...)
		var reads []string
		for i, secret := range secrets {
			leak := body{
				"invoke_id": secret, "deploy_url": "https://ci.example/?token=" + secret + "&x=1", "build_url": secret, "scm_branch": secret,
				"deployed_by": "by " + secret, "built_by": secret, "error_message": "curl -H 'Bearer " + secret + "' failed",
				"unknown": []any{secret}, "extra_metadata": body{"vi_env": secret, secret: "key", "nested": []any{body{"a": secret + secret}}},
			}
			d := m.deployed(m.deployment("started", leak, body{"environment_name": "e" + string(rune('a'+i))}))
			m.deployed(m.deployment("success", leak, body{"environment_name": "e" + string(rune('a'+i))})).shows(body{"id": d.id(), "status": "completed"})
			escaped := strings.ReplaceAll(m.build("success", leak, body{"scm_branch": absent}).String(), secret[:5], `\u00`+hex(secret[0])+secret[1:5])
			b := m.built(escaped)
			if url := d.text("deploy_url"); !strings.HasPrefix(url, "https://ci.example/?token="+secret[:3]) || !strings.HasSuffix(url, secret[len(secret)-4:]+"&x=1") {
				t.Errorf("the address shows as %s", url)
			}
			reads = append(reads, "/deployments/"+d.id(), "/builds/"+b.id())
			m.post("/deployment-events/", m.deployment(secret[:40]))
			m.post("/deployment-events/", leak)
			m.get("/deployments/" + secret)
			m.get(where("/deployments/", "product", secret, "status", secret, "cursor", secret))
			m.get(where("/deployments/", secret, "a name", "min_position", secret))
			m.lines([]any{m.deployment("success", leak), secret, leak})
		}
		for _, path := range append(reads, "/deployments/", "/builds/", "/versions/", "/matrix", "/products/", "/environments/") {
			m.read(path)
		}
		for _, secret := range secrets {
			random := randomPart(secret)
			for f, err := range m.track.Read(t.Context(), 0) {
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(f.Body, []byte(random)) {
					t.Errorf("frame %d holds %s", f.Seq, credential.Redact(secret))
				}
			}
		}
	})
}

func hex(c byte) string { return string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15]) }
