package readmodel

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shipledger/shipledger/pkg/event"
)

// MetaFilter wants a value of extra_metadata. A text matches as it is, a whole
// number or truth value by its usual writing; nothing else matches.
type MetaFilter struct {
	Path  []string // names of members, from the outermost
	Value string
}

// maxMetaPath bounds how deep a MetaFilter looks.
const maxMetaPath = 8

var metaName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// ParseMetaPath reads names joined by dots, each of letters, digits, _ and -.
func ParseMetaPath(text string) ([]string, error) {
	names := strings.Split(text, ".")
	if len(names) > maxMetaPath {
		return nil, errors.New("a path has at most 8 names")
	}
	for _, name := range names {
		if !metaName.MatchString(name) {
			return nil, errors.New("a path is names joined by dots, each of 1 to 100 letters, digits, _ and -")
		}
	}
	return names, nil
}

// Matches tells whether metadata has the value.
func (f *MetaFilter) Matches(extra map[string]event.Extra) bool {
	top, ok := extra[f.Path[0]]
	if !ok {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(top.Value))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return false
	}
	for _, name := range f.Path[1:] {
		object, _ := v.(map[string]any)
		if v, ok = object[name]; !ok {
			return false
		}
	}
	switch v := v.(type) {
	case string:
		return v == f.Value
	case bool:
		return strconv.FormatBool(v) == f.Value
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return strconv.FormatInt(n, 10) == f.Value
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return strconv.FormatUint(n, 10) == f.Value
		}
	}
	return false
}

// SameCommit is the rule of contract 10: equal in any case, or 7 or more
// characters of the shorter begin the longer.
func SameCommit(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if len(a) > len(b) {
		a, b = b, a
	}
	return a == b || len(a) >= 7 && strings.HasPrefix(b, a)
}

// Matches tells whether a run is one that f asks for. The class of its
// environment is the caller's to look up.
func (f *RunFilter) Matches(r *RunRow, class event.Class) bool {
	rec := &r.Record
	a := &rec.Attributes
	return (f.Product == event.ProductID{} || f.Product == rec.ProductID) &&
		(f.Environment == event.EnvironmentID{} || f.Environment == rec.EnvironmentID) &&
		(f.Class == nil || rec.Kind == event.Deployment && *f.Class == class) &&
		(f.Version == "" || f.Version == rec.Version) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, rec.Status)) &&
		(f.By == "" || f.By == a[event.By] || f.By == a[event.ByEmail] || f.By == a[event.ByName]) &&
		(f.Source == "" || f.Source == a[event.SourceSystem]) &&
		(f.Run == "" || f.Run == a[event.InvokeID]) &&
		(len(f.Runs) == 0 || slices.Contains(f.Runs, a[event.InvokeID])) &&
		(f.SHA == "" || a[event.SCMSHA] != "" && SameCommit(f.SHA, a[event.SCMSHA])) &&
		(f.Mode == "" || f.Mode == r.Author.Mode) &&
		(f.Changed == 0 || r.Position.Offset > f.Changed) &&
		(f.Since.IsZero() || r.At().UnixMilli() >= f.Since.UnixMilli()) &&
		(f.Until.IsZero() || r.At().UnixMilli() < f.Until.UnixMilli()) &&
		!slices.ContainsFunc(f.Meta, func(m MetaFilter) bool { return !m.Matches(rec.Extra) })
}
