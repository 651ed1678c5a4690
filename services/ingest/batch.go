package ingest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/zstd"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// Limits of a batch (contract 4.4).
const (
	maxBatchItems = 1000
	maxItemBytes  = 256 << 10
)

// batch answers up to 1,000 events, each as if it had been posted alone.
func (s *Service) batch(w http.ResponseWriter, r *httpapi.Request) error {
	backfill := r.QueryBool("backfill")
	if backfill {
		if err := r.Require(credential.Admin); err != nil {
			return err
		}
	}
	bodies, err := readBatch(r)
	if err != nil {
		return err
	}
	places, err := s.committer(r.Identity.Account).Reserve(len(bodies))
	if err != nil {
		return err
	}
	defer places.Release()
	items := make([]batchItem, len(bodies))
	allowed := len(bodies)
	if !backfill { // history is not counted
		allowed = r.Take(len(bodies))
	}
	for i := allowed; i < len(bodies); i++ {
		items[i].err = httpapi.RetryLater{Err: fault.New(fault.RateLimited, "", "Too many events."), After: r.RetryAfter()}
	}
	read := make([]*tracking.Command, allowed)
	err = inParallel(allowed, func(i int) {
		read[i], items[i].err = s.item(bodies[i], submission{identity: &r.Identity, backfill: backfill})
	})
	if err != nil {
		return err
	}
	commands, submitted := make([]tracking.Input, 0, allowed), make([]int, 0, allowed)
	for i, cmd := range read {
		if items[i].err == nil {
			r.SourceSystem = cmd.Attributes[event.SourceSystem]
			commands, submitted = append(commands, cmd), append(submitted, i)
		}
	}
	if len(commands) > 0 {
		results, err := places.Submit(r.Context(), commands, r.Reverify)
		if err != nil {
			return err
		}
		for j, out := range results {
			items[submitted[j]].take(out)
		}
	}
	return reply(w, r, items)
}

// readAtOnce is how many items of a batch one goroutine reads: fewer are read
// sooner than another begins.
const readAtOnce = 64

// inParallel does n things on as many processors as there are, and returns when
// all are done; the error is of one that panicked. Reading is what most of a
// batch's time goes into; what comes after it is one thing after the other.
func inParallel(n int, do func(i int)) error {
	workers := min(runtime.GOMAXPROCS(0), (n+readAtOnce-1)/readAtOnce)
	var next atomic.Int64
	var tasks errgroup.Group
	for range workers {
		tasks.Go(func() (err error) {
			defer func() {
				if p := recover(); p != nil { // it would end the process; in the request's own goroutine it is a 500
					err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			for from := 0; from < n; {
				from = int(next.Add(readAtOnce)) - readAtOnce
				for i := from; i < min(from+readAtOnce, n); i++ {
					do(i)
				}
			}
			return nil
		})
	}
	return tasks.Wait()
}

// readBatch reads the body, decodes its encoding and cuts it into items.
func readBatch(r *httpapi.Request) ([]jsontext.Value, error) {
	media, err := mediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	body, err := readEncoded(r)
	if err != nil {
		return nil, err
	}
	var bodies []jsontext.Value
	var n int
	if media == "application/x-ndjson" {
		bodies, n = splitLines(body)
	} else if bodies, n, err = splitArray(body); err != nil {
		return nil, err
	}
	if n > maxBatchItems {
		return nil, fault.New(fault.TooLarge, "BATCH_TOO_LARGE", "A batch may have at most %d events, this one has %d. Nothing was stored.", maxBatchItems, n)
	}
	return bodies, nil
}

func mediaType(header string) (string, error) {
	if header == "" {
		return "application/json", nil
	}
	media, _, err := mime.ParseMediaType(header)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || media != "application/json" && media != "application/x-ndjson" {
		return "", httpapi.UnsupportedMediaType("application/x-ndjson", "application/json")
	}
	return media, nil
}

// maxWindow is the most memory that a zstd body may ask for; RFC 8878 has every
// decoder know as much.
const maxWindow = 8 << 20

// readEncoded reads the body; the limit holds for what it decodes to.
func readEncoded(r *httpapi.Request) ([]byte, error) {
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return r.ReadBody(r.Body)
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, fault.New(fault.Invalid, "INVALID_ENCODING", "The request body is not gzip.").Because(err)
		}
		return r.ReadBody(z)
	case "zstd":
		z, err := zstd.NewReader(r.Body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fault.New(fault.Invalid, "INVALID_ENCODING", "The request body is not zstd.").Because(err)
		}
		defer z.Close()
		return r.ReadBody(io.Reader(z))
	default:
		return nil, fault.New(fault.Invalid, "UNSUPPORTED_ENCODING", "Content-Encoding may be gzip or zstd.")
	}
}

// splitLines gives the items of a body, and how many there are. Those that are
// too many are counted and not kept: 8 MiB may hold four million.
func splitLines(body []byte) (out []jsontext.Value, n int) {
	out = make([]jsontext.Value, 0, min(bytes.Count(body, []byte{'\n'})+1, maxBatchItems))
	for line := range bytes.Lines(body) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if n++; n <= maxBatchItems {
			out = append(out, jsontext.Value(line))
		}
	}
	return out, n
}

// splitArray is splitLines for a JSON array.
func splitArray(body []byte) (out []jsontext.Value, n int, _ error) {
	invalid := fault.New(fault.Invalid, "INVALID_JSON", "The request body must be a JSON array of events.").
		WithHint("One event a line is application/x-ndjson.")
	dec := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if t, err := dec.ReadToken(); err != nil || t.Kind() != '[' {
		return nil, 0, invalid
	}
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return nil, 0, invalid
		}
		if n++; n <= maxBatchItems {
			out = append(out, v.Clone())
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, 0, invalid
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, 0, invalid
	}
	return out, n, nil
}

// item reads one event of a batch.
func (s *Service) item(body jsontext.Value, sub submission) (*tracking.Command, error) {
	if len(body) > maxItemBytes {
		return nil, fault.New(fault.TooLarge, "BODY_TOO_LARGE", "An event may have at most %d bytes.", maxItemBytes)
	}
	// An item is kept for as long as one of its strings is; alone, without the
	// other 999.
	body = body.Clone()
	if scanned, ok := event.ScanRequest(body); ok {
		if as, faults := kindOf(scanned.Kind, scanned.Request.EnvironmentName != "" || scanned.Request.Environment != ""); len(faults) == 0 &&
			len(scanned.IdempotencyKey) <= maxIdempotencyKey && httpapi.Acceptable(as, &scanned.Request) {
			sub.key = scanned.IdempotencyKey
			return s.scanned(as, body, &scanned, sub)
		}
	}
	var head struct {
		Kind            jsontext.Value `json:"kind"`
		IdempotencyKey  jsontext.Value `json:"idempotency_key"`
		EnvironmentName jsontext.Value `json:"environment_name"`
		Environment     jsontext.Value `json:"environment"`
	}
	if err := json.Unmarshal(body, &head, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		if !body.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
			return nil, httpapi.InvalidJSON()
		}
		return nil, &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: []string{"body"}, Msg: "value is not a valid dict", Type: "type_error.dict"}}}
	}
	as, faults := bodyKind(head.Kind, given(head.EnvironmentName) || given(head.Environment))
	key, keyFaults := textMember("idempotency_key", head.IdempotencyKey)
	faults = append(faults, keyFaults...)
	if len(key) > maxIdempotencyKey {
		faults = append(faults, keyTooLong([]string{"body", "idempotency_key"}))
	}
	sub.key = key
	cmd, err := s.command(as, body, sub)
	if len(faults) == 0 {
		return cmd, err
	}
	if v, ok := errors.AsType[*httpapi.ValidationError](err); ok { // every fault at once
		faults = append(faults, v.Faults...)
	}
	return nil, &httpapi.ValidationError{Faults: faults}
}

// bodyKind says what an item is: what it says itself, else a deployment when it
// names an environment, else a build.
func bodyKind(kind jsontext.Value, hasEnvironment bool) (httpapi.EventBody, []httpapi.FieldFault) {
	word, faults := textMember("kind", kind)
	if len(faults) == 0 {
		return kindOf(word, hasEnvironment)
	}
	if hasEnvironment {
		return httpapi.DeploymentEvent, faults
	}
	return httpapi.BuildEvent, faults
}

func kindOf(word string, hasEnvironment bool) (as httpapi.EventBody, faults []httpapi.FieldFault) {
	switch {
	case word == "deployment" || word == "" && hasEnvironment:
		return httpapi.DeploymentEvent, nil
	case word == "build" || word == "":
		return httpapi.BuildEvent, nil
	default:
		faults = []httpapi.FieldFault{{Loc: []string{"body", "kind"}, Msg: "value is not a valid enumeration member; permitted: 'deployment', 'build'", Type: "type_error.enum"}}
	}
	if hasEnvironment {
		return httpapi.DeploymentEvent, faults
	}
	return httpapi.BuildEvent, faults
}

func textMember(name string, v jsontext.Value) (string, []httpapi.FieldFault) {
	if !given(v) {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(v, &s, jsontext.AllowInvalidUTF8(true)); err != nil {
		return "", []httpapi.FieldFault{{Loc: []string{"body", name}, Msg: "str type expected", Type: "type_error.str"}}
	}
	return s, nil
}

// given tells whether a member is there: null and "" count as absent.
func given(v jsontext.Value) bool {
	return len(v) > 0 && string(v) != "null" && string(v) != `""`
}

// batchItem is what became of one event of a batch.
type batchItem struct {
	err      error
	decision tracking.Decision
	position event.Position
}

func (it *batchItem) take(out Result) {
	it.err, it.decision, it.position = out.Err, out.Decision, out.Position
	if it.err == nil {
		it.err = refusal(&it.decision)
	}
}

// reply writes the results in order. Only where nothing was stored because the
// log does not store is the whole call a 503.
func reply(w http.ResponseWriter, r *httpapi.Request, items []batchItem) error {
	var accepted, duplicate, refused int
	var unavailable error
	var stored, known event.Position
	results := append(make([]byte, 0, 128*len(items)+1), '[') // an accepted item takes 105 bytes
	for i := range items {
		it := &items[i]
		if i > 0 {
			results = append(results, ',')
		}
		if it.position.Offset > 0 && !it.decision.Duplicate && it.position.Offset > stored.Offset {
			stored = it.position
		} else if it.position.Offset > known.Offset {
			known = it.position
		}
		switch {
		case it.err != nil:
			refused++
			if fault.KindOf(it.err) == fault.Unavailable {
				unavailable = it.err
			}
			results = appendProblem(results, i, httpapi.Describe(it.err, r.ID))
			continue
		case it.decision.Duplicate:
			duplicate++
		default:
			accepted++
		}
		results = appendStored(results, i, it)
	}
	if unavailable != nil && accepted+duplicate == 0 && stored.Offset == 0 {
		return unavailable
	}
	if stored.Offset == 0 {
		stored = known
	}
	if stored.Offset > 0 {
		w.Header()[httpapi.PositionHeader] = []string{stored.String()}
	}
	body := append(make([]byte, 0, len(results)+128), `{"accepted":`...)
	body = strconv.AppendInt(body, int64(accepted), 10)
	body = append(body, `,"duplicate":`...)
	body = strconv.AppendInt(body, int64(duplicate), 10)
	body = append(body, `,"refused":`...)
	body = strconv.AppendInt(body, int64(refused), 10)
	body = append(body, `,"results":`...)
	body = append(body, results...)
	return r.Bytes(http.StatusOK, append(body, ']', '}'))
}

func appendHead(dst []byte, index, status int) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	dst = append(dst, `,"status":`...)
	return strconv.AppendInt(dst, int64(status), 10)
}

// appendProblem puts an item's place before the body that the single call would
// have answered.
func appendProblem(dst []byte, index int, p httpapi.Problem) []byte {
	dst = appendHead(dst, index, p.Status)
	return append(append(dst, ','), credential.RedactIn(p.Body)[1:]...)
}

func appendStored(dst []byte, index int, it *batchItem) []byte {
	dst = appendHead(dst, index, http.StatusOK)
	dst = append(dst, `,"id":"`...)
	dst = appendULID(dst, it.decision.Record.ID)
	dst = append(dst, `","event_id":"`...)
	dst = appendULID(dst, it.decision.EventID)
	if it.decision.Duplicate {
		dst = append(dst, `","duplicate":true}`...)
		return dst
	}
	return append(dst, `"}`...)
}

func appendULID(dst []byte, id ulid.ULID) []byte {
	var text [ulid.EncodedSize]byte
	_ = id.MarshalTextTo(text[:]) // fails where there is no room
	return append(dst, text[:]...)
}
