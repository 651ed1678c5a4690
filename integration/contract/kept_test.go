package contract_test

import (
	"net/http"
	"testing"
)

// An answer that is given again is one that would be given: it changes with the
// account's events and with nothing else.
func TestListsHaveTagsThatChangeWithThem(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.fill(3)
		for _, path := range append(lists, "/matrix/history?product=p0001&environment=e0001", "/matrix/diff?from=2020-01-01T00:00:00Z") {
			first := m.read(path)
			tag := header("If-None-Match", first.header.Get("ETag"))
			again := m.read(path)
			differ(t, path+" again", string(first.raw), string(again.raw))
			unchanged := m.get(path, tag)
			differ(t, path+" unchanged", http.StatusNotModified, unchanged.status)
			differ(t, "its tag", first.header.Get("ETag"), unchanged.header.Get("ETag"))
			m.get(path, tag, as("")).fails(401, "AUTH_MISSING")
			others := m.read(path, as(m.tokenOf(other, "pat", "read")))
			if others.header.Get("ETag") == first.header.Get("ETag") && len(first.list("items")) > 0 {
				t.Errorf("%s shows another account the same", path)
			}

			m.deployed(m.deployment("success", body{"product_name": "x"}), as(m.tokenOf(other, "sk", "events:write")))
			still := m.get(path, tag)
			differ(t, path+" after an event of another account", http.StatusNotModified, still.status)

			m.built(m.build("success", body{"product_name": "p0001", "version": path}))
			m.deployed(m.deployment("success", body{"product_name": "p0001", "version": path, "environment_name": "e0001"}))
			m.deployed(m.deployment("success", body{"product_name": "new" + path, "version": path, "environment_name": "new" + path}))
			changed := m.read(path, tag)
			if changed.header.Get("ETag") == first.header.Get("ETag") {
				t.Errorf("%s has the same tag after the account's event", path)
			}
			changed.shows(body{"as_of.position": m.seen.String()})
			differ(t, "the old one", string(first.raw) != string(changed.raw), true)
		}
	})
}
