package contract_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shipledger/shipledger/pkg/event"
)

// limits are the longest texts of contract 4.1 and 4.2, in characters.
var limits = map[string]map[string]int{
	"/deployment-events/": {
		"product_name": 255, "version": 100, "environment_name": 100, "environment": 100, "source_system": 50, "build_number": 100, "scm_sha": 40,
		"scm_branch": 100, "scm_repository": 500, "deploy_url": 500, "build_url": 500, "invoke_id": 255,
		"deployed_by": 255, "deployed_by_email": 255, "deployed_by_name": 255,
	},
	"/build-events/": {
		"product_name": 255, "version": 100, "source_system": 50, "build_number": 100, "scm_sha": 40, "scm_branch": 100, "scm_repository": 500,
		"build_url": 500, "invoke_id": 255, "built_by": 255, "built_by_email": 255, "built_by_name": 255,
	},
}

func TestTextMayBeAsLongAsItsLimitInCharacters(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for path, of := range limits {
			for field, limit := range of {
				b := l.deployment("success")
				if field == "environment" {
					b = b.with(body{"environment_name": absent})
				}
				for _, character := range []string{"x", "é", "船", "🚢"} {
					b := b.with(body{"version": character}) // each with a commit of its own
					l.post(path, b.with(body{field: strings.Repeat(character, limit)})).is(200)
					a := l.post(path, b.with(body{field: strings.Repeat(character, limit+1)}))
					differ(t, path+" "+field+" of "+character, []string{"body." + field}, a.faults())
				}
			}
		}
	})
}

func TestStatusMayHaveSpacesUpToItsLimit(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		padded := "success" + strings.Repeat(" ", 43)
		l.deployed(l.deployment(padded)).shows(body{"status": "completed"})
		l.built(l.build(padded)).shows(body{"status": "completed"})
		for _, path := range posts {
			differ(t, path, []string{"body.status"}, l.post(path, l.deployment(padded+" ")).faults())
		}
	})
}

// Contract 1.8.
func TestNullAndEmptyTextCountAsAbsent(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, nothing := range []any{nil, ""} {
			for path, of := range limits {
				b := l.deployment("success")
				for field := range of {
					if _, required := b[field]; !required {
						b[field] = nothing
					}
				}
				for _, field := range []string{"completed_at", "started_at", "built_at", "extra_metadata", "error_message", "error_code", "skip_preflight_checks"} {
					b[field] = nothing
				}
				l.post(path, b).is(200)
				empty := b.with(body{"product_name": nothing, "version": nothing, "environment_name": nothing, "status": nothing})
				a := l.post(path, empty)
				want := []string{"body.product_name", "body.version", "body.environment_name", "body.status"}
				if path == "/build-events/" {
					want = slices.Delete(want, 2, 3)
				}
				differ(t, path, want, a.faults())
				a.shows(body{"detail.0.msg": "field required", "detail.0.type": "value_error.missing"})
			}
			l.deployed(l.deployment("success", body{"environment_name": nothing, "environment": "qa", "deploy_url": nothing, "build_url": "u"})).
				shows(body{"environment_name": "qa", "deploy_url": "u"})
		}
	})
}

func TestUnknownMembersAreIgnored(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		strange := body{"id": 7, "kind": 7, "idempotency_key": []any{}, "nested": body{"status": "failed"}, "": 1, "Status": "failed"}
		l.deployed(l.deployment("success", strange)).shows(body{"status": "completed"})
		l.built(l.build("success", strange, body{"environment_name": 7, "deploy_url": true, "deployed_by": []any{1}})).shows(body{"status": "completed"})
		l.deployed(l.deployment("success", body{"built_by": 7, "built_at": 7, "error_code": 7}))
	})
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		wrong := body{
			"product_name": 7, "version": strings.Repeat("x", 101), "environment_name": "a\tb", "status": "launched",
			"source_system": true, "build_number": 412, "scm_sha": strings.Repeat("a", 41), "scm_branch": []any{}, "scm_repository": body{},
			"deploy_url": 1.5, "build_url": strings.Repeat("u", 501), "invoke_id": 9000000001,
			"deployed_by": 1, "deployed_by_email": 2, "deployed_by_name": 3,
			"completed_at": "yesterday", "skip_preflight_checks": "yes", "extra_metadata": []any{1},
		}
		var want []string
		for field := range wrong {
			want = append(want, "body."+field)
		}
		slices.Sort(want)
		a := l.post("/deployment-events/", wrong).fails(422, "VALIDATION_ERROR")
		got := a.faults()
		slices.Sort(got)
		differ(t, "faults", want, got)

		got = l.post("/build-events/", body{
			"product_name": "", "version": nil, "status": 1, "built_by": 1, "built_by_email": 1, "built_by_name": 1, "started_at": 5, "completed_at": "2026-02-01",
			"built_at": "2026-02-01T10:00:00", "error_message": 1, "error_code": 1, "extra_metadata": "{}",
		}).faults()
		differ(t, "faults", []string{
			"body.product_name", "body.version", "body.status", "body.built_by", "body.built_by_email", "body.built_by_name", "body.started_at", "body.completed_at",
			"body.built_at", "body.error_message", "body.error_code", "body.extra_metadata",
		}, got)
	})
}

func TestNamesMayNotHoldControlCharacters(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, control := range []string{"\x00", "\t", "\n", "\x1f", "\x7f", "\u0080", "\u009f"} {
			for _, field := range []string{"product_name", "version", "environment_name"} {
				a := l.post("/deployment-events/", l.deployment("success", body{field: "a" + control + "b"}))
				differ(t, field, []string{"body." + field}, a.faults())
			}
		}
		l.deployed(l.deployment("success", body{"version": "v1.2.3 (β) \u00a0 …", "deploy_url": "a\tb"}))
	})
}

func TestTimesNeedAZone(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, good := range []string{"2026-02-01T10:00:00Z", "2026-02-01T10:00:00.123456789+05:30", "2026-02-01T10:00:00-11:00"} {
			l.deployed(l.deployment("success", body{"completed_at": good}))
			l.built(l.build("success", body{"started_at": good, "completed_at": good}))
		}
		for _, bad := range []any{"2026-02-01T10:00:00", "2026-02-01", "2026-02-01 10:00:00Z", "1769940000", 1769940000, "2026-02-30T10:00:00Z", "2026-02-01T25:00:00Z", "", " "} {
			if bad == "" {
				continue // absent
			}
			differ(t, "completed_at", []string{"body.completed_at"}, l.post("/deployment-events/", l.deployment("success", body{"completed_at": bad})).faults())
			differ(t, "started_at", []string{"body.started_at"}, l.post("/build-events/", l.build("success", body{"started_at": bad})).faults())
			differ(t, "built_at", []string{"body.built_at"}, l.post("/version-events/", l.build("success", body{"built_at": bad})).faults())
		}
	})
}

// extra is an extra_metadata object of exactly so many bytes.
func extra(size int) body {
	return body{"big": strings.Repeat("x", size-len(`{"big":""}`))}
}

func TestExtraMetadataIsAnObjectOfUpTo128KB(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		const limit = 128 << 10
		for _, path := range posts {
			for _, odd := range []any{[]any{}, "text", 1, true} {
				differ(t, path, []string{"body.extra_metadata"}, l.post(path, l.deployment("success", body{"extra_metadata": odd})).faults())
			}
			l.post(path, l.deployment("success", body{"extra_metadata": extra(limit)})).is(200)
			differ(t, path, []string{"body.extra_metadata"}, l.post(path, l.deployment("success", body{"extra_metadata": extra(limit + 1)})).faults())
		}
		given := body{"text": "ü\n", "number": 1.5, "list": []any{"a", nil, true}, "object": body{"a": body{}}, "": "", "vi_gh_job": "deploy"}
		a := l.deployed(l.deployment("success", body{"extra_metadata": given}))
		a.shows(body{"extra_metadata.text": "ü\n", "extra_metadata.number": 1.5, "extra_metadata.object": body{"a": map[string]any{}}, "extra_metadata.vi_gh_job": "deploy"})
		l.read("/deployments/" + a.id()).shows(body{"extra_metadata": a.at("extra_metadata")})
		l.deployed(l.deployment("success", body{"extra_metadata": body{}})).is(200)
		l.deployed(l.deployment("success")).shows(body{"extra_metadata": nil})
	})
}

// Rows: D-02
func TestEveryStatusWordComesBackAsItsCanonicalOne(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		words := map[string][]string{
			"pending":   {"pending", "queued", "scheduled"},
			"started":   {"started", "in_progress", "init", "deploying", "building"},
			"completed": {"success", "completed", "complete", "finished", "deployed", "built"},
			"failed":    {"failed", "fail", "failure", "error"},
			"aborted":   {"aborted", "abort", "cancelled", "canceled", "cancel", "skipped"},
		}
		n := 0
		for canonical, aliases := range words {
			for _, alias := range aliases {
				n++
				for i, word := range []string{alias, strings.ToUpper(alias), strings.ToUpper(alias[:1]) + alias[1:], "  " + alias + "\t"} {
					run := body{"invoke_id": word, "environment_name": strings.TrimSpace(word) + strconv.Itoa(i)} // an environment each, for none to be in another's way
					l.deployed(l.deployment(word, run)).shows(body{"status": canonical})
					l.built(l.build(word, run)).shows(body{"status": canonical})
				}
			}
		}
		differ(t, "words", len(event.StatusWords()), n)
		for _, path := range posts {
			for _, unknown := range []string{"launched", "preflight_failed", "complete d", "in progress", "in-progress", "success!"} {
				differ(t, path+" "+unknown, []string{"body.status"}, l.post(path, l.deployment(unknown)).faults())
			}
		}
	})
}

func TestHEADIsAnsweredLikeGETWithoutABody(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		a := l.send(http.MethodHead, "/deployments/", "", as(l.pat)).is(200)
		if len(a.raw) != 0 {
			t.Errorf("HEAD has a body of %d bytes", len(a.raw))
		}
	})
}
