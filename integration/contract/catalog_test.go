package contract_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

const (
	productsPath     = "/products/"
	environmentsPath = "/environments/"
)

// Contract 5: what people say of products and environments.
func TestProductsAndEnvironmentsAreDescribedByPeople(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		made := l.manage(http.MethodPost, productsPath, body{"name": l.product, "description": "d", "extra_metadata": body{"team": "a"}}).is(http.StatusCreated)
		matches(t, `^`+l.trackOf(l.account)+`\.[0-9]+\.[0-9]+$`, made.header.Get("X-Shipledger-Position"))
		l.read(productsPath + made.id()).shows(body{"name": l.product, "description": "d", "extra_metadata.team": "a"})
		answered, read := strings.TrimSuffix(string(made.raw), "}"), string(l.read(productsPath+made.id()).raw)
		differ(t, "what is read begins with what creation answers", answered, read[:min(len(answered), len(read))])
		differ(t, "id by an event", made.id(), l.deployed(l.deployment("success", body{"environment_name": l.name("qa")})).text("product_id"))

		l.manage(http.MethodPatch, productsPath+made.id(), body{"description": "other", "name": nil}).is(http.StatusOK).
			shows(body{"name": l.product, "description": "other", "extra_metadata.team": "a"})
		same := l.manage(http.MethodPatch, productsPath+made.id(), body{"description": "other"}).is(http.StatusOK)
		l.manage(http.MethodPatch, productsPath+made.id(), body{"extra_metadata": body{}}).is(http.StatusOK).shows(body{"extra_metadata": nil, "description": "other"})
		l.read(productsPath + made.id()).shows(body{"description": "other", "extra_metadata": nil, "created_at": same.text("created_at")})

		env := l.manage(http.MethodPost, environmentsPath, body{"name": l.name("prod"), "metadata": body{"region": "eu"}, "stale_after": 90}).is(http.StatusCreated)
		env.shows(body{"name": l.name("prod"), "type": "production", "metadata.region": "eu", "extra_metadata.region": "eu", "concurrency_limit": 1, "stale_after": 90})
		l.manage(http.MethodPatch, environmentsPath+env.id(), body{"type": "other", "extra_metadata": body{"x": 1}, "concurrency_limit": 3}).is(http.StatusOK).
			shows(body{"type": nil, "metadata.x": 1, "concurrency_limit": 3, "stale_after": 90})
		l.read(environmentsPath + env.id()).shows(body{"type": nil, "metadata.x": 1, "concurrency_limit": 3, "stale_after": 90})

		l.manage(http.MethodPost, productsPath, body{"name": l.product}).fails(http.StatusConflict, "NAME_IN_USE")
		l.manage(http.MethodPost, environmentsPath, body{"name": l.name("prod")}).fails(http.StatusConflict, "NAME_IN_USE")
		l.manage(http.MethodPost, productsPath, body{"name": "a\nb"}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		l.manage(http.MethodPost, productsPath, body{"description": "nameless"}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		l.manage(http.MethodPatch, environmentsPath+env.id(), body{"concurrency_limit": 0}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")
		l.manage(http.MethodPatch, productsPath+env.id(), body{"description": "x"}).fails(http.StatusNotFound, "NOT_FOUND")
		l.manage(http.MethodDelete, productsPath+"svc", nil).fails(http.StatusNotFound, "NOT_FOUND")
	})
}

// Rows: S-06
func TestAfterARenameBothNamesReachTheProductAndAfterADeleteAnEmptyOneBegins(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		staging := l.name("staging")
		in := body{"environment_name": staging}
		first := l.built(l.build("success", body{"scm_sha": "1111111"}))
		id := first.text("product_id")
		l.deployed(l.deployment("success", in))

		renamed := l.name("renamed")
		l.manage(http.MethodPatch, productsPath+id, body{"name": renamed}).is(http.StatusOK).shows(body{"id": id, "name": renamed})
		byOld := l.deployed(l.deployment("success", in)).shows(body{"product_id": id, "product_name": renamed})
		byNew := l.deployed(l.deployment("success", in, body{"product_name": renamed})).shows(body{"product_id": id, "version_id": byOld.text("version_id")})
		l.read("/deployments/" + byNew.id()).shows(body{"product_name": renamed})
		for _, name := range []string{l.product, renamed} {
			l.manage(http.MethodPost, productsPath, body{"name": name}).fails(http.StatusConflict, "NAME_IN_USE")
		}
		other := l.built(l.build("success", body{"product_name": l.name("other")})).text("product_id")
		for _, name := range []string{l.product, renamed} {
			l.manage(http.MethodPatch, productsPath+other, body{"name": name}).fails(http.StatusConflict, "NAME_IN_USE")
		}
		l.manage(http.MethodPatch, productsPath+id, body{"name": l.product}).is(http.StatusOK).shows(body{"name": l.product}) // its own

		l.manage(http.MethodDelete, productsPath+id, nil).is(http.StatusNoContent)
		l.manage(http.MethodDelete, productsPath+id, nil).fails(http.StatusNotFound, "NOT_FOUND")
		l.manage(http.MethodPatch, productsPath+id, body{"name": "x"}).fails(http.StatusNotFound, "NOT_FOUND")
		l.get(productsPath+id).fails(http.StatusNotFound, "NOT_FOUND")
		// Another commit: nothing of before binds the version. By the other name.
		again := l.built(l.build("success", body{"product_name": renamed, "scm_sha": "2222222"})).shows(body{"product_id": id})
		l.read(productsPath + id).shows(body{"name": renamed, "description": nil})
		differ(t, "builds", []string{again.id()}, l.read(where("/builds/", "product", renamed)).each("items", "id"))
		l.read(where("/deployments/", "product", renamed)).shows(body{"items.0": absent})
		l.get("/deployments/"+byNew.id()).fails(http.StatusNotFound, "NOT_FOUND")
		l.read("/versions/" + again.text("version_id")).shows(body{"scm_sha": "2222222", "builds": 1})
	})
}

// Rows: D-18
func TestADeletedProductIsInNoReadAndStillInTheLog(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		staging := l.name("staging")
		in := body{"environment_name": staging, "invoke_id": "1"}
		build := l.built(l.build("success"))
		done := l.deployed(l.deployment("success", in))
		l.deployed(l.deployment("started", in, body{"invoke_id": "2", "version": "1.2.4"}))
		id := done.text("product_id")
		moment := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		l.read(where("/matrix", "product", l.product)).shows(body{"items.0.product_id": id})

		l.manage(http.MethodDelete, productsPath+id, nil).is(http.StatusNoContent)
		for _, path := range []string{
			productsPath + id, "/versions/" + done.text("version_id"), "/deployments/" + done.id(), "/builds/" + build.id(),
		} {
			l.get(path).fails(http.StatusNotFound, "NOT_FOUND")
		}
		for _, path := range []string{
			where("/deployments/", "environment", staging), where("/versions/", "product", l.product), where("/builds/", "product", l.product),
			where("/matrix", "environment", staging), where("/matrix", "environment", staging, "at", moment), where("/matrix", "environment", staging, "known_at", moment),
			where("/matrix", "product", l.product),
		} {
			if a := l.read(path); strings.Contains(string(a.raw), id) {
				t.Errorf("%s still shows the product: %s", path, a.raw)
			}
		}
		for _, name := range l.read(where(productsPath, "limit", "500")).each("items", "name") {
			if name == l.product {
				t.Error("the list of products still shows it")
			}
		}
		// The next event begins an empty one, which the open start of before does not block.
		next := l.deployed(l.deployment("started", in)).shows(body{"product_id": id, "status": "started"})
		if next.id() == done.id() {
			t.Error("a run of before was taken up again")
		}
		differ(t, "deployments", []string{next.id()}, l.read(where("/deployments/", "product", l.product)).each("items", "id"))
		l.read(where("/matrix", "product", l.product)).shows(body{"items.0.cells.0": absent})
	})
}

// Rows: D-18
func TestTheLogKeepsTheEventsOfADeletedProduct(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		id := m.deployed(m.deployment("success")).text("product_id")
		before := m.frames()
		m.manage(http.MethodDelete, productsPath+id, nil).is(http.StatusNoContent)
		if got := m.frames(); got != before+1 {
			t.Errorf("%d frames, want those before and the tombstone: %d", got, before+1)
		}
		m.restart() // and the state that is folded from them is the same
		m.manage(http.MethodDelete, productsPath+id, nil).fails(http.StatusNotFound, "NOT_FOUND")
	})
}

// Contract 2 for environments.
func TestADeletedEnvironmentBeginsAgainEmpty(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		staging := l.name("staging")
		in := body{"environment_name": staging}
		l.deployed(l.deployment("success", in))
		open := l.deployed(l.deployment("started", in, body{"invoke_id": "1"}))
		id := open.text("environment_id")
		l.manage(http.MethodPatch, environmentsPath+id, body{"name": l.name("stage"), "description": "d"}).is(http.StatusOK).
			shows(body{"id": id, "name": l.name("stage"), "description": "d", "type": "staging"})
		l.post("/deployment-events/", l.deployment("started", in, body{"invoke_id": "2"})).is(http.StatusConflict)

		l.manage(http.MethodDelete, environmentsPath+id, nil).is(http.StatusNoContent)
		l.get(environmentsPath+id).fails(http.StatusNotFound, "NOT_FOUND")
		l.get("/deployments/"+open.id()).fails(http.StatusNotFound, "NOT_FOUND")
		next := l.deployed(l.deployment("started", in, body{"invoke_id": "2"})).shows(body{"environment_id": id, "environment_name": staging})
		l.read(environmentsPath + id).shows(body{"name": staging, "description": nil})
		differ(t, "deployments", []string{next.id()}, l.read(where("/deployments/", "product", l.product)).each("items", "id"))
	})
}

// Contract 22: the two numbers of an environment steer the rule of contract 12.
func TestAnEnvironmentSaysHowManyDeploymentsItTakesAndHowLongTheyBlock(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		start := func(run string) answer {
			return m.post("/deployment-events/", m.deployment("started", body{"invoke_id": run}))
		}
		id := start("1").is(http.StatusOK).text("environment_id")
		start("2").is(http.StatusConflict)
		m.manage(http.MethodPatch, environmentsPath+id, body{"concurrency_limit": 2, "stale_after": 10}).is(http.StatusOK)
		start("2").is(http.StatusOK)
		start("3").is(http.StatusConflict)
		m.clock.pass(11 * time.Minute)
		start("3").is(http.StatusOK)
	})
}

// Contract 4.3 holds for what people change as for events.
func TestAnIdempotencyKeyHoldsForChanges(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		key := header("Idempotency-Key", "once")
		first := m.manage(http.MethodPost, productsPath, body{"name": "svc"}, key).is(http.StatusCreated)
		again := m.manage(http.MethodPost, productsPath, body{"name": "svc"}, key).is(http.StatusCreated)
		differ(t, "answers", string(first.raw), string(again.raw))
		differ(t, "positions", first.header.Get("X-Shipledger-Position"), again.header.Get("X-Shipledger-Position"))
		m.manage(http.MethodPost, productsPath, body{"name": "other"}, key).fails(http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
		m.post("/deployment-events/", m.deployment("success"), key).fails(http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
		del := header("Idempotency-Key", "delete")
		m.manage(http.MethodDelete, productsPath+first.id(), nil, del).is(http.StatusNoContent)
		m.manage(http.MethodDelete, productsPath+first.id(), nil, del).is(http.StatusNoContent)
	})
}

// Contract 6: what is another account's is 403, what is nowhere 404.
func TestNobodyChangesWhatIsAnotherAccounts(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		d := m.deployed(m.deployment("success"))
		stranger := as(m.tokenOf(other, "pat", "admin"))
		for path, id := range map[string]string{productsPath: d.text("product_id"), environmentsPath: d.text("environment_id")} {
			m.manage(http.MethodPatch, path+id, body{"name": "mine"}, stranger).fails(http.StatusForbidden, "NOT_OWNER")
			m.manage(http.MethodDelete, path+id, nil, stranger).fails(http.StatusForbidden, "NOT_OWNER")
		}
		m.manage(http.MethodPost, productsPath, body{"name": m.product}, stranger).is(http.StatusCreated) // names are per account
	})
}

// Contract 18: who may edit what. A token may no more than its owner.
func TestProductsAndEnvironmentsAreEditedByTheRolesThatMay(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		d := m.deployed(m.deployment("success"))
		may := map[string]string{productsPath: "admin release_manager", environmentsPath: "admin release_manager sre"}
		for _, role := range []string{
			credential.RoleAdmin, credential.RoleReleaseManager, credential.RoleProduct, credential.RoleDeveloper, credential.RoleSRE,
			credential.RoleQA, credential.RoleSecurity, credential.RoleCompliance, credential.RoleBilling, credential.RoleViewer,
		} {
			user := m.person(acme, role)
			scopes, _ := credential.ParseScopes(credential.PAT, []string{"write"})
			token := m.mint(t, credential.Record{
				Kind: credential.PAT, Account: acme, Name: role, Mode: event.Live, PublicID: "of" + strings.ReplaceAll(role, "_", ""), UserID: user.ID, Scopes: scopes,
			})
			m.secrets = append(m.secrets, token)
			session := m.session(user)
			for path, id := range map[string]string{productsPath: d.text("product_id"), environmentsPath: d.text("environment_id")} {
				for _, with := range []string{token, session} {
					a := m.manage(http.MethodPatch, path+id, body{"description": role}, as(with))
					want := http.StatusForbidden
					if strings.Contains(" "+may[path]+" ", " "+role+" ") {
						want = http.StatusOK
					}
					if a.status != want {
						t.Errorf("%s as %s: %d, want %d: %s", path, role, a.status, want, a.raw)
					}
				}
			}
		}
		for _, key := range []string{"events:write", "read", "sync-trigger"} {
			m.manage(http.MethodPost, productsPath, body{"name": "x"}, as(m.token("sk", key))).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		}
		m.manage(http.MethodPost, productsPath, body{"name": "x"}, as(m.token("sk", "write"))).is(http.StatusCreated)
	})
}

// Rows: VR-07, VR-33
func TestWhatPeopleManageIsForSessionsAndForKeysThatMayRead(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.deployed(m.deployment("success"))
		session := as(m.signedIn(acme, credential.RoleAdmin))
		for _, path := range []string{"/products", "/environments", "/versions", "/deployments", "/api-keys"} {
			for _, form := range []string{path, path + "/"} {
				m.manage(http.MethodGet, form, nil, session).is(http.StatusOK)
				m.manage(http.MethodGet, form, nil, as(m.key)).is(http.StatusForbidden)
				for _, method := range []string{http.MethodPost, http.MethodPatch, http.MethodDelete} {
					m.manage(method, form, body{"name": "x"}, as(m.key)).is(http.StatusForbidden)
				}
				want := http.StatusOK
				if path == "/api-keys" {
					want = http.StatusForbidden
				}
				m.manage(http.MethodGet, form, nil, as(m.token("sk", "read"))).is(want)
			}
		}
	})
}
