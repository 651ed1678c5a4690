package chmodel

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// anyMoment gives any that a client may report, and none.
func anyMoment() *rapid.Generator[time.Time] {
	year := func(y int) int64 { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() }
	return rapid.OneOf(rapid.Just(time.Time{}), rapid.Map(rapid.Int64Range(year(0), year(10_000)-1), moment), rapid.Map(rapid.Int64Range(year(2026), year(2027)), moment))
}

// anyRun gives a run with whatever rest holds.
func anyRun(t *rapid.T) readmodel.RunRow {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	sha := rapid.OneOf(text, rapid.StringMatching("[0-9a-f]{40}"), rapid.Just(strings.Repeat("0", 40)), rapid.StringMatching("[0-9A-F]{40}"), rapid.StringMatching("[0-9a-f]{7,64}"))
	r := readmodel.RunRow{
		Author:   event.Author{CredentialID: text.Draw(t, "credential"), CredentialName: text.Draw(t, "name"), Mode: event.Mode(text.Draw(t, "mode")), Actor: text.Draw(t, "actor")},
		Position: event.Position{Stream: text.Draw(t, "stream")}, Backfilled: rapid.Bool().Draw(t, "backfilled"),
	}
	rec := &r.Record
	copy(rec.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
	rec.ProductIncarnation, rec.EnvironmentIncarnation = rapid.Uint16().Draw(t, "product"), rapid.Uint16().Draw(t, "environment")
	rec.Version, rec.Seen, rec.SHAMismatch = text.Draw(t, "version"), event.StatusSet(rapid.Byte().Draw(t, "seen")), rapid.Bool().Draw(t, "mismatch")
	rec.Status = rapid.SampledFrom([]event.Status{event.Started, event.Completed, event.Failed, event.Aborted, event.PreflightFailed}).Draw(t, "status")
	rec.CreatedAt, rec.StartedAt, rec.CompletedAt = anyMoment().Draw(t, "created"), anyMoment().Draw(t, "started"), anyMoment().Draw(t, "completed")
	for i := range rec.Attributes {
		rec.Attributes[i] = text.Draw(t, "attribute")
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching("[a-z é\"]{1,4}"), 0, 3, rapid.ID[string]).Draw(t, "extra") {
		if rec.Extra == nil {
			rec.Extra = map[string]event.Extra{}
		}
		rec.Extra[name] = event.Extra{Value: []byte(rapid.SampledFrom([]string{`"a"`, `{"b": [1, 2.50]}`, "null", "18446744073709551615"}).Draw(t, "value"))}
	}
	rec.Attributes[event.SCMSHA] = sha.Draw(t, "sha")
	return r
}

func TestRestComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRun(t)
		text := string(appendRest(nil, &want))
		got := readmodel.RunRow{Record: event.Record{ID: want.Record.ID}}
		if err := readRest(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		again := appendRest(nil, &got)
		if string(again) != text {
			t.Errorf("the same run is other bytes: %x, %x", text, again)
		}
	})
}

// What was cut off, or stands in another form, is an error and no run.
func TestRestThatIsNotWhatIsWrittenIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run := anyRun(t)
		text := string(appendRest(nil, &run))
		for cut := range len(text) {
			if err := readRest(text[:cut], &readmodel.RunRow{}); err == nil {
				t.Fatalf("%x of %x is read", text[:cut], text)
			}
		}
		for _, odd := range []string{text + "x", "\x01" + text[1:]} {
			if err := readRest(odd, &readmodel.RunRow{}); err == nil {
				t.Fatalf("%x is read", odd)
			}
		}
		_ = readRest(string(rapid.SliceOf(rapid.Byte()).Draw(t, "noise")), &readmodel.RunRow{})
	})
}

func TestRestShowsWhatNoOtherColumnDoes(t *testing.T) {
	run := readmodel.RunRow{Record: event.Record{ID: ulid.ULID{1}, Status: event.Failed, CreatedAt: moment(1000)}, Author: event.Author{Actor: "ann"}}
	run.Record.Attributes[event.ErrorMessage] = "no room"
	got, err := restColumns(run.Record.ID, string(appendRest(nil, &run)))
	if err != nil || got["error_message"] != "no room" || got["actor"] != "ann" || got["created_ms"] != "1970-01-01T00:00:01Z" || got["sha_mismatch"] != "false" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := restColumns(run.Record.ID, "?"); err == nil {
		t.Error("what is not written so is shown")
	}
}

// anyJSON gives a value that is written in one of many ways.
func anyJSON(t *rapid.T, depth int) string {
	texts := rapid.SampledFrom([]string{`"a"`, `""`, `"é"`, `"\u00e9"`, `"\ud83d\ude00"`, `"a\nb"`, `"it's \"x\""`, "\"\xff\"", `"\ud800"`})
	switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
	case kind < 3:
		return texts.Draw(t, "text")
	case kind < 6:
		return rapid.SampledFrom([]string{"0", "-0", "7", "-7", "18446744073709551615", "9223372036854775808", "2.5", "1e3", "99999999999999999999", "true", "false", "null"}).Draw(t, "other")
	case kind < 7:
		return "[" + texts.Draw(t, "in") + "]"
	case depth > 3:
		return "{}"
	}
	var b strings.Builder
	for i := range rapid.IntRange(0, 4).Draw(t, "members") {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, " %s : %s", rapid.SampledFrom([]string{`"a"`, `"b"`, `"\u0061"`}).Draw(t, "name"), anyJSON(t, depth+1))
	}
	return "{" + b.String() + "}"
}

// wishes are filters of which a value may be what is asked for.
func wishes(path []string, v any) (out []readmodel.MetaFilter) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			out = append(out, wishes(append(slices.Clone(path), name), member)...)
		}
	case string:
		out = append(out, readmodel.MetaFilter{Path: path, Value: v})
	case bool:
		out = append(out, readmodel.MetaFilter{Path: path, Value: strconv.FormatBool(v)})
	case json.Number:
		out = append(out, readmodel.MetaFilter{Path: path, Value: v.String()}, readmodel.MetaFilter{Path: path, Value: "0"})
	}
	return out
}

// A statement leaves out what has not got the leaf: nothing may be lost by that.
func TestEveryValueThatAFilterMatchesHasItsLeaf(t *testing.T) {
	var l leaves
	met := 0
	rapid.Check(t, func(t *rapid.T) {
		extra := map[string]event.Extra{}
		for range rapid.IntRange(0, 4).Draw(t, "names") {
			extra[rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "top")] = event.Extra{Value: []byte(anyJSON(t, 0))}
		}
		run := event.Record{Extra: extra}
		found := slices.Clone(l.of(&run))
		if again := l.of(&run); !slices.Equal(found, again) {
			t.Errorf("%v, then %v", found, again)
		}
		for name, x := range extra {
			d := json.NewDecoder(strings.NewReader(string(x.Value)))
			d.UseNumber()
			var v any
			if err := d.Decode(&v); err != nil {
				continue
			}
			for _, f := range wishes([]string{name}, v) {
				if f.Matches(extra) {
					met++
					if !slices.Contains(found, leafOf(f)) {
						t.Errorf("%s matches %v and has no leaf for it", x.Value, f)
					}
				}
			}
		}
	})
	if met == 0 {
		t.Error("nothing was matched")
	}
}
