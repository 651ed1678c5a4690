package hostile

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// Marker stands in what must never come back as a page or as a header.
const Marker = "hostile7"

// hostileTexts mean harm to whoever takes them for something else than text:
// SQL, log lines, headers, spreadsheets, pages, templates, paths, JSON.
var hostileTexts = []string{
	"' OR 1=1 --", `'; DROP TABLE deployments; --`, `\'; SELECT 1 --`, "{account:String}", "{p1:UInt64}", "$1 ? :name @p0", "%s%n%x%d", "\\", "'", "`", `"`, "/*", "--",
	"a\r\nX-" + Marker + ": yes", "a\nlevel=ERROR msg=forged", "a\x1b[31mred\x1b[0m", "a\r", "a\x00b", "\x7f", "\u0085next", "\u2028",
	"=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", `=HYPERLINK("http://x")`,
	"<script>" + Marker + "</script>", "\"><img src=x onerror=" + Marker + ">", "javascript:" + Marker, "</script><!--" + Marker,
	"{{7*7}}", "${jndi:ldap://x}", "#{7*7}", "<%= 7*7 %>", "{{constructor.constructor('x')()}}", "$(id)", "`id`", "; id", "| id",
	"../../../../etc/passwd", "..%2f..%2fetc", "%00", "%2e%2e", "file:///etc/passwd", "http://169.254.169.254/latest/meta-data/", "//" + Marker + ".example",
	"\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "e\u0301", "\u202egnp.exe", "\ufeff", "\u0000", "ﷺ", "👩‍👩‍👧‍👧", "İ", "ß",
	"null", "true", "NaN", "0", "-1", "1e999", "undefined", "__proto__", "constructor", "*", "production*", "%", "_", "[a-z]", "(a+)+$", "",
	"sk_acme_k1_" + strings.Repeat("A", 46), "pat_x", "Bearer x", " ", "\t", "　",
}

func (g *Generator) hostileText() string {
	switch g.rng.IntN(24) {
	case 0:
		return strings.Repeat(pick(g, []string{"a", "ü", "'", "\\", "<", "="}), pick(g, []int{40, 41, 50, 51, 100, 101, 255, 256, 500, 501, 1001, 2001}))
	case 1:
		if b := pick(g, g.bearers); b.Token != "" && !b.Cookie {
			g.did("a credential where none belongs")
			return b.Token
		}
	case 2:
		return pick(g, hostileTexts) + pick(g, hostileTexts)
	}
	return pick(g, hostileTexts)
}

var (
	wrongParameters = []string{
		"", "x", "-1", "0", "501", "1e3", "99999999999999999999", "0x10", "١", " 1", "1 ", "NaN", "true,false", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "yesterday",
		"t0", "t0.x.0", "t0.1.0,t0", "z9.1.0", "t0.18446744073709551616.0", "AAAA", "AAAAAAAAAAAAAAA", "=", "\xff", "a\x00b", "completed,", ",,,", "bogus",
	}
	mediaTypes = []string{
		"text/plain", "application/xml", "application/json; charset=utf-16", "application/json;", "APPLICATION/JSON", "application/json, text/plain", "multipart/form-data; boundary=x",
		"application/x-www-form-urlencoded", "application/x-ndjson", "/", ";", "application/json; charset=\"", "application/problem+json", "*/*",
	}
	hostileHeaders = []string{
		"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", "X-HTTP-Method-Override: DELETE", "X-Original-URL: /accounts/", "Authorization: Basic eDp5",
		"Authorization: Bearer", "Authorization: Bearer a b", "Authorization: ", "Cookie: __session=", "Cookie: __session=x; __session=y", "Cookie: a=b;;; =; \"", "Range: bytes=0-1", "If-None-Match: *",
		"If-None-Match: \"", "Expect: 100-continue", "Connection: close", "Connection: Authorization", "TE: trailers", "X-Request-Id: req_forged", "Origin: http://evil.example", "Origin: null",
		"Content-Language: ", "User-Agent: ", "Referer: ", "X-Api-Key: ", "traceparent: ", "Last-Event-ID: ", "Last-Event-ID: t0.1.0", "Idempotency-Key: ", "X-Shipledger-Position: bogus", "Upgrade: h2c",
	}
)

// spoilPath writes a path in a way that means something else, or nothing.
func (g *Generator) spoilPath(path string) string {
	g.did("path")
	last := strings.LastIndexByte(path, '/')
	switch g.rng.IntN(12) {
	case 0:
		return path + "%00"
	case 1:
		return strings.Replace(path, "/", "//", 1+g.rng.IntN(3))
	case 2:
		return path[:last] + "/%2e%2e" + path[last:]
	case 3:
		return path[:last] + "/../" + path[last+1:]
	case 4:
		return path[:last] + "%2f" + path[last+1:]
	case 5:
		return strings.ToUpper(path)
	case 6:
		return path + ";a=b"
	case 7:
		return path + "/."
	case 8:
		return "/" + path + "/"
	case 9:
		return path + pick(g, []string{"%", "%zz", "%ff", "%0d%0aX-" + Marker + ":%20yes", "%5c..%5c"})
	case 10:
		return "/api/v2" + path
	}
	return path + strings.Repeat("/a", 2000)
}

// forgePage writes another key into a cursor: what binds it to its list stands in
// its first eight bytes, and is no secret.
func (g *Generator) forgePage(target string) string {
	at := strings.LastIndex(target, "cursor=") + len("cursor=")
	cursor, err := base64.RawURLEncoding.DecodeString(target[at:])
	if err != nil || len(cursor) <= 8 {
		return target
	}
	g.did("forged cursor")
	key := cursor[8:]
	switch g.rng.IntN(3) {
	case 0:
		key = []byte(g.hostileText())
	case 1:
		key[g.rng.IntN(len(key))] ^= byte(1 << g.rng.IntN(8))
	case 2:
		key = key[:g.rng.IntN(len(key))]
	}
	return target[:at] + base64.RawURLEncoding.EncodeToString(append(cursor[:8:8], key...))
}

// spoil changes one place of a body.
func (g *Generator) spoil(v *value) {
	var all []*value
	v.each(func(v *value) { all = append(all, v) })
	at := pick(g, all)
	if at.object && len(at.members) > 0 && !g.one(4) {
		i := g.rng.IntN(len(at.members))
		m := at.members[i]
		switch g.rng.IntN(5) {
		case 0:
			g.did("missing member")
			at.members = slices.Delete(at.members, i, i+1)
		case 1:
			g.did("extra member")
			at.members = append(at.members, member{quote(g.hostileText()), &value{text: "1"}})
		case 2:
			g.did("duplicate member")
			at.members = append(at.members, member{m.name, &value{text: pick(g, wrongValues)}})
		case 3:
			g.did("member in another case")
			at.members[i].name = strings.ToUpper(m.name)
		case 4:
			g.did("escaped member name")
			at.members[i].name = `"\u00` + fmt.Sprintf("%02x", m.name[1]) + m.name[2:]
		}
		return
	}
	g.did("wrong value")
	*at = value{text: pick(g, wrongValues)}
	switch g.rng.IntN(20) {
	case 0:
		at.text = quote(strings.Repeat("a", pick(g, []int{100, 1000, 70_000, 300_000})))
	case 1:
		n := pick(g, []int{100, 1_000, 20_000, 100_000})
		at.text = strings.Repeat("[", n) + strings.Repeat("]", n)
	case 2:
		n := pick(g, []int{100, 1_000, 20_000})
		at.text = strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)
	case 3:
		at.text = "[" + strings.Repeat("1,", 50_000) + "1]"
	case 4:
		at.text = "1" + strings.Repeat("0", pick(g, []int{30, 400, 20_000}))
	}
}

var wrongValues = []string{
	`null`, `true`, `false`, `0`, `-1`, `1.5`, `1e400`, `-1e400`, `1e-400`, `9223372036854775808`, `-9223372036854775809`, `0.1e1`, `-0`, `""`, `" "`, `"x"`, `[]`, `{}`, `[null]`, `{"":null}`,
	`NaN`, `Infinity`, `-Infinity`, `undefined`, `01`, `.5`, `+1`, `0x1`, `'x'`, `"\ud800"`, `"\udc00\ud800"`, `"\u0000"`, "\"\xff\"", "\"\xed\xa0\x80\"", "\"a\tb\"", "\"a\x00b\"", `"\x"`, `"\u12"`,
	`"2026-02-30T00:00:00Z"`, `"2026-03-02T10:00:00"`, `"0001-01-01T00:00:00Z"`, `"9999-12-31T23:59:59.999999999Z"`, `"292277026596-12-04T15:30:07Z"`, `[[[[[[]]]]]]`, `{"a":{"a":{"a":1}}}`, `"ﬀ"`, `"İSTARTED"`,
}

// spoilText makes JSON into something that is none, or nearly none.
func (g *Generator) spoilText(b []byte) []byte {
	g.did("text")
	switch g.rng.IntN(9) {
	case 0:
		return b[:g.rng.IntN(len(b)+1)]
	case 1:
		return append(b, " x"...)
	case 2:
		return append([]byte("\xef\xbb\xbf"), b...)
	case 3:
		return append(b, b...)
	case 4:
		return nil
	case 5:
		return []byte(strings.Repeat(" ", 1000))
	case 6:
		return append([]byte("/* */"), b...)
	case 7:
		return append(b, 0)
	}
	// A credential with one bit changed is none, and is kept as it was sent: nobody
	// could tell it from other text.
	if len(b) > 0 && !slices.ContainsFunc(g.bearers, func(by Bearer) bool { return by.Token != "" && bytes.Contains(b, []byte(by.Token)) }) {
		b[g.rng.IntN(len(b))] ^= byte(1 << g.rng.IntN(8))
	}
	return b
}

// encode compresses the body, or says that it did.
func (g *Generator) encode(r *Request) {
	n := g.rng.IntN(8)
	if r.Intent == Valid {
		n = 0
	}
	encoding := "gzip"
	switch n {
	case 0, 1:
		r.Body = packed(r.Body)
	case 2:
		g.did("truncated gzip")
		r.Body = packed(r.Body)
		r.Body = r.Body[:g.rng.IntN(len(r.Body))]
	case 3:
		g.did("gzip that grows a thousandfold")
		r.Body = bomb
	case 4:
		g.did("no gzip")
	case 5:
		g.did("damaged gzip")
		r.Body = packed(r.Body)
		r.Body[g.rng.IntN(len(r.Body))] ^= 0x55
	case 6:
		g.did("no zstd")
		encoding = "zstd"
	default:
		g.did("encoding")
		encoding = pick(g, []string{"br", "GZIP", "gzip, gzip", "identity", "x", "", "deflate"})
	}
	r.Header = append(r.Header, "Content-Encoding: "+encoding)
}

// bomb is 16 MiB of blanks, compressed.
var bomb = packed(bytes.Repeat([]byte(" "), 16<<20))

func packed(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b) // a buffer never fails
	_ = z.Close()
	return out.Bytes()
}

// spoilFrame changes what is around path and body.
func (g *Generator) spoilFrame(r *Request, w *weighted) {
	switch g.rng.IntN(10) {
	case 0:
		g.did("method")
		r.Method = pick(g, []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECTED", "get"})
	case 1:
		g.did("declares more than it sends")
		r.Unframed, r.Chunked = true, false
		r.Header = append(r.Header, fmt.Sprintf("Content-Length: %d", len(r.Body)+10))
	case 2:
		g.did("declares less than it sends")
		r.Unframed, r.Chunked = true, false
		r.Header = append(r.Header, fmt.Sprintf("Content-Length: %d", len(r.Body)/2))
	case 3:
		g.did("declares nonsense")
		r.Unframed, r.Chunked = true, false
		r.Header = append(r.Header, "Content-Length: "+pick(g, []string{"-1", "x", "99999999999999999999", "1, 2", "+5", "0x5"}))
	case 4:
		g.did("declares too much")
		r.Unframed, r.Chunked = true, false
		r.Header = append(r.Header, fmt.Sprintf("Content-Length: %d", w.op.MaxBody+1))
	case 5:
		g.did("broken header")
		r.Unframed = true
		r.Header = append(r.Header, pick(g, []string{": x", "no colon", "A B: c", "X-Nul: a\x00b", "X-" + Marker + "\x01: a", " folded: a", "X: " + strings.Repeat("a", 1<<20+8192)}))
	case 6:
		g.did("credential twice")
		for _, line := range r.Header {
			if strings.HasPrefix(line, "Authorization: ") {
				r.Header = append(r.Header, line)
				break
			}
		}
	case 7:
		g.did("many headers")
		for i := range 200 {
			r.Header = append(r.Header, fmt.Sprintf("X-%d: %d", i, i))
		}
	default:
		g.did("query")
		joint := "?"
		if strings.Contains(r.Target, "?") {
			joint = "&"
		}
		r.Target += joint + escape(g.hostileText()) + "=" + escape(g.hostileText())
	}
}

// escape writes text for a path or query: everything but what is plain.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// headerText takes out what would end a header's line; what that does is tried
// with broken headers.
func headerText(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\t' || c == 0x7f {
			return -1
		}
		return c
	}, text)
}
