package contract_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// lists are the routes that answer with pages.
var lists = []string{"/deployments/", "/builds/", "/versions/", "/products/", "/environments/", "/matrix"}

// fill gives an account n of everything that is listed.
func (m *memory) fill(n int, options ...option) {
	m.t.Helper()
	for from := 0; from < n; from += 500 {
		var items []any
		for i := from; i < min(from+500, n); i++ {
			name := fmt.Sprintf("p%04d", i)
			items = append(items,
				m.deployment("success", body{"product_name": name, "environment_name": fmt.Sprintf("e%04d", i)}),
				m.build("success", body{"product_name": name}))
		}
		m.lines(items, options...).is(http.StatusOK)
	}
}

// Rows: S-01
func TestEveryListIsWalkedPageByPage(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.fill(53)
		for _, path := range lists {
			key := "id"
			if path == "/matrix" {
				key = "product_id"
			}
			first := m.read(path)
			differ(t, path+" without a limit", 50, len(first.list("items")))
			differ(t, path+" with the most", 53, len(m.read(where(path, "limit", "500")).list("items")))
			first.shows(body{"as_of.position": m.seen.String(), "as_of.time": startTime})
			for _, bad := range []string{"501", "0", "-1", "abc", "1.5", " 1", "99999999999999999999"} {
				differ(t, path+" limit "+bad, []string{"query.limit"}, m.get(where(path, "limit", bad)).faults())
			}
			for _, limit := range []string{"11", "50", "52", "53"} {
				seen := map[string]bool{}
				for cursor := ""; ; {
					page := m.read(where(path, "limit", limit, "cursor", cursor))
					for _, id := range page.each("items", key) {
						if seen[id] {
							t.Errorf("%s by %s: %s comes twice", path, limit, id)
						}
						seen[id] = true
					}
					next, more := page.at("next_cursor").(string)
					if !more {
						break
					}
					cursor = next
				}
				differ(t, path+" by "+limit, 53, len(seen))
			}
		}
	})
}

func TestWalkYieldsWhatWasThereOnceWhileNewOnesArrive(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		var want []string
		for i := range 7 {
			want = append(want, l.deployed(l.deployment("success", body{"invoke_id": fmt.Sprint(i)})).id())
		}
		slices.Reverse(want)
		var got []string
		for cursor, n := "", 0; ; n++ {
			page := l.read(where("/deployments/", "product", l.product, "limit", "2", "cursor", cursor))
			got = append(got, page.each("items", "id")...)
			l.deployed(l.deployment("success", body{"invoke_id": fmt.Sprint("new", n)}))
			next, more := page.at("next_cursor").(string)
			if !more {
				break
			}
			cursor = next
		}
		differ(t, "walked", want, got)
	})
}

func TestListRefusesWhatItDoesNotUnderstand(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for i := range 3 {
			run := body{"version": fmt.Sprint(i), "product_name": l.name(fmt.Sprint(i))}
			l.deployed(l.deployment("success", run, body{"environment_name": l.name(fmt.Sprint(i))}))
			l.built(l.build("success", run))
		}
		for _, path := range lists {
			differ(t, path, []string{"query.colour"}, l.get(where(path, "colour", "red")).faults())
			differ(t, path, []string{"query.limit"}, l.get(path+"?limit=1&limit=2").faults())
			cursor := l.read(where(path, "limit", "1")).text("next_cursor")
			l.read(where(path, "limit", "2", "cursor", cursor)) // the page may change its size
			for _, bad := range []string{"x", "AAAA", cursor + "!", cursor[:4], strings.ToLower(cursor), "null"} {
				differ(t, path+" cursor "+bad, []string{"query.cursor"}, l.get(where(path, "cursor", bad)).faults())
			}
			if path != "/matrix" {
				differ(t, path, []string{"query.cursor"}, l.get(where("/matrix", "cursor", cursor)).faults())
			}
			filter := map[string][2]string{
				"/deployments/": {"status", "completed"}, "/builds/": {"product", l.product}, "/versions/": {"product", l.product},
				"/environments/": {"type", "dev"}, "/matrix": {"drift", "true"},
			}[path]
			if filter[0] != "" {
				differ(t, path+" of another filter", []string{"query.cursor"}, l.get(where(path, filter[0], filter[1], "cursor", cursor)).faults())
			}
		}
		for param, bad := range map[string]string{"status": "launched", "since": "yesterday", "until": "2026-02-01", "product": strings.Repeat("x", 256)} {
			differ(t, param, []string{"query." + param}, l.get(where("/deployments/", param, bad)).faults())
		}
		differ(t, "type", []string{"query.type"}, l.get(where("/environments/", "type", "prod")).faults())
		differ(t, "drift", []string{"query.drift"}, l.get(where("/matrix", "drift", "maybe")).faults())
		differ(t, "all at once", []string{"query.status", "query.limit", "query.colour"}, l.get(where("/deployments/", "status", "?", "limit", "0", "colour", "red")).faults())
	})
}

func TestCursorOfAnotherAccountIsNoCursor(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.fill(2)
		m.fill(2, as(m.tokenOf(other, "sk", "events:write")))
		for _, path := range lists {
			cursor := m.read(where(path, "limit", "1")).text("next_cursor")
			differ(t, path, []string{"query.cursor"}, m.get(where(path, "cursor", cursor), as(m.tokenOf(other, "pat", "read"))).faults())
		}
	})
}

func TestDeploymentsAreFilteredByWhatTheyAre(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		end := func(hour int) body {
			return body{"completed_at": moment(time.Date(2026, 2, 1, hour, 0, 0, 0, time.UTC))}
		}
		a := l.deployed(l.deployment("success", end(10))).id()
		b := l.deployed(l.deployment("failed", end(11), body{"environment_name": "staging"})).id()
		c := l.deployed(l.deployment("aborted", end(12), body{"version": "2"})).id()
		d := l.deployed(l.deployment("started", body{"environment_name": "qa"})).id()
		e := l.deployed(l.deployment("pending", body{"environment_name": "dev"})).id()
		for _, q := range []struct {
			filter []string
			want   []string
		}{
			{nil, []string{e, d, c, b, a}},
			{[]string{"environment", "production"}, []string{c, a}},
			{[]string{"environment", "Production"}, []string{}},
			{[]string{"status", "completed"}, []string{a}},
			{[]string{"status", "Success"}, []string{a}},
			{[]string{"status", "in_progress"}, []string{d}},
			{[]string{"status", "queued"}, []string{e}},
			{[]string{"status", " cancelled "}, []string{c}},
			{[]string{"status", "preflight_failed"}, []string{}},
			{[]string{"since", "2026-02-01T11:00:00Z", "until", "2026-02-01T12:00:00Z"}, []string{b}},
			{[]string{"since", "2026-02-01T12:00:00+01:00", "until", "2026-02-01T11:00:00.001Z"}, []string{b}},
			{[]string{"since", "2026-02-01T12:00:00.001Z"}, []string{e, d}},
			{[]string{"until", "2026-02-01T11:00:00Z"}, []string{a}},
			{[]string{"status", "failed", "environment", "staging"}, []string{b}},
			{[]string{"status", "failed", "environment", "production"}, []string{}},
			{[]string{"status", "", "environment", "", "since", ""}, []string{e, d, c, b, a}},
		} {
			path := where("/deployments/", append([]string{"product", l.product}, q.filter...)...)
			differ(t, fmt.Sprint(q.filter), q.want, l.read(path).each("items", "id"))
		}
		l.read(where("/deployments/", "product", l.name("unknown"))).shows(body{"items": []any{}, "next_cursor": nil})
	})
}

func TestBuildsAreFilteredByWhatTheyAre(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		a := l.built(l.build("success", body{"invoke_id": "1"})).id()
		b := l.built(l.build("failed", body{"invoke_id": "2"})).id()
		c := l.built(l.build("success", body{"version": "2"})).id()
		for _, q := range []struct {
			filter []string
			want   []string
		}{
			{nil, []string{c, b, a}},
			{[]string{"version", "1.2.3"}, []string{b, a}},
			{[]string{"version", "1.2"}, []string{}},
			{[]string{"status", "built"}, []string{c, a}},
			{[]string{"status", "error", "version", "1.2.3"}, []string{b}},
		} {
			path := where("/builds/", append([]string{"product", l.product}, q.filter...)...)
			differ(t, fmt.Sprint(q.filter), q.want, l.read(path).each("items", "id"))
		}
	})
}

func TestListsOfAnEmptyAccountAreEmpty(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		for _, path := range lists {
			m.read(path).shows(body{"items": []any{}, "next_cursor": nil, "as_of.position": "", "as_of.time": nil})
		}
	})
}

func TestReadWaitsForThePositionOfAWrite(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for i := range 2 {
			one := l.deployed(l.deployment("success", body{"invoke_id": fmt.Sprint("a", i)})).header.Get("X-Shipledger-Position")
			last := l.deployed(l.deployment("success", body{"invoke_id": fmt.Sprint("b", i)}))
			two := last.header.Get("X-Shipledger-Position")
			path, none := "/deployments/"+last.id(), header("X-Shipledger-Position", "")
			for _, a := range []answer{
				l.get(path, header("X-Shipledger-Position", two)),
				l.get(where(path, "min_position", two), none),
				l.get(where(path, "min_position", two+","+one), none),
				l.get(where(path, "min_position", one), header("X-Shipledger-Position", one+", "+two)),
			} {
				a.is(200).shows(body{"id": last.id(), "position": two})
			}
			asOf := l.read(where("/deployments/", "product", l.product)).text("as_of.position")
			l.read(where("/deployments/", "product", l.product, "min_position", asOf))
		}
	})
}

func TestMalformedPositionIs422(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, path := range append([]string{"/deployments/01JW2C5R3V0E6H7Q8S9T0A1B2C"}, lists...) {
			for _, bad := range []string{"x", "t0", "t0.1", "t0.1.1.1", "t0.-1.0", "t0.1.1024", "7.1.0", "t0.1.0,", "t0.1.0;t0.2.0", "t99999.1.0"} {
				differ(t, bad, []string{"query.min_position"}, l.get(where(path, "min_position", bad)).faults())
				differ(t, bad, []string{"header.X-Shipledger-Position"}, l.get(path, header("X-Shipledger-Position", bad)).faults())
			}
		}
	})
}

// Rows: S-02
func TestReadBehindAStoppedReadModelIs503After5Seconds(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		before := m.deployed(m.deployment("success"))
		m.read("/deployments/" + before.id())
		m.gate.shut()
		var late []answer
		for _, path := range posts {
			a := m.post(path, m.deployment("success")).is(200)
			if a.header.Get("X-Shipledger-Position") == "" {
				t.Errorf("%s: the write has no position", path)
			}
			late = append(late, a)
		}
		late = append(late, m.lines([]any{m.build("success")}).is(200))
		m.read(where("/deployments/", "product", m.product), header("X-Shipledger-Position", "")).shows(body{"items.0.id": before.id(), "items.1": absent})
		answers := make(chan answer)
		for i := range 2 {
			go func() {
				how := header("X-Shipledger-Position", "")
				path := where("/deployments/", "min_position", late[i].header.Get("X-Shipledger-Position"))
				if i == 1 {
					how, path = header("X-Shipledger-Position", late[i].header.Get("X-Shipledger-Position")), "/deployments/"+before.id()
				}
				answers <- m.send(http.MethodGet, path, "", as(m.pat), how)
			}()
		}
		for range 2 {
			a := <-answers
			a.shows(body{"error.code": "READ_MODEL_BEHIND", "error.type": "api_error", "detail": "Service temporarily unavailable"})
			differ(t, "Retry-After", "1", a.header.Get("Retry-After"))
			differ(t, "status", 503, a.status)
		}
		m.gate.reopen()
		for _, a := range late {
			path := where("/deployments/", "product", m.product, "min_position", a.header.Get("X-Shipledger-Position"))
			m.read(path)
		}
		differ(t, "deployments", 2, len(m.read(where("/deployments/", "product", m.product)).list("items")))
	})
}
