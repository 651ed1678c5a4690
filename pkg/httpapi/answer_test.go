package httpapi_test

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

func TestTheAnswerWrittenByHandIsThatOfTheDocument(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func(label string) time.Time {
			n := rapid.Int64Range(0, 4e12).Draw(t, label)
			if n%5 == 0 {
				return time.Time{}
			}
			return time.UnixMilli(n).UTC()
		}
		r := event.Record{
			Kind:        rapid.SampledFrom([]event.Kind{event.Deployment, event.Build}).Draw(t, "kind"),
			ProductName: rapid.String().Draw(t, "product"), EnvironmentName: rapid.String().Draw(t, "environment"), Version: rapid.String().Draw(t, "version"),
			Status:    rapid.SampledFrom([]event.Status{event.Started, event.Completed, event.Failed}).Draw(t, "status"),
			StartedAt: at("started"), CompletedAt: at("completed"), CreatedAt: at("created"), SHAMismatch: rapid.Bool().Draw(t, "mismatch"),
		}
		_ = r.ID.SetTime(uint64(rapid.Int64Range(0, 4e12).Draw(t, "id"))) //nolint:gosec // it is positive
		r.ProductID, r.EnvironmentID = event.ProductIDOf("acme", r.ProductName), event.EnvironmentIDOf("acme", r.EnvironmentName)
		r.VersionID = event.VersionIDOf("acme", r.ProductID, r.Version)
		for a := range r.Attributes {
			r.Attributes[a] = rapid.StringN(0, 20, -1).Draw(t, "attribute")
		}
		for k, v := range rapid.MapOfN(rapid.String(), rapid.SampledFrom([]string{"1", `"x"`, `{"a":[]}`}), 0, 4).Draw(t, "extra") {
			if r.Extra == nil {
				r.Extra = map[string]event.Extra{}
			}
			r.Extra[k] = event.Extra{Value: []byte(v)}
		}
		id := ulid.ULID{1, 2, 3}
		var shown any = httpapi.DeploymentOf(&r, id.String())
		if r.Kind == event.Build {
			shown = httpapi.BuildOf(&r, id.String())
		}
		want, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(httpapi.AppendRun(nil, &r, id))); diff != "" {
			t.Fatal(diff)
		}
	})
}
