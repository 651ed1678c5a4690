package contract_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/event"
)

// Accounts that live in different partitions: acme in t2, other in t0.
//
// Architecture 4: an account lives in one partition, so that everything about it is
// totally ordered.
func TestAnAccountIsWrittenToAndReadFromItsPartitionAlone(t *testing.T) {
	t.Parallel()
	m := onPartitions(t, 3)
	mine, theirs := "t2", "t0"
	differ(t, "acme", mine, m.trackOf(acme))
	differ(t, "other", theirs, m.trackOf(other))
	own := m.deployed(m.deployment("success"))
	matches(t, `^t2\.1\.[0-9]+$`, own.header.Get("X-Shipledger-Position"))
	stranger := as(m.tokenOf(other, "pat", "admin"))
	foreign := m.deployed(m.deployment("success"), as(m.tokenOf(other, "sk", "events:write")))
	place := foreign.header.Get("X-Shipledger-Position")
	matches(t, `^t0\.1\.[0-9]+$`, place)
	for i, track := range m.tracks {
		last, _ := track.Last(t.Context()) // never fails
		differ(t, event.TrackStream(i), uint64((i+1)%2), last)
	}

	// What is read is drawn from the account's partition, waits for it and names it.
	m.read("/deployments/").shows(body{"as_of.position": m.seen.String(), "items.0.id": own.id()})
	matches(t, `^c\.[0-9]+\.0(,o\.[0-9]+\.0)?,t2\.1\.[0-9]+$`, m.read(eventsPath).text("as_of.position"))
	m.read("/ledger/balance").shows(body{"balanced": true, "items.0.stream": mine})
	m.send(http.MethodGet, "/deployments/?min_position="+place, "", stranger).is(http.StatusOK).shows(body{"items.0.id": foreign.id()})
	for _, path := range []string{"/deployments/", "/matrix", eventsPath, "/ledger/balance", "/exports/deployments", "/events/stream"} {
		names := "min_position="
		if strings.HasSuffix(path, "/stream") {
			names = "position="
		}
		m.send(http.MethodGet, path+"?"+names+place, "", as(m.pat)).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
	}
	m.send(http.MethodGet, "/exports/deployments?from_position="+place, "", as(m.pat)).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
	s := m.follow(where(liveEvents, "position", "t2.0.0"))
	differ(t, "the event that is heard first", "product.created", s.next().event)
	s.close()

	// Whose an object is, is told wherever it is.
	m.get("/deployments/"+foreign.id()).fails(http.StatusForbidden, "NOT_OWNER")
	product := productsPath + own.text("product_id")
	before := []uint64{}
	for _, track := range m.tracks {
		last, _ := track.Last(t.Context())
		before = append(before, last)
	}
	m.manage(http.MethodPatch, product, body{"description": "x"}, stranger).fails(http.StatusForbidden, "NOT_OWNER")
	m.manage(http.MethodDelete, product, nil, stranger).fails(http.StatusForbidden, "NOT_OWNER")
	m.manage(http.MethodPatch, productsPath+"2f9cabf2-105e-5671-9b62-5f0a651b0841", body{"description": "x"}).fails(http.StatusNotFound, "NOT_FOUND")
	for i, track := range m.tracks {
		last, _ := track.Last(t.Context())
		differ(t, "frames of partition "+event.TrackStream(i), before[i], last)
	}
	m.manage(http.MethodPatch, settingsPath, body{"pat_write": false}, stranger).is(http.StatusOK)
	m.read(settingsPath).shows(body{"pat_write": true})
	m.read(settingsPath, stranger).shows(body{"pat_write": false})

	m.restart()
	m.read("/deployments/").shows(body{"items.0.id": own.id()})
	m.read(settingsPath, stranger).shows(body{"pat_write": false})
	m.deployed(m.deployment("success", body{"version": "2"}))
	m.read("/deployments/?version=2").shows(body{"as_of.position": m.seen.String()})
}

// An answer that is kept holds until its own partition says something new of its
// account; what happens in others costs it nothing.
func TestAnAnswerHoldsWhateverOtherPartitionsHear(t *testing.T) {
	t.Parallel()
	m := onPartitions(t, 3)
	m.deployed(m.deployment("success"))
	first := m.read("/matrix")
	for range 3 {
		m.deployed(m.deployment("success"), as(m.tokenOf(other, "sk", "events:write")))
	}
	m.shows(other)
	still := m.get("/matrix", header("If-None-Match", first.header.Get("ETag")))
	differ(t, "status", http.StatusNotModified, still.status)
	again := m.read("/matrix")
	differ(t, "the whole answer", string(first.raw), string(again.raw))
	m.deployed(m.deployment("success", body{"version": "2"}))
	if m.get("/matrix", header("If-None-Match", first.header.Get("ETag"))).status != http.StatusOK {
		t.Error("its own event leaves it as it was")
	}
}
