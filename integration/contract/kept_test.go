package contract_test

import (
	"fmt"
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

// What is shown of one object is kept as well, and stays right.
func TestDetailsHaveTagsThatChangeWithThem(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.fill(3)
		deployment := m.read("/deployments/").list("items")[0].(map[string]any)
		path := func(list, id string) string { return "/" + list + "/" + deployment[id].(string) }
		product, environment := deployment["product_name"], deployment["environment_name"]
		for _, path := range []string{
			path("deployments", "id"), path("products", "product_id"), path("environments", "environment_id"), path("versions", "version_id"),
			"/metrics/dora?from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z", "/metrics/dora",
		} {
			first := m.read(path)
			tag := header("If-None-Match", first.header.Get("ETag"))
			differ(t, path+" again", string(first.raw), string(m.read(path).raw))
			differ(t, path+" unchanged", http.StatusNotModified, m.get(path, tag).status)
			m.get(path, tag, as("")).fails(401, "AUTH_MISSING")
			m.deployed(m.deployment("success", body{"product_name": "x"}), as(m.tokenOf(other, "pat", "events:write")))
			differ(t, path+" after an event of another account", http.StatusNotModified, m.get(path, tag).status)
		}
		for _, path := range []string{path("products", "product_id"), path("environments", "environment_id")} {
			before := m.read(path)
			m.deployed(m.deployment("success", body{"product_name": product, "version": "after " + path, "environment_name": environment}))
			if after := m.read(path); after.header.Get("ETag") == before.header.Get("ETag") || string(after.raw) == string(before.raw) {
				t.Errorf("%s is as it was before an event", path)
			}
		}
	})
}

// Compressed or not, an answer is the same, also where only its position is new.
func TestCompressedAnswersAreTheSame(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.fill(3)
		for i := range 20 {
			m.deployed(m.deployment("success", body{"product_name": fmt.Sprint("service ", i)}))
		}
		for _, path := range []string{"/matrix", "/deployments/", "/products/"} {
			for range 2 {
				plain, packed := m.read(path), m.get(path, header("Accept-Encoding", "gzip"))
				differ(t, path+" compressed", "gzip", packed.header.Get("Content-Encoding"))
				differ(t, "its tag", plain.header.Get("ETag"), packed.header.Get("ETag"))
				differ(t, path, string(plain.raw), string(packed.raw))
				m.deployed(m.deployment("success", body{"product_name": "x"}), as(m.tokenOf(other, "sk", "events:write")))
				m.read("/matrix", as(m.tokenOf(other, "pat", "read")))
			}
		}
	})
}
