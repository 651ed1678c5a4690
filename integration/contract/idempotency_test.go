package contract_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// one is a path and a body that a repeat is made of.
type one struct {
	path string
	body body
}

func (l *ledger) deploymentAndBuild(status string, changes ...body) []one {
	return []one{{"/deployment-events/", l.deployment(status, changes...)}, {"/build-events/", l.build(status, changes...)}}
}

// Rows: S-03
func TestIdenticalRepeatOfARunAddsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, c := range l.deploymentAndBuild("started", body{"invoke_id": "1"}) {
			list := map[string]string{"/deployment-events/": "/deployments/", "/build-events/": "/builds/"}[c.path]
			start := l.post(c.path, c.body).is(200)
			same := start.parsed()
			again := l.post(c.path, c.body).is(200)
			differ(t, "while open", same, again.parsed())
			differ(t, "position", start.header.Get("X-Shipledger-Position"), again.header.Get("X-Shipledger-Position"))

			end := l.post(c.path, c.body.with(body{"status": "success"})).is(200)
			l.post(c.path, c.body.with(body{"status": "success"})).is(200).shows(body{"id": end.id(), "event_id": end.text("event_id"), "status": "completed"})
			l.post(c.path, c.body).is(200).shows(body{"id": start.id(), "event_id": start.text("event_id"), "status": "completed"})
			l.read(list + start.id()).shows(body{"events.0.id": start.text("event_id"), "events.1.id": end.text("event_id"), "events.2": absent})

			nameless := c.body.with(body{"status": "success", "invoke_id": absent})
			one, two := l.post(c.path, nameless).is(200), l.post(c.path, nameless).is(200)
			differ(t, "records", []string{two.id(), one.id(), start.id()}, l.read(where(list, "product", l.product)).each("items", "id"))
		}
	})
}

func TestRepeatIsKnownAfterARestartAndAtAnyLaterTime(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for i, c := range m.deploymentAndBuild("started", body{"invoke_id": "1"}) {
			start := m.post(c.path, c.body).is(200)
			end := m.post(c.path, c.body.with(body{"status": "failed"})).is(200)
			frames := m.frames()
			m.clock.pass(400 * 24 * time.Hour)
			if i == 0 {
				m.restart()
			}
			m.post(c.path, c.body).is(200).shows(body{"id": start.id(), "event_id": start.text("event_id"), "status": "failed"})
			m.post(c.path, c.body.with(body{"status": "failed"})).is(200).shows(body{"id": start.id(), "event_id": end.text("event_id")})
			differ(t, "frames", frames, m.frames())
		}
	})
}

func TestRunKnowsItsNewest16Events(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		event := func(i int) body {
			return m.deployment("started", body{"invoke_id": "1", "build_number": fmt.Sprint(i)})
		}
		for i := range 17 {
			m.deployed(event(i))
		}
		m.deployed(m.deployment("success", body{"invoke_id": "2"})) // another run takes no place
		frames := m.frames()
		for i := 1; i < 17; i++ {
			m.deployed(event(i))
		}
		differ(t, "frames after repeats", frames, m.frames())
		m.deployed(event(0))
		differ(t, "frames after the 17th last", frames+1, m.frames())
	})
}

func TestRepeatHasTheSameBytesCredentialAndEndpoint(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		b := m.build("started", body{"invoke_id": "1"})
		first := m.built(b)
		stored := func(what string, want bool, a answer) {
			t.Helper()
			a.is(200)
			if want != (m.frames() == 2) {
				t.Errorf("%s: the log has %d frames", what, m.frames())
			}
			_ = first
		}
		stored("the alias of the endpoint", false, m.post("/version-events/", b))
		stored("a batch item", false, m.post("/events/batch", "["+b.String()+"]"))
		stored("a line", false, m.post("/events/batch", b.String(), header("Content-Type", "application/x-ndjson")))
		stored("under /api/v1", false, m.post("/api/v1/build-events", b))
		stored("another credential", true, m.built(b, as(m.token("sk", "write"))).shows(body{"id": first.id()}))
		frames := m.frames()
		m.built(" " + b.String()).shows(body{"id": first.id()})
		differ(t, "frames after other bytes", frames+1, m.frames())
		m.deployed(m.deployment("started", body{"invoke_id": "1"}))
		m.deployed(m.deployment("started", body{"invoke_id": "1"}))
		differ(t, "frames after another kind", frames+2, m.frames())
	})
}

func TestWithoutARunIdOnlyStartsOfAnOpenRecordCollapse(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, status := range []string{"pending", "started"} {
			for _, c := range m.deploymentAndBuild(status) {
				open := m.post(c.path, c.body).is(200)
				frames := m.frames()
				m.post(c.path, c.body).is(200).shows(body{"id": open.id(), "event_id": open.text("event_id"), "status": status})
				differ(t, "frames", frames, m.frames())
				m.post(c.path, c.body.with(body{"status": "success"})).is(200).shows(body{"id": open.id()})
				next := m.post(c.path, c.body).is(200)
				if next.id() == open.id() {
					t.Errorf("%s: a repeat after the end joins the closed record", status)
				}
				m.post(c.path, c.body.with(body{"status": "failed"})).is(200).shows(body{"id": next.id()})
			}
		}
	})
}

// Contract 4.3: only accepted outcomes are remembered.
func TestRefusedStartSentAgainIsRecordedOncePer150Seconds(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.deployed(m.deployment("started", body{"invoke_id": "1"}))
		for _, b := range []body{m.deployment("started", body{"invoke_id": "2"}), m.deployment("started", body{"version": "2"})} {
			first := m.post("/deployment-events/", b).fails(409, "CONCURRENT_DEPLOYMENT")
			frames, record := m.frames(), first.text("details.deployment_id")
			m.clock.pass(150 * time.Second)
			again := m.post("/deployment-events/", b).fails(409, "CONCURRENT_DEPLOYMENT")
			differ(t, "record", record, again.text("details.deployment_id"))
			differ(t, "details", first.at("details"), again.at("details"))
			differ(t, "position", first.header.Get("X-Shipledger-Position"), again.header.Get("X-Shipledger-Position"))
			differ(t, "frames", frames, m.frames())
			m.clock.pass(time.Millisecond)
			later := m.post("/deployment-events/", b).fails(409, "CONCURRENT_DEPLOYMENT").text("details.deployment_id")
			if later == record || m.frames() != frames+1 {
				t.Error("a refusal after 150 s is not recorded by itself")
			}
		}
	})
}

func TestIdempotencyKeyIsKnownFor24Hours(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for i, c := range m.deploymentAndBuild("success") {
			key := header("Idempotency-Key", fmt.Sprint("key ", i))
			first := m.post(c.path, c.body, key).is(200)
			frames := m.frames()
			m.clock.pass(24 * time.Hour)
			if i == 0 {
				m.restart()
			}
			again := m.post(c.path, c.body, key).is(200)
			differ(t, "answer", first.parsed(), again.parsed())
			differ(t, "position", first.header.Get("X-Shipledger-Position"), again.header.Get("X-Shipledger-Position"))
			other := m.post(c.path, c.body.with(body{"version": "2"}), key).fails(422, "IDEMPOTENCY_KEY_REUSED")
			other.shows(body{"error.type": "invalid_request_error", "detail.0.loc.0": "body"})
			differ(t, "frames", frames, m.frames())

			m.clock.pass(time.Millisecond)
			if m.post(c.path, c.body, key).is(200).id() == first.id() {
				t.Error("the key is known for longer than 24 h")
			}
		}
	})
}

func TestIdempotencyKeyBelongsToAnAccountAndItsAcceptedEvents(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		key := header("Idempotency-Key", "1")
		mine := m.deployed(m.deployment("success"), key)
		m.deployed(m.deployment("success"), key, as(m.admin)).shows(body{"id": mine.id()})
		theirs := m.deployed(m.deployment("failed"), key, as(m.tokenOf(other, "sk", "events:write")))
		if theirs.id() == mine.id() {
			t.Error("two accounts share a key")
		}

		key = header("Idempotency-Key", "2")
		m.post("/deployment-events/", m.deployment("?"), key).is(422)
		m.built(m.build("success", body{"scm_sha": shaA}))
		m.post("/build-events/", m.build("success", body{"scm_sha": shaB}), key).is(409)
		m.deployed(m.deployment("started", body{"invoke_id": "1"}))
		m.post("/deployment-events/", m.deployment("started", body{"invoke_id": "2"}), key).is(409)
		m.deployed(m.deployment("success", body{"invoke_id": "1"}))
		m.deployed(m.deployment("started", body{"invoke_id": "2"}), key).shows(body{"status": "started"})

		long := strings.Repeat("k", 255)
		m.deployed(m.deployment("failed"), header("Idempotency-Key", long))
		differ(t, "too long", []string{"header.Idempotency-Key"}, m.post("/deployment-events/", m.deployment("failed"), header("Idempotency-Key", long+"k")).faults())
	})
}
