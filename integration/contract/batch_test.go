package contract_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/shipledger/shipledger/pkg/httpapi/httpapitest"
)

// lines posts items as NDJSON: bodies, or text as it is.
func (l *ledger) lines(items []any, options ...option) answer {
	l.t.Helper()
	var text strings.Builder
	for _, item := range items {
		fmt.Fprintln(&text, item)
	}
	return l.batch(text.String(), append([]option{header("Content-Type", "application/x-ndjson")}, options...)...)
}

// array posts items as a JSON array.
func (l *ledger) array(items []any, options ...option) answer {
	l.t.Helper()
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = fmt.Sprint(item)
	}
	return l.batch("["+strings.Join(texts, ",")+"]", options...)
}

func (l *ledger) batch(text string, options ...option) answer {
	l.t.Helper()
	return l.batchAt("/events/batch", text, options...)
}

// batchAt posts a batch and holds each refused item to what the document says
// of the single call.
func (l *ledger) batchAt(path, text string, options ...option) answer {
	l.t.Helper()
	a := l.post(path, text, options...)
	if a.status != http.StatusOK {
		return a
	}
	results := a.list("results")
	sum := map[string]int{}
	for i, r := range results {
		item := r.(map[string]any)
		status := int(item["status"].(float64))
		if item["index"] != float64(i) {
			l.t.Errorf("result %d has the index %v", i, item["index"])
		}
		switch {
		case status == http.StatusOK && item["duplicate"] == true:
			sum["duplicate"]++
		case status == http.StatusOK:
			sum["accepted"]++
		default:
			sum["refused"]++
			delete(item, "index")
			delete(item, "status")
			raw, err := json.Marshal(item)
			if err != nil {
				l.t.Fatal(err)
			}
			httpapitest.CheckResponse(l.t, document, http.MethodPost, "/deployment-events/", status, a.header, raw)
		}
	}
	for _, n := range []string{"accepted", "duplicate", "refused"} {
		if a.at(n) != float64(sum[n]) {
			l.t.Errorf("%s is %v, the results have %d", n, a.at(n), sum[n])
		}
	}
	return a
}

// statuses gives what became of each item.
func (a answer) statuses() []int {
	a.t.Helper()
	a.is(http.StatusOK)
	out := []int{}
	for _, r := range a.list("results") {
		out = append(out, int(at(r, "status").(float64)))
	}
	return out
}

func TestBatchIsDecidedInOrderAsIfPostedOneByOne(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		one, two := body{"invoke_id": "1"}, body{"invoke_id": "2"}
		items := []any{
			l.build("started", one, body{"scm_sha": shaA}),
			l.deployment("started", one),
			l.deployment("started", two),                   // the other is under way
			l.build("success", one, body{"scm_sha": shaB}), // another commit
			l.deployment("?", body{"version": absent}),     // two faults
			"{not json",                  //
			l.deployment("success", one), //
			l.deployment("started", two), // now it may
			l.deployment("started", two), // again, byte for byte
			"[1]",                        // JSON, but no event
			l.deployment("success", body{"kind": "rollout"}), //
		}
		for i, send := range []func([]any, ...option) answer{l.lines, l.array} {
			l.product = l.name(fmt.Sprint(i))
			var own []any
			for _, item := range items {
				if b, ok := item.(body); ok {
					item = b.with(body{"product_name": l.product})
				} else if i == 1 && item == "{not json" { // would end the whole array
					item = "7"
				}
				own = append(own, item)
			}
			a := send(own)
			want := []int{200, 200, 409, 409, 422, 400, 200, 200, 200, 422, 422}
			if i == 1 {
				want[5] = 422
			}
			differ(t, "statuses", want, a.statuses())
			a.shows(body{
				"accepted": 4, "duplicate": 1, "refused": 6,
				"results.2.code": "CONCURRENT_DEPLOYMENT", "results.2.detail.details.conflicting_deployment_id": a.text("results.1.id"),
				"results.2.error": "deployment_blocked", "results.3.code": "VERSION_SHA_MISMATCH", "results.3.error": "version_conflict",
				"results.4.detail.0.loc.1": "version", "results.4.detail.1.loc.1": "status", "results.4.error.code": "VALIDATION_ERROR",
				"results.6.id": a.text("results.1.id"), "results.8.id": a.text("results.7.id"), "results.8.event_id": a.text("results.7.event_id"),
				"results.9.detail.0.loc": []any{"body"}, "results.10.detail.0.loc": []any{"body", "kind"},
			})
			if i == 0 {
				a.shows(body{"results.5.detail": "Invalid JSON in request body", "results.5.error.code": "INVALID_JSON"})
			}
			l.read("/deployments/" + a.text("results.7.id")).shows(body{"status": "started", "position": a.header.Get("X-Shipledger-Position")})
			l.read("/deployments/" + a.text("results.1.id")).shows(body{"status": "completed", "events.0.id": a.text("results.1.event_id"), "events.2": absent})
		}
	})
}

func TestKindOfAnItemIsSaidOrFollowsFromItsEnvironment(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		d, b := l.deployment("success"), l.build("success")
		a := l.lines([]any{
			d, b,
			d.with(body{"kind": "deployment"}), b.with(body{"kind": "build"}), d.with(body{"kind": "build"}),
			d.with(body{"environment_name": absent, "environment": "qa"}), d.with(body{"environment_name": ""}), d.with(body{"environment_name": nil, "kind": nil}),
			b.with(body{"kind": "deployment"}), d.with(body{"kind": 7, "status": "?"}), b.with(body{"kind": "Deployment"}),
		})
		differ(t, "statuses", []int{200, 200, 200, 200, 200, 200, 200, 200, 422, 422, 422}, a.statuses())
		a.shows(body{"results.8.detail.0.loc.1": "environment_name", "results.9.detail.0.loc.1": "kind", "results.9.detail.1.loc.1": "status"})
		for i, list := range []string{"/deployments/", "/builds/", "/deployments/", "/builds/", "/builds/", "/deployments/", "/builds/", "/builds/"} {
			l.read(list + a.text(fmt.Sprintf("results.%d.id", i)))
		}
	})
}

func TestBatchMayBeGzipOrZstd(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		text := l.deployment("success", body{"invoke_id": "1"}).String() + "\n" + l.build("success", body{"invoke_id": "1"}).String()
		ndjson := header("Content-Type", "application/x-ndjson; charset=utf-8")
		for encoding, encoded := range map[string]string{"gzip": gzipped([]byte(text)), "zstd": zstandard([]byte(text)), "identity": text, "": text} {
			differ(t, encoding, []int{200, 200}, l.batch(encoded, ndjson, header("Content-Encoding", encoding)).statuses())
			differ(t, encoding+" chunked", []int{200, 200}, l.batch(encoded, ndjson, header("Content-Encoding", encoding), chunked).statuses())
		}
		for _, encoding := range []string{"gzip", "zstd"} {
			l.batch(text, ndjson, header("Content-Encoding", encoding)).is(400)
		}
		short := gzipped([]byte(text))
		l.batch(short[:len(short)-9], ndjson, header("Content-Encoding", "gzip")).is(400)
		short = zstandard([]byte(strings.Repeat(text+"\n", 10)))
		l.batch(short[:len(short)-9], ndjson, header("Content-Encoding", "zstd")).is(400)
		l.batch(text, ndjson, header("Content-Encoding", "br")).is(400)
		differ(t, "records", 1, len(l.read(where("/deployments/", "product", l.product)).list("items")))
	})
}

func gzipped(text []byte) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(text)
	_ = w.Close()
	return out.String()
}

func zstandard(text []byte) string {
	w := must(zstd.NewWriter(nil))
	defer func() { _ = w.Close() }()
	return string(w.EncodeAll(text, nil))
}

func TestBatchThatCannotBeReadFailsAsAWhole(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		b := m.build("success").String()
		for _, text := range []string{"", " ", "[", "[" + b, "[" + b + "},{}]", b, "null", "7", `"text"`, "[" + b + "] x"} {
			m.batch(text).fails(400, "INVALID_JSON")
		}
		for _, media := range []string{"text/plain", "application/json-seq", "application/ndjson"} {
			m.batch("["+b+"]", header("Content-Type", media)).fails(400, "UNSUPPORTED_MEDIA_TYPE")
		}
		for _, a := range []answer{m.batch("[]"), m.batch(" [ ] "), m.batch("", header("Content-Type", "application/x-ndjson")), m.batch("\n \r\n\n", header("Content-Type", "application/x-ndjson"))} {
			a.is(200).shows(body{"accepted": 0, "duplicate": 0, "refused": 0, "results": []any{}})
		}
		differ(t, "frames", uint64(0), m.frames())
		differ(t, "without a media type", []int{200}, m.batch("["+b+"]", header("Content-Type", "")).statuses())
		differ(t, "lines between empty ones", []int{200, 200}, m.batch("\n"+b+"\r\n\n  "+b+"\n\n", header("Content-Type", "application/x-ndjson")).statuses())
	})
}

func TestBatchMayHave1000ItemsAnd8MiB(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		var items []any
		for i := range 1000 {
			items = append(items, m.deployment("success", body{"invoke_id": fmt.Sprint(i)}))
		}
		over := append(items[:1000:1000], m.deployment("success", body{"invoke_id": "1000"}))
		for _, send := range []func([]any, ...option) answer{m.lines, m.array} {
			send(over).fails(413, "BATCH_TOO_LARGE").shows(body{"detail": "Request body too large", "error.type": "invalid_request_error"})
		}
		differ(t, "frames", uint64(0), m.frames())
		a := m.array(items).is(200).shows(body{"accepted": 1000, "refused": 0})
		m.lines(items).is(200).shows(body{"duplicate": 1000, "results.999.id": a.text("results.999.id")})
		m.read("/deployments/" + a.text("results.999.id")).shows(body{"invoke_id": "999", "position": a.header.Get("X-Shipledger-Position")})

		const limit = 8 << 20
		ndjson := header("Content-Type", "application/x-ndjson")
		b := m.build("success").String()
		full := b + strings.Repeat("\n", limit-len(b))
		m.batch(full, ndjson).is(200)
		m.batch(full, ndjson, chunked).is(200)
		frames := m.frames()
		m.batch(full+"\n", ndjson).fails(413, "BATCH_TOO_LARGE")
		m.batch(full+"\n", ndjson, chunked).fails(413, "BATCH_TOO_LARGE")
		for encoding, encode := range map[string]func([]byte) string{"gzip": gzipped, "zstd": zstandard} {
			m.batch(encode([]byte(full+"\n")), ndjson, header("Content-Encoding", encoding)).fails(413, "BATCH_TOO_LARGE")
			m.batch(encode(make([]byte, 256<<20)), ndjson, header("Content-Encoding", encoding)).fails(413, "BATCH_TOO_LARGE")
		}
		differ(t, "frames", frames, m.frames())
		m.batch(gzipped([]byte(full)), ndjson, header("Content-Encoding", "gzip")).is(200)
	})
}

func TestItemMayHave262144BytesAndItsNeighboursAreKept(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		const limit = 262144
		b := l.build("success", body{"padding": ""})
		b["padding"] = strings.Repeat("x", limit-len(b.String()))
		over := b.with(body{"padding": b["padding"].(string) + "x"})
		for _, send := range []func([]any, ...option) answer{l.lines, l.array} {
			a := send([]any{l.build("success"), b, over, l.build("success")})
			differ(t, "statuses", []int{200, 200, 413, 200}, a.statuses())
			a.shows(body{"results.2.error.code": "BODY_TOO_LARGE", "results.2.detail": "Request body too large"})
		}
	})
}

func TestItemMayHaveAnIdempotencyKey(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		key := func(n string) body { return body{"idempotency_key": l.name(n)} }
		one, two := l.deployment("success", key("1")), l.build("success", key("2"))
		first := l.lines([]any{one, two, one, two.with(body{"status": "failed"})})
		differ(t, "statuses", []int{200, 200, 200, 422}, first.statuses())
		first.shows(body{"duplicate": 1, "results.2.id": first.text("results.0.id"), "results.3.error.code": "IDEMPOTENCY_KEY_REUSED"})
		again := l.array([]any{one, two}).shows(body{"accepted": 0, "duplicate": 2})
		differ(t, "ids", []string{first.text("results.0.id"), first.text("results.1.id")}, again.each("results", "id"))
		long := l.name("long")
		long += strings.Repeat("k", 255-len(long))
		a := l.array([]any{l.build("success", body{"idempotency_key": long}), l.build("success", body{"idempotency_key": long + "k"}), l.build("?", body{"idempotency_key": 7})})
		if a.statuses()[0] != 200 {
			t.Errorf("a key of 255 characters: %s", a.raw)
		}
		a.shows(body{
			"results.1.status": 422, "results.1.detail.0.loc": []any{"body", "idempotency_key"},
			"results.2.status": 422, "results.2.detail.0.loc": []any{"body", "idempotency_key"}, "results.2.detail.1.loc": []any{"body", "status"},
		})
	})
}

func TestPositionOfABatchIsThatOfItsLastStoredEvent(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		good := l.deployment("success", body{"invoke_id": "1"})
		a := l.lines([]any{l.build("success", body{"scm_sha": shaA}), good, l.build("success", body{"scm_sha": shaB}), l.deployment("?"), good})
		l.read("/deployments/" + a.text("results.1.id")).shows(body{"position": a.header.Get("X-Shipledger-Position")})
		differ(t, "of duplicates only", a.header.Get("X-Shipledger-Position"), l.lines([]any{good, good}).header.Get("X-Shipledger-Position"))
		if p := l.lines([]any{l.deployment("?")}).is(200).header.Get("X-Shipledger-Position"); p != "" {
			t.Errorf("a batch that stored nothing has the position %s", p)
		}
		refused := l.lines([]any{l.deployment("started", body{"invoke_id": "2"}), l.deployment("started", body{"invoke_id": "3"})})
		l.read("/deployments/" + refused.text("results.1.details.deployment_id")).shows(body{"position": refused.header.Get("X-Shipledger-Position")})
	})
}
