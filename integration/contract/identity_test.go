package contract_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// derived computes an id of contract 2 anew.
func derived(parts ...string) string {
	namespace := uuid.NewSHA1(uuid.NameSpaceURL, []byte("urn:shipledger:id:v1"))
	return uuid.NewSHA1(namespace, []byte(strings.Join(parts, "\x00"))).String()
}

// Rows: D-01
func TestFirstEventCreatesWhatItNames(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		a := m.deployed(body{"product_name": "svc", "version": "1.2.3", "environment_name": "production", "status": "success"})
		a.shows(body{
			"product_id": "2f9cabf2-105e-5671-9b62-5f0a651b0848", "environment_id": "e2fddf61-0e17-58c7-b67a-f37132604680",
			"version_id": "b1313a1d-0ef8-582a-b91f-dd1626c8b731",
		})
		m.read("/products/").shows(body{"items.0.id": a.text("product_id"), "items.0.name": "svc", "items.1": absent})
		m.read("/versions/").shows(body{"items.0.id": a.text("version_id"), "items.0.version": "1.2.3", "items.0.builds": 0, "items.0.status": nil, "items.1": absent})

		types := map[string]any{
			"production": "production", "prod": "production", "live": "production", "production-us-east": "production", "EU.Prod": "production",
			"dev": "dev", "development": "dev", "local": "dev", "sandbox": "dev", "dev-team-a": "dev", "team/dev": "dev",
			"test": "test", "qa": "test", "integration": "test", "qa-regression": "test", "qa-smoke": "test", "QA_2": "test",
			"staging": "staging", "uat": "staging", "preprod": "staging", "pre-prod": "staging", "eu-pre-prod": "staging",
			"nonprod": nil, "non-prod": nil, "npm-registry": nil, "producer": nil, "developers": nil, "latest": nil,
		}
		for name := range types {
			m.deployed(m.deployment("success", body{"environment_name": name}))
		}
		got := map[string]any{}
		for _, e := range m.read("/environments/").list("items") {
			name := at(e, "name").(string)
			got[name] = at(e, "type")
			differ(t, name, derived("environment", acme, name), at(e, "id").(string))
		}
		differ(t, "types", types, got)
		for class, n := range map[string]int{"production": 5, "dev": 6, "test": 6, "staging": 5} {
			differ(t, class, n, len(m.read(where("/environments/", "type", class)).list("items")))
		}
	})
}

func TestIdsAreDerivedFromAccountAndNameAlone(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		product := derived("product", l.account, l.product)
		want := body{"product_id": product, "version_id": derived("version", l.account, product, "1.2.3")}
		l.built(l.build("started")).shows(want)
		l.deployed(l.deployment("success")).shows(want)
		l.deployed(l.deployment("failed", body{"product_name": strings.ToUpper(l.product)})).
			shows(body{"product_id": derived("product", l.account, strings.ToUpper(l.product))})
	})
}

func TestAccountsDoNotShareWhatIsNamedAlike(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		b := m.deployment("started", body{"invoke_id": "1"})
		mine, theirs := m.deployed(b), m.deployed(b, as(m.tokenOf(other, "sk", "events:write")))
		for _, id := range []string{"id", "product_id", "version_id", "environment_id", "event_id"} {
			if mine.text(id) == theirs.text(id) {
				t.Errorf("both accounts have the %s %s", id, mine.text(id))
			}
		}
	})
}

const (
	shaA = "aaaaaaa111111111111111111111111111111111"
	shaB = "bbbbbbb222222222222222222222222222222222"
)

// Decisions of contract 24: C-18.
//
// Rows: D-03
func TestVersionKeepsTheCommitOfItsFirstBuild(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		first := l.built(l.build("success", body{"scm_sha": shaA}))
		for _, path := range []string{"/build-events/", "/version-events/"} {
			a := l.post(path, l.build("success", body{"scm_sha": shaB})).fails(409, "VERSION_SHA_MISMATCH")
			const text = "Version 1.2.3 already exists with different SHA"
			a.shows(body{"": map[string]any{
				"detail": text, "message": text, "error": "version_conflict", "code": "VERSION_SHA_MISMATCH", "success": false,
				"meta": map[string]any{"request_id": a.header.Get("X-Request-Id")},
			}})
			if p := a.header.Get("X-Shipledger-Position"); p != "" {
				t.Errorf("a refused build has the position %s", p)
			}
		}
		l.built(l.build("success", body{"scm_sha": shaA}))
		l.deployed(l.deployment("success", body{"scm_sha": shaA})).shows(body{"sha_mismatch": false})
		d := l.deployed(l.deployment("success", body{"scm_sha": shaB})).shows(body{"sha_mismatch": true})
		l.read("/deployments/" + d.id()).shows(body{"sha_mismatch": true, "scm_sha": shaB})
		l.deployed(l.deployment("success")).shows(body{"sha_mismatch": false})
		l.read("/versions/" + first.text("version_id")).shows(body{"scm_sha": shaA, "builds": 2})
		l.built(l.build("success", body{"version": "1.2.4", "scm_sha": shaB})) // another version is another matter
	})
}

func TestShortAndLongFormOfACommitAreOneAndTheLongestStays(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		version := l.built(l.build("started", body{"scm_sha": shaA[:7]})).text("version_id")
		sha := func(want string) {
			t.Helper()
			l.read("/versions/" + version).shows(body{"scm_sha": want})
		}
		sha(shaA[:7])
		l.built(l.build("started", body{"scm_sha": shaA[:12]}))
		sha(shaA[:12])
		l.built(l.build("started", body{"scm_sha": shaA[:9]}))
		sha(shaA[:12])
		l.post("/build-events/", l.build("started", body{"scm_sha": shaA[:7] + "9"})).fails(409, "VERSION_SHA_MISMATCH")
		l.built(l.build("success", body{"scm_sha": shaA}))
		sha(shaA)
		l.post("/build-events/", l.build("started", body{"scm_sha": shaA[:39] + "9"})).fails(409, "VERSION_SHA_MISMATCH")
		l.built(l.build("started"))

		l.built(l.build("started", body{"version": "short", "scm_sha": "abcdef"}))
		l.built(l.build("started", body{"version": "short", "scm_sha": "abcdef"}))
		for _, longer := range []string{"abcdef0", "abcde", shaA} {
			l.post("/build-events/", l.build("started", body{"version": "short", "scm_sha": longer})).fails(409, "VERSION_SHA_MISMATCH")
		}
		for _, c := range []struct {
			sha  string
			want bool
		}{{shaA[:7], false}, {shaA[:6], true}, {shaA, false}, {shaB[:7], true}} {
			l.deployed(l.deployment("success", body{"scm_sha": c.sha})).shows(body{"sha_mismatch": c.want})
		}
	})
}

func TestCommitLearnedFromADeploymentIsProvisional(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		version := l.deployed(l.deployment("success", body{"scm_sha": shaA})).shows(body{"sha_mismatch": false}).text("version_id")
		l.read("/versions/" + version).shows(body{"scm_sha": shaA})
		l.deployed(l.deployment("success", body{"scm_sha": shaB})).shows(body{"sha_mismatch": false})
		l.built(l.build("success", body{"scm_sha": shaB}))
		l.read("/versions/" + version).shows(body{"scm_sha": shaB})
		l.deployed(l.deployment("success", body{"scm_sha": shaA})).shows(body{"sha_mismatch": true})
		l.post("/build-events/", l.build("success", body{"scm_sha": shaA})).fails(409, "VERSION_SHA_MISMATCH")
	})
}

func TestRefusedBuildStoresNothing(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.built(m.build("success", body{"scm_sha": shaA}))
		before := m.frames()
		m.post("/build-events/", m.build("success", body{"scm_sha": shaB})).is(409)
		differ(t, "frames", before, m.frames())
	})
}

func TestVersionsAreFoundByProductAndCommit(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		sha := strings.ReplaceAll(uuid.NewString(), "-", "") + "00000000"
		l.built(l.build("success", body{"scm_sha": sha}))
		l.built(l.build("success", body{"version": "2", "scm_sha": shaB}))
		both := l.read(where("/versions/", "product", l.product)).each("items", "version")
		slices.Sort(both) // they may be of one millisecond
		differ(t, "by product", []string{"1.2.3", "2"}, both)
		for _, form := range []string{sha, sha[:7], sha[:20]} {
			differ(t, "by "+form, []string{"1.2.3"}, l.read(where("/versions/", "product", l.product, "scm_sha", form)).each("items", "version"))
		}
		differ(t, "by too little", []string{}, l.read(where("/versions/", "product", l.product, "scm_sha", sha[:6])).each("items", "version"))
	})
}
