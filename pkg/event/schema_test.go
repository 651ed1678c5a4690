package event_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/schemas"
)

const examples = "../../schemas/events/testdata"

func frameSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	files, err := fs.Glob(schemas.Events, "events/*.schema.json")
	if err != nil || len(files) == 0 {
		tb.Fatal("no schemas", err)
	}
	envelope := ""
	for _, name := range files {
		body, err := schemas.Events.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			tb.Fatal(name, err)
		}
		id, _ := doc.(map[string]any)["$id"].(string)
		if err := c.AddResource(id, doc); err != nil {
			tb.Fatal(name, err)
		}
		if strings.HasPrefix(path.Base(name), "envelope") {
			envelope = id
		}
	}
	s, err := c.Compile(envelope)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func validate(tb testing.TB, s *jsonschema.Schema, body []byte) error {
	tb.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		tb.Fatalf("%v: %s", err, body)
	}
	return s.Validate(v)
}

func files(tb testing.TB, dir string) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(examples, dir, "*.json"))
	if err != nil || len(names) == 0 {
		tb.Fatal("no examples", err)
	}
	out := map[string][]byte{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(name), ".json")] = body
	}
	return out
}

func generic(tb testing.TB, body []byte) any {
	tb.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		tb.Fatalf("%v: %s", err, body)
	}
	return v
}

func TestValidExamplesAreReadAndWrittenAgainAsTheyWere(t *testing.T) {
	s := frameSchema(t)
	for name, body := range files(t, "valid") {
		t.Run(name, func(t *testing.T) {
			if err := validate(t, s, body); err != nil {
				t.Fatal(err)
			}
			const seq = 2
			recorded, err := event.DecodeFrame("t0", seq, body)
			if err != nil {
				t.Fatal(err)
			}
			events := make([]event.Event, len(recorded))
			for i := range recorded {
				events[i] = recorded[i].Event
			}
			again := event.AppendFrame(nil, seq, events)
			if diff := cmp.Diff(generic(t, body), generic(t, again)); diff != "" {
				t.Error(diff)
			}
			if err := validate(t, s, again); err != nil {
				t.Error(err)
			}
		})
	}
}

// A finding is where a document fails, and by which keyword.
type finding struct{ at, by string }

func findings(err error) (all []finding) {
	v, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return nil
	}
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		at := "/" + strings.Join(e.InstanceLocation, "/")
		switch k := e.ErrorKind.(type) {
		case *kind.Required:
			for _, m := range k.Missing {
				all = append(all, finding{at + "/" + m, "required"})
			}
		case *kind.AdditionalProperties:
			for _, p := range k.Properties {
				all = append(all, finding{at + "/" + p, "additionalProperties"})
			}
		case *kind.Not: // it has no keyword path
			all = append(all, finding{at, "not"})
		default:
			if p := k.KeywordPath(); len(p) > 0 {
				all = append(all, finding{at, p[0]})
			}
		}
		for _, cause := range e.Causes {
			walk(cause)
		}
	}
	walk(v)
	return all
}

func TestInvalidExamplesFailForTheReasonInTheirName(t *testing.T) {
	want := map[string]finding{
		"deployment-without-status":               {"/0/data/deployment/status", "required"},
		"deployment-of-alias-status":              {"/0/data/request/status", "enum"},
		"deployment-of-unknown-status":            {"/0/data/deployment/status", "enum"},
		"deployment-without-environment":          {"/0/data/deployment/environment_name", "required"},
		"deployment-without-product":              {"/0/data/deployment/product_name", "required"},
		"deployment-without-version":              {"/0/data/deployment/version", "required"},
		"deployment-without-record":               {"/0/data/deployment", "required"},
		"deployment-with-unknown-member":          {"/0/data/deployment/color", "additionalProperties"},
		"deployment-whose-request-is-no-object":   {"/0/data/request", "type"},
		"deployment-with-time-without-zone":       {"/0/data/effective_at", "format"},
		"deployment-with-short-hash":              {"/0/data/hash", "pattern"},
		"deployment-with-subject-that-is-no-ulid": {"/0/subject", "pattern"},
		"deployment-of-unknown-type":              {"/0/type", "pattern"},
		"deployment-refused-without-rule":         {"/0/data/refusal/rule", "required"},
		"deployment-with-receipt-without-event":   {"/0/data/deployment/receipts/0/event", "required"},
		"deployment-with-origin-without-fields":   {"/0/data/deployment/origins/0/fields", "minItems"},
		"build-without-version":                   {"/0/data/build/version", "required"},
		"build-with-environment":                  {"/0/data/build/environment_name", "additionalProperties"},
		"build-that-preflight-refused":            {"/0/type", "pattern"},
		"product-without-name":                    {"/0/data/product/name", "required"},
		"product-of-incarnation-zero":             {"/0/data/product/incarnation", "minimum"},
		"product-deleted-and-not-so":              {"/0/data/product/deleted", "const"},
		"product-with-metadata-that-is-a-list":    {"/0/data/product/extra_metadata", "type"},
		"release-of-unknown-status":               {"/0/data/release/status", "enum"},
		"setting-that-is-a-word":                  {"/0/data/settings/pat_write", "type"},
		"environment-of-limit-zero":               {"/0/data/environment/concurrency_limit", "minimum"},
		"environment-of-unknown-type":             {"/0/data/environment/type", "enum"},
		"environment-without-name":                {"/0/data/environment/name", "required"},
		"version-without-product":                 {"/0/data/version/product_name", "required"},
		"version-with-empty-commit":               {"/0/data/version/scm_sha", "minLength"},
		"version-with-number-as-version":          {"/0/data/version/version", "type"},
		"credential-without-digest":               {"/0/data/credential/digest", "required"},
		"credential-with-secret":                  {"/0/data/credential", "not"},
		"credential-api-key-without-key-id":       {"/0/data/credential/key_id", "required"},
		"credential-token-without-token-id":       {"/0/data/credential/token_id", "required"},
		"credential-of-unknown-scope":             {"/0/data/credential/scopes/0", "enum"},
		"credential-of-unknown-status":            {"/0/data/credential/status", "enum"},
		"user-without-email":                      {"/0/data/user/email", "required"},
		"user-with-password":                      {"/0/data/user", "not"},
		"user-with-token-of-link":                 {"/0/data/user/link", "not"},
		"session-with-token":                      {"/0/data/session", "not"},
		"credential-with-rate-of-nothing":         {"/0/data/credential/rate_limit/tokens", "minimum"},
		"session-without-user":                    {"/0/data/session/user_id", "required"},
		"session-without-end":                     {"/0/data/session/expires_at", "required"},
		"account-without-name":                    {"/0/data/account/name", "required"},
		"replay-of-unknown-state":                 {"/0/data/replay/state", "enum"},
		"replay-ready-without-certificate":        {"/0/data/replay/certificate", "required"},
		"replay-without-version":                  {"/0/data/replay/version", "required"},
		"quarantine-of-nothing":                   {"/0/data/quarantine", "oneOf"},
		"quarantine-at-no-place":                  {"/0/data/quarantine/positions/0", "pattern"},
		"quarantine-without-reason-given":         {"/0/data/quarantine/reason", "minLength"},
		"envelope-without-id":                     {"/0/id", "required"},
		"envelope-with-lower-case-id":             {"/0/id", "pattern"},
		"envelope-of-no-account":                  {"/0/source", "pattern"},
		"envelope-of-unknown-mode":                {"/0/mode", "enum"},
		"envelope-without-data":                   {"/0/data", "required"},
		"envelope-with-underscore-in-attribute":   {"/0", "propertyNames"},
		"envelope-of-other-version":               {"/0/specversion", "const"},
		"envelope-with-time-without-zone":         {"/0/time", "format"},
		"envelope-without-events":                 {"/", "minItems"},
	}
	s := frameSchema(t)
	found := files(t, "invalid")
	for name, body := range found {
		t.Run(name, func(t *testing.T) {
			reason, listed := want[name]
			if !listed {
				t.Fatal("the test does not know this file's reason")
			}
			err := validate(t, s, body)
			if err == nil {
				t.Fatal("it is valid")
			}
			if got := findings(err); !slices.Contains(got, reason) {
				t.Errorf("want %v, got %v", reason, got)
			}
		})
	}
	for name := range want {
		if found[name] == nil {
			t.Errorf("%s.json is missing", name)
		}
	}
}

// TestWhatIsWrittenIsValid draws records as the write side makes them.
func TestWhatIsWrittenIsValid(t *testing.T) {
	s := frameSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "now")).UTC()
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event.Event { return drawEvent(t, now) }), 1, 4).Draw(t, "events")
		const seq = 7
		body := event.AppendFrame(nil, seq, events)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if err := s.Validate(v); err != nil {
			t.Fatalf("%v\n%s", err, body)
		}
		recorded, err := event.DecodeFrame("t0", seq, body)
		if err != nil {
			t.Fatalf("%v\n%s", err, body)
		}
		again := make([]event.Event, len(recorded))
		for i := range recorded {
			again[i] = recorded[i].Event
		}
		if second := event.AppendFrame(nil, seq, again); !bytes.Equal(body, second) {
			t.Fatalf("read and written again, it differs:\n%s\n%s", body, second)
		}
	})
}

func drawULID(t *rapid.T, label string) ulid.ULID {
	var id ulid.ULID
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
	return id
}

func drawEvent(t *rapid.T, now time.Time) event.Event {
	name := rapid.StringMatching(`[a-zA-Zé ./_-]{1,40}`)
	e := event.Event{
		ID: drawULID(t, "id"), Account: "acme", Subject: "x", Time: now,
		Author:         event.Author{CredentialID: "k1", CredentialName: rapid.String().Draw(t, "credential"), Mode: rapid.SampledFrom([]event.Mode{event.Live, event.Test}).Draw(t, "mode")},
		Backfilled:     rapid.Bool().Draw(t, "backfilled"),
		IdempotencyKey: rapid.StringMatching(`[a-z]{0,8}`).Draw(t, "key"),
	}
	extra := rapid.SampledFrom([][]byte{nil, []byte(`{}`), []byte(`{"team":["é",1]}`)})
	about := rapid.SampledFrom([]string{"", "What é it \"does\"."})
	if rapid.Bool().Draw(t, "by a person") {
		e.Actor = drawULID(t, "actor").String()
	}
	incarnation := rapid.Uint16Range(0, 3).Draw(t, "incarnation")
	created := now.Add(-time.Duration(rapid.Int64Range(0, 1e6).Draw(t, "age")) * time.Millisecond)
	product := name.Draw(t, "product")
	productID := event.ProductIDOf("acme", rapid.SampledFrom([]string{product, "its first name"}).Draw(t, "first name"))
	switch rapid.IntRange(0, 5).Draw(t, "payload") {
	case 5:
		e.Type = event.SettingChanged
		e.BodyHash = rapid.Uint64Range(0, 1).Draw(t, "body hash")
		e.Payload = &event.Settings{PATWrite: rapid.Bool().Draw(t, "on"), PreflightStrict: rapid.Bool().Draw(t, "strict")}
	case 0:
		e.Type = rapid.SampledFrom([]event.Type{event.ProductCreated, event.ProductUpdated, event.ProductRenamed, event.ProductDeleted}).Draw(t, "type")
		e.BodyHash = rapid.Uint64Range(0, 1).Draw(t, "body hash")
		e.Payload = &event.Product{
			ID: productID, Name: product, Description: about.Draw(t, "description"), Extra: extra.Draw(t, "metadata"),
			Incarnation: incarnation, Deleted: e.Type == event.ProductDeleted, CreatedAt: created,
		}
	case 1:
		env := name.Draw(t, "environment")
		e.Type = rapid.SampledFrom([]event.Type{event.EnvironmentCreated, event.EnvironmentUpdated, event.EnvironmentRenamed, event.EnvironmentDeleted}).Draw(t, "type")
		e.BodyHash = rapid.Uint64Range(0, 1).Draw(t, "body hash")
		e.Payload = &event.Environment{
			ID: event.EnvironmentIDOf("acme", env), Name: env, Class: event.ClassOf(env),
			Description: about.Draw(t, "description"), Extra: extra.Draw(t, "metadata"),
			ConcurrencyLimit: rapid.Uint16Range(0, 2).Draw(t, "limit"), StaleAfter: time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute,
			Incarnation: incarnation, Deleted: e.Type == event.EnvironmentDeleted, CreatedAt: created,
		}
	case 2:
		e.Type = rapid.SampledFrom([]event.Type{event.VersionCreated, event.VersionSHAFixed}).Draw(t, "type")
		e.Payload = &event.Version{ProductID: productID, ProductName: product, Version: "1", Incarnation: incarnation, SHA: rapid.StringMatching(`[0-9a-f]{0,40}`).Draw(t, "sha"), SHAFixed: e.Type == event.VersionSHAFixed, CreatedAt: created}
	default:
		e.BodyHash = rapid.Uint64Range(0, 1).Draw(t, "body hash")
		drawRun(t, &e, product, productID, incarnation, created)
	}
	return e
}

func drawRun(t *rapid.T, e *event.Event, product string, productID event.ProductID, incarnation uint16, created time.Time) {
	k := rapid.SampledFrom([]event.Kind{event.Deployment, event.Build}).Draw(t, "kind")
	statuses := []event.Status{event.Pending, event.Started, event.Completed, event.Failed, event.Aborted}
	reported := rapid.SampledFrom(statuses).Draw(t, "reported")
	status := rapid.SampledFrom(statuses).Draw(t, "status")
	id := drawULID(t, "run")
	text := rapid.SampledFrom([]string{"", "x", "é\"\\\n", "\x00"})
	request := map[string]any{"product_name": product, "version": "1", "status": reported.String(), "extra_metadata": map[string]string{"a": "b"}}
	for _, member := range []string{"environment", "environment_name", "scm_sha", "deploy_url", "build_url", "invoke_id", "error_message", "built_by"} {
		if v := text.Draw(t, member); v != "" {
			request[member] = v
		}
	}
	if rapid.Bool().Draw(t, "odd") {
		request["skip_preflight_checks"], request["completed_at"] = "", "2026-05-24T14:06:05.123456Z"
	}
	body, err := json.Marshal(request, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	effective := rapid.SampledFrom([]time.Time{e.Time, created}).Draw(t, "effective")
	p := &event.Run{EffectiveAt: effective, Hash: rapid.Uint64().Draw(t, "hash")}
	if rapid.Bool().Draw(t, "sent by a client") {
		p.Request = body
	}
	own := event.Stamp{Rank: reported.Rank(), Effective: effective, Offset: 0}
	r := &p.Record
	*r = event.Record{
		Kind: k, ID: id, Account: e.Account, ProductID: productID, ProductName: product, ProductIncarnation: incarnation,
		Version: "1", Status: status, Seen: event.StatusSet(0).With(reported).With(status), CreatedAt: created,
	}
	if k == event.Deployment {
		r.EnvironmentName = rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "environment")
		r.EnvironmentID, r.EnvironmentIncarnation = event.EnvironmentIDOf("acme", r.EnvironmentName), incarnation
		r.SHAMismatch = rapid.Bool().Draw(t, "mismatch")
		if rapid.Bool().Draw(t, "refused") {
			reported, r.Status = event.PreflightFailed, event.PreflightFailed
			own.Rank = reported.Rank()
			p.Refusal = &event.Refusal{Rule: "r", Code: "C", Message: "m", Conflict: drawULID(t, "conflict")}
		}
	}
	if rapid.Bool().Draw(t, "began") {
		r.StartedAt = created
	}
	if r.Status.Terminal() {
		r.CompletedAt = effective
	}
	earlier := event.Stamp{Rank: 1, Effective: created, Offset: event.At(3, 0)}
	for a := range r.Attributes {
		if event.Attribute(a).Name(k) == "" {
			continue
		}
		if r.Attributes[a] = text.Draw(t, "attribute"); r.Attributes[a] != "" {
			r.AttributeStamps[a] = earlier
		}
	}
	r.Extra = map[string]event.Extra{"a": {Value: []byte(`"b"`), Stamp: earlier}}
	r.Receipts = []event.Receipt{{Hash: 1, Event: drawULID(t, "receipt"), Offset: event.At(3, 0)}}
	e.Type, e.Subject, e.Payload = event.TypeOf(k, reported), id.String(), p
}
