package contract_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// revokeNow revokes a key of acme and returns when the process knows.
func (m *memory) revokeNow(id string) {
	m.t.Helper()
	m.change(id, func(r *credential.Record) { r.Status = credential.Revoked })
	if err := m.ring.CatchUp(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// inFlight sends a request and gives the answer once it is there.
func (m *memory) inFlight(send func() answer) <-chan answer {
	done := make(chan answer, 1)
	go func() { done <- send() }()
	return done
}

// Rows: VF-20
func TestAWriteHeldOpenBeforeItsCommitIsRefusedAndStoresNothing(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		secret := m.mintAs("k90", credential.Active, time.Time{})
		before := m.frames()
		text := m.deployment("started").String()
		reader, writer := io.Pipe()
		r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, m.url+"/deployment-events/", reader))
		r.Header.Set("Authorization", "Bearer "+secret)
		type outcome struct {
			*http.Response
			err error
		}
		answered := make(chan outcome, 1)
		go func() {
			a, err := http.DefaultClient.Do(r) //nolint:bodyclose // closed below
			answered <- outcome{a, err}
		}()
		must(io.WriteString(writer, text[:10])) // the first bytes are taken: the request is on its way
		m.revokeNow("k90")
		must(io.WriteString(writer, text[10:]))
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		a := <-answered
		if a.err != nil {
			t.Fatal(a.err)
		}
		defer func() { _ = a.Body.Close() }()
		differ(t, "status", http.StatusUnauthorized, a.StatusCode)
		differ(t, "frames", before, m.frames())
	})
}

// Rows: VF-20
func TestAReadHeldOpenAcrossTheRevocationIsRefused(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		verified := make(admissions, 10)
		m.limiter = verified
		m.restart()
		held := func(id string) answer {
			key := credential.Record{
				Kind: credential.APIKey, Account: acme, PublicID: id, Name: "reads", Mode: "live", Scopes: credential.Read,
			}
			secret := m.mint(t, key)
			if err := m.ring.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.gate.shut()
			position := m.deployed(m.deployment("success", body{"invoke_id": id})).header.Get("X-Shipledger-Position")
			read := m.inFlight(func() answer {
				return m.send(http.MethodGet, where("/deployments/", "min_position", position), "", as(secret))
			})
			<-verified // the write
			<-verified
			m.revokeNow(id)
			m.gate.reopen()
			return <-read
		}
		n := 90
		// One that was held for longer than a read waits shows nothing of a revocation.
		m.patiently(func() answer { n++; return held(fmt.Sprint("k", n)) }).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
	})
}

// admissions tells of every request whose credential was verified.
type admissions chan struct{}

// Take implements httpapi.Limiter.
func (a admissions) Take(_ *credential.Identity, _ bool, n int) httpapi.Budget {
	a <- struct{}{}
	return httpapi.Budget{Limit: 1, Granted: n, Full: time.Now()}
}
