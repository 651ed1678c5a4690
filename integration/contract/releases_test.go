package contract_test

import (
	"net/http"
	"testing"

	"github.com/shipledger/shipledger/pkg/credential"
)

const releasesPath = "/releases/"

// Rows: VR-07, VR-33
func TestAReleaseShowsWhereItsVersionsHaveComeTo(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		d := l.deployed(l.deployment("success", body{"environment_name": l.name("qa")}))
		l.deployed(l.deployment("started", body{"environment_name": l.name("prod")}))
		second := l.built(l.build("success", body{"version": "2"})).text("version_id")
		api := l.built(l.build("success", body{"product_name": l.name("api")})).text("version_id")

		made := l.manage(http.MethodPost, releasesPath, body{"name": "Spring", "extra_metadata": body{"a": 1}}).is(http.StatusCreated)
		made.shows(body{"name": "Spring", "status": "draft", "description": nil, "extra_metadata.a": 1, "versions.0": absent})
		path := releasesPath + made.id()
		l.manage(http.MethodPatch, path, body{"status": "in_progress", "description": "d"}).is(http.StatusOK).shows(body{"status": "in_progress", "description": "d"})
		l.manage(http.MethodPatch, path, body{"status": "done"}).fails(http.StatusUnprocessableEntity, "VALIDATION_ERROR")

		l.manage(http.MethodPost, path+"/versions", body{"version_id": d.text("version_id")}).is(http.StatusCreated).shows(body{"versions.0.version": "1.2.3"})
		l.manage(http.MethodPost, path+"/versions", body{"version_id": d.text("version_id")}).is(http.StatusCreated)
		l.manage(http.MethodPost, path+"/versions", body{"version_id": second}).fails(http.StatusConflict, "PRODUCT_IN_RELEASE")
		l.manage(http.MethodPost, path+"/versions", body{"version_id": made.id()}).fails(http.StatusNotFound, "NOT_FOUND")
		l.manage(http.MethodPost, path+"/versions", body{"version_id": api}).is(http.StatusCreated)
		differ(t, "versions", []string{d.text("version_id"), api}, l.read(path+"/versions").each("items", "version_id"))
		l.read(path + "/deployments").shows(body{
			"items.0.environments.0.environment_name": l.name("prod"), "items.0.environments.0.state": "in_progress",
			"items.0.environments.1.environment_name": l.name("qa"), "items.0.environments.1.state": "deployed", "items.0.environments.1.deployment_id": d.id(),
			"items.1.environments.0": absent,
		})
		l.manage(http.MethodDelete, path+"/versions/"+api, nil).is(http.StatusNoContent)
		l.manage(http.MethodDelete, path+"/versions/"+api, nil).fails(http.StatusNotFound, "NOT_FOUND")
		l.read(path).shows(body{"status": "in_progress", "versions.0.product_name": l.product, "versions.1": absent})

		l.manage(http.MethodDelete, productsPath+d.text("product_id"), nil).is(http.StatusNoContent)
		l.read(path).shows(body{"versions.0": absent})
		l.manage(http.MethodPost, path+"/versions", body{"version_id": second}).fails(http.StatusNotFound, "NOT_FOUND")
		again := l.built(l.build("success", body{"version": "2"})).text("version_id")
		l.manage(http.MethodPost, path+"/versions", body{"version_id": again}).is(http.StatusCreated).shows(body{"versions.0.version": "2", "versions.1": absent})
		for _, id := range l.read(where(releasesPath, "limit", "500")).each("items", "id") {
			if id == made.id() {
				return
			}
		}
		t.Error("the list does not hold it")
	})
}

// Contract 18: releases need the right to manage requests. Contract 6: 403 and 404.
func TestReleasesAreManagedByTheRolesThatMay(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		version := m.built(m.build("success")).text("version_id")
		path := releasesPath + m.manage(http.MethodPost, releasesPath, body{"name": "x"}, as(m.signedIn(acme, credential.RoleProduct))).is(http.StatusCreated).id()
		m.manage(http.MethodPatch, path, body{"name": "y"}, as(m.signedIn(acme, credential.RoleSRE))).fails(http.StatusForbidden, "INSUFFICIENT_ROLE")
		stranger := as(m.tokenOf(other, "pat", "admin"))
		m.manage(http.MethodPatch, path, body{"name": "y"}, stranger).fails(http.StatusForbidden, "NOT_OWNER")
		m.shows(acme)
		m.get(path, stranger).fails(http.StatusForbidden, "NOT_OWNER")
		theirs := releasesPath + m.manage(http.MethodPost, releasesPath, body{"name": "x"}, stranger).is(http.StatusCreated).id()
		m.manage(http.MethodPost, theirs+"/versions", body{"version_id": version}, stranger).fails(http.StatusForbidden, "NOT_OWNER")
		m.get(releasesPath+"01JW2C5R3V0E6H7Q8S9T0A1B2C").fails(http.StatusNotFound, "NOT_FOUND")
		m.manage(http.MethodPost, releasesPath, body{"name": "x"}, as(m.key)).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		m.restart()
		m.manage(http.MethodPost, path+"/versions", body{"version_id": version}).is(http.StatusCreated)
	})
}
