package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// mortal is an Authenticator whose credentials may die.
type mortal struct {
	mu      sync.Mutex
	dead    error
	changed chan struct{}
}

func newMortal() *mortal { return &mortal{changed: make(chan struct{})} }

func (m *mortal) Verify(string) (credential.Identity, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return known()["pat_read"], m.dead
}

// Changed implements httpapi.Changing.
func (m *mortal) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// die ends all credentials; quietly: nobody is told.
func (m *mortal) die(err error, quietly bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = err
	if !quietly {
		close(m.changed)
		m.changed = make(chan struct{})
	}
}

// live tells of each second until its credential dies.
func live(w http.ResponseWriter, r *httpapi.Request) error {
	ctx, stop := r.WhileAlive()
	defer stop()
	if err := r.Reverify(); err != nil {
		return err
	}
	out := http.NewResponseController(w)
	for {
		if _, err := io.WriteString(w, "tick\n"); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return nil
			}
			return context.Cause(ctx)
		case <-time.After(time.Hour):
		}
	}
}

// Rows: VF-20
func TestAnOpenStreamIsClosedWhenItsCredentialDies(t *testing.T) {
	m := newMortal()
	f := newFixture(t, httpapi.Handlers{"listDeployments": live}, func(c *httpapi.Config) { c.Authenticator = m })
	server := httptest.NewServer(f.api)
	defer server.Close()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/deployments/", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer pat_read")
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewReader(answer.Body)
	if line, err := lines.ReadString('\n'); line != "tick\n" || err != nil {
		t.Fatal(line, err)
	}
	m.die(credential.ErrRevokedKey, false)
	if rest, err := io.ReadAll(lines); err == nil || len(rest) > 0 {
		t.Errorf("the stream ends as if it were whole: %q, %v", rest, err)
	}
}

func TestAStreamLooksAtItsCredentialEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMortal()
		began := time.Now()
		f := newFixture(t, httpapi.Handlers{"listDeployments": func(_ http.ResponseWriter, r *httpapi.Request) error {
			ctx, stop := r.WhileAlive()
			defer stop()
			<-ctx.Done()
			return context.Cause(ctx)
		}}, func(c *httpapi.Config) { c.Authenticator = m })
		time.AfterFunc(90*time.Minute, func() { m.die(credential.ErrExpiredKey, true) })
		a := f.send(http.MethodGet, "/deployments/", "pat_read", "")
		if took := time.Since(began) - 90*time.Minute; a.status != http.StatusUnauthorized || a.code(t) != "AUTH_EXPIRED_KEY" || took > time.Second {
			t.Errorf("%d %s after %v", a.status, a.body, took)
		}
	})
}

func TestAStreamOutlivesWhatHappensToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMortal()
		var cause error
		f := newFixture(t, httpapi.Handlers{"listDeployments": func(_ http.ResponseWriter, r *httpapi.Request) error {
			ctx, stop := r.WhileAlive()
			for range 3 {
				m.die(nil, false)
				synctest.Wait()
			}
			cause = context.Cause(ctx)
			stop()
			return r.JSON(http.StatusOK, map[string]string{})
		}}, func(c *httpapi.Config) { c.Authenticator = m })
		if a := f.send(http.MethodGet, "/deployments/", "pat_read", ""); a.status != http.StatusOK || cause != nil {
			t.Errorf("%d, %v", a.status, cause)
		}
	})
}
