package hostile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A value is JSON that can still be changed: text as it stands, or an object or
// array of values.
type value struct {
	text    string
	members []member
	items   []*value
	object  bool
}

type member struct {
	name string // as it stands in JSON, quoted
	v    *value
}

func (v *value) append(b []byte) []byte {
	switch {
	case v.object:
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = m.v.append(append(append(b, m.name...), ':'))
		}
		return append(b, '}')
	case v.items != nil:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.append(b)
		}
		return append(b, ']')
	}
	return append(b, v.text...)
}

// each visits v and everything in it.
func (v *value) each(visit func(*value)) {
	visit(v)
	for _, m := range v.members {
		m.v.each(visit)
	}
	for _, item := range v.items {
		item.each(visit)
	}
}

// value makes what a schema describes. Strings of hostile requests mean harm.
func (g *Generator) value(name string, schema map[string]any, intent Intent, depth int) *value {
	schema = g.resolve(schema)
	if words, ok := schema["enum"].([]any); ok {
		return &value{text: literal(pick(g, words))}
	}
	if c, ok := schema["const"]; ok {
		return &value{text: literal(c)}
	}
	kind := ""
	switch t := schema["type"].(type) {
	case string:
		kind = t
	case []any:
		kind, _ = t[g.rng.IntN(len(t))].(string)
		if kind == "null" && !g.one(3) {
			kind, _ = t[0].(string)
		}
	}
	switch kind {
	case "null":
		return &value{text: "null"}
	case "boolean":
		if name == "pat_write" { // false would end what most requests need
			return &value{text: "true"}
		}
		return &value{text: pick(g, []string{"true", "false"})}
	case "integer", "number":
		return &value{text: g.number(schema)}
	case "array":
		v := &value{items: []*value{}}
		items, _ := schema["items"].(map[string]any)
		for range g.rng.IntN(4) {
			v.items = append(v.items, g.value(name, items, intent, depth+1))
		}
		return v
	case "object":
		return g.object(schema, intent, depth)
	}
	if intent == Harm && g.one(2) {
		g.did("hostile " + name)
		return &value{text: quote(g.hostileText())}
	}
	return &value{text: quote(g.text(name))}
}

func (g *Generator) object(schema map[string]any, intent Intent, depth int) *value {
	v := &value{object: true}
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	_, anyOf := schema["anyOf"]
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if !slices.Contains(required, any(name)) && !g.one(3) && (!anyOf || !g.one(2)) {
			continue
		}
		p, _ := properties[name].(map[string]any)
		v.members = append(v.members, member{quote(name), g.value(name, p, intent, depth+1)})
	}
	if _, named := properties["kind"]; named && schema["additionalProperties"] == true { // an item of a batch: some event
		event := "BuildEvent"
		if g.one(2) {
			event = "DeploymentEvent"
		}
		v.members = append(v.members, g.object(g.resolve(map[string]any{"$ref": "#/components/schemas/" + event}), intent, depth).members...)
		return v
	}
	if schema["additionalProperties"] != nil && depth < 4 {
		for range g.rng.IntN(3) {
			name := pick(g, words)
			if intent == Harm && g.one(3) {
				name = g.hostileText()
			}
			v.members = append(v.members, member{quote(name), g.anything(intent, depth+1)})
		}
	}
	return v
}

// anything is a value where the document leaves open what stands there.
func (g *Generator) anything(intent Intent, depth int) *value {
	switch g.rng.IntN(6) {
	case 0:
		return &value{text: pick(g, []string{"1", "-7", "0.5", "1e300", "9007199254740993", "null", "true"})}
	case 1:
		v := &value{items: []*value{}}
		for range g.rng.IntN(3) {
			v.items = append(v.items, g.anything(intent, depth+1))
		}
		return v
	case 2:
		return g.object(map[string]any{"additionalProperties": true}, intent, depth)
	}
	return g.value("", map[string]any{"type": "string"}, intent, depth)
}

func (g *Generator) number(schema map[string]any) string {
	low, high := 0, 1000
	if n, ok := schema["minimum"].(float64); ok {
		low = int(n)
	}
	if n, ok := schema["maximum"].(float64); ok {
		high = int(n)
	}
	return strconv.Itoa(low + g.rng.IntN(max(1, high-low+1)))
}

// text is what a client would write there, out of a few words, so that requests
// speak of the same things.
func (g *Generator) text(name string) string {
	n := strconv.Itoa(g.rng.IntN(8))
	switch name {
	case "status":
		return pick(g, statuses)
	case "started_at", "completed_at", "built_at":
		return pick(g, moments)
	case "scm_sha":
		return strings.Repeat(pick(g, []string{"a", "b", "c"}), 40)
	case "expires":
		return pick(g, []string{"30d", "90d", "1y", "2099-01-01", "2099-01-01T00:00:00Z", "never"})
	case "grace":
		return pick(g, []string{"0", "1h", "7d"})
	case "scopes", "scope":
		return pick(g, []string{"read", "events:write", "write", "admin", "sync-trigger"})
	case "ip_allow":
		return pick(g, []string{"192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "127.0.0.1"})
	case "rate_limit":
		return pick(g, []string{"60/1m", "1000/1h,burst=5", "default"})
	case "email", "admin_email":
		return "user" + n + "@example.com"
	case "account":
		return pick(g, []string{"acme", "team-" + n})
	case "version_id":
		if known := g.objects["versions"]; len(known) > 0 {
			return pick(g, known)
		}
	case "ids":
		return "t0.1.0"
	case "version":
		return "1." + n + ".0"
	case "value":
		return "vf_tok_" + strings.Repeat(pick(g, words), 4) + n + "0123456789abcdefABCDEF"
	case "password", "current_password", "new_password":
		return "correct horse battery staple " + n
	case "method":
		return pick(g, []string{"initialize", "tools/list", "tools/call", "ping", "notifications/initialized"})
	case "from", "to":
		return pick(g, moments)
	}
	return pick(g, words) + "-" + n
}

var (
	words    = []string{"shop", "api", "production", "staging", "team", "ünïcode", "日本", "a.b", "x"}
	statuses = []string{"started", "success", "failed", "aborted", "pending", "COMPLETED", "in_progress"}
	moments  = []string{"2026-03-02T09:00:00Z", "2026-03-02T10:00:00.123456789+02:00", "1970-01-01T00:00:00Z", "2026-02-28T23:59:60Z", "9999-12-31T23:59:59Z", "2026-01-01T00:00:00-11:59"}
)

func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case nil:
		return "null"
	}
	return fmt.Sprint(v)
}

// quote writes text as JSON without judging it: bytes that are no UTF-8 stay.
func quote(text string) string {
	b := []byte{'"'}
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
