package contract_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	liveEvents = "/events/stream"
	liveMatrix = "/matrix/stream"
)

// blocks reads Server-Sent Events: what stands between two empty lines.
type blocks struct{ lines *bufio.Reader }

func newBlocks(r io.Reader) *blocks { return &blocks{bufio.NewReader(r)} }

func (b *blocks) next() (string, error) {
	var out strings.Builder
	for {
		line, err := b.lines.ReadString('\n')
		if err != nil {
			return out.String(), err
		}
		if line == "\n" {
			return out.String(), nil
		}
		out.WriteString(line)
	}
}

// sent is one block, by the names of its fields; a comment has none.
type sent struct {
	id, event, data string
	comment         bool
	field           bool
}

func parse(block string) (s sent) {
	for line := range strings.Lines(block) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			s.id = value
		case "event":
			s.event = value
		case "data":
			s.data = value
		case "":
			s.comment = true
		}
		s.field = s.field || name != ""
	}
	return s
}

// live is an open stream.
type live struct {
	t      *testing.T
	blocks *blocks
	last   string // the last id that came
	close  func()
}

// follow opens a stream, which begins before it returns.
func (l *ledger) follow(path string, options ...option) *live {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), hang)
	l.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, o := range append([]option{as(l.pat)}, options...) {
		o(r)
	}
	var response *http.Response
	l.patiently(func() answer {
		response, err = client.Do(r) //nolint:bodyclose // closed below, or with the context
		if err != nil {
			l.t.Fatal(err)
		}
		a := answer{l.t, http.MethodGet + " " + path, response.StatusCode, response.Header, nil}
		if a.status == http.StatusServiceUnavailable {
			a.raw, _ = io.ReadAll(response.Body) // what is missing of it is told below
		}
		return a
	})
	l.t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		l.t.Fatalf("%s: %d %s", path, response.StatusCode, response.Header.Get("Content-Type"))
	}
	s := &live{t: l.t, blocks: newBlocks(response.Body), close: cancel}
	begin := s.any()
	matches(l.t, `^c\.[0-9]+\.[0-9]+,o\.[0-9]+\.[0-9]+,`+l.trackOf(l.account)+`\.[0-9]+\.[0-9]+$`, begin.id)
	return s
}

// any gives the next block, comments included.
func (s *live) any() sent {
	s.t.Helper()
	block, err := s.blocks.next()
	if err != nil {
		s.t.Fatalf("the stream ended: %v", err)
	}
	b := parse(block)
	if b.id != "" {
		s.last = b.id
	}
	return b
}

// next gives the next event.
func (s *live) next() sent {
	s.t.Helper()
	for {
		if b := s.any(); b.event != "" {
			return b
		}
	}
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func TestStreamSendsEventsAsTheAuditLogShowsThem(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		s := l.follow(where(liveEvents, "family", "deployment"))
		l.built(l.build("success"))
		posted := l.deployed(l.deployment("success"))
		for {
			got := s.next()
			data := object(t, got.data)
			if data["subject"] != posted.id() { // another script's
				continue
			}
			differ(t, "event", "deployment.completed", got.event)
			if !strings.Contains(","+got.id+",", ","+posted.header.Get("X-Shipledger-Position")+",") {
				t.Errorf("the id %s does not name %s", got.id, posted.header.Get("X-Shipledger-Position"))
			}
			want := l.read(eventsPath + posted.text("event_id")).parsed()
			if d := cmp.Diff(want, any(data)); d != "" {
				t.Errorf("the data differ from the audit log's (-log +stream):\n%s", d)
			}
			return
		}
	})
}

func TestStreamGoesOnWhereItWasLeft(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		var want, got []string
		n := 0
		post := func() {
			n++
			want = append(want, m.deployed(m.deployment("success", body{"invoke_id": fmt.Sprint(n)})).text("event_id"))
			m.deployed(m.deployment("success"), as(m.tokenOf(other, "sk", "events:write")))
		}
		hear := func(s *live, most int) {
			for range most {
				got = append(got, object(t, s.next().data)["id"].(string))
			}
		}
		s := m.follow(where(liveEvents, "type", "deployment.completed"))
		post()
		post()
		post()
		hear(s, 2)
		at := s.last
		s.close()
		post()
		s = m.follow(where(liveEvents, "type", "deployment.completed", "position", m.trackOf(m.account)+".0.0"), header("Last-Event-ID", at)) // the header counts
		post()
		hear(s, 3)
		s.close()
		s = m.follow(where(liveEvents, "type", "deployment.completed", "position", at))
		again := object(t, s.next().data)["id"]
		differ(t, "from a position", any(want[2]), again)
		differ(t, "heard", want, got)
	})
}

func TestStreamHoldsWhatIsDoneToCredentialsToo(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		s := m.follow(where(liveEvents, "family", "credential"))
		made, secret := m.created(keysPath, wanted("seen"))
		got := s.next()
		differ(t, "event", "credential.created", got.event)
		data := object(t, got.data)
		differ(t, "subject", any(made.id()), data["subject"])
		if strings.Contains(got.data, "digest") || strings.Contains(got.data, randomPart(secret)) {
			t.Errorf("it tells a secret: %s", got.data)
		}
	})
}

func TestStreamShowsThatItIsAlive(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		s := m.follow(liveEvents)
		for range 3 {
			if b := s.any(); !b.comment || b.field {
				t.Errorf("while nothing happens: %+v", b)
			}
		}
	})
}

// An open stream of a revoked credential is closed (contract 3.3).
func TestStreamEndsWithItsCredential(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range []string{liveEvents, liveMatrix} {
			made, secret := m.created(tokensPath, wanted("soon dead"))
			s := m.follow(path, as(secret))
			m.revoke(tokensPath, made.id())
			m.deployed(m.deployment("success", body{"invoke_id": path}))
			var err error
			for err == nil {
				_, err = s.blocks.next()
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s is still open", path)
			}
			m.get(path, as(secret)).fails(http.StatusUnauthorized, "AUTH_REVOKED_KEY")
		}
	})
}

func TestMatrixStreamSendsCellsThatChanged(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		s := l.follow(where(liveMatrix, "product", l.product))
		l.deployed(l.deployment("success", body{"version": "1", "completed_at": "2026-02-01T10:00:00Z", "invoke_id": "1"}))
		cell := func() map[string]any {
			t.Helper()
			got := s.next()
			differ(t, "event", "cell", got.event)
			return object(t, got.data)
		}
		first := cell()
		for member, want := range map[string]string{"product_name": l.product, "environment_name": "production", "version": "1", "status": "completed"} {
			differ(t, member, any(want), first[member])
		}
		shown := l.read(where("/matrix", "product", l.product)).at("items.0.cells.0").(map[string]any)
		for member, want := range shown {
			differ(t, member, want, first[member])
		}
		// An older success and a pending run change nothing; a failed attempt does.
		l.deployed(l.deployment("success", body{"version": "0", "completed_at": "2026-01-01T10:00:00Z", "invoke_id": "0"}))
		l.deployed(l.deployment("failed", body{"version": "2", "invoke_id": "2"}))
		second := cell()
		differ(t, "live", any("1"), second["version"])
		differ(t, "attempt", any("2"), at(second, "last_attempt.version"))
		l.deployed(l.deployment("success", body{"version": "3", "invoke_id": "3"}))
		third := cell()
		differ(t, "live", any("3"), third["version"])
		differ(t, "attempt", nil, third["last_attempt"])
	})
}

func TestStreamRefusesAPlaceThatItDoesNotHave(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, path := range []string{liveEvents, liveMatrix} {
			for _, bad := range []string{"x", "t0.1", "t9.1.0", "t0.99999999999.0"} {
				differ(t, path+" "+bad, []string{"query.position"}, l.get(where(path, "position", bad)).faults())
				differ(t, path+" "+bad, []string{"header.Last-Event-ID"}, l.get(path, header("Last-Event-ID", bad)).faults())
			}
			l.get(path, as(l.key)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		}
		differ(t, "family", []string{"query.family"}, l.get(where(liveEvents, "family", "colour")).faults())
	})
}
