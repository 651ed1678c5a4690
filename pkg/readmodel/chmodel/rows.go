package chmodel

import (
	"encoding/hex"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// Domain to storage: the columns of each table, kept from one insert to the next.

type lowCardinality = *proto.ColLowCardinality[string]

func newLowCardinality() lowCardinality { return proto.NewLowCardinality[string](&dictionary{}) }

// dictionary are the values of a column that has few. Of a block that is read each
// is made a string once, not once a row.
type dictionary struct {
	proto.ColStr

	values []string
}

// DecodeColumn implements proto.ColResult.
func (d *dictionary) DecodeColumn(r *proto.Reader, rows int) error {
	if err := d.ColStr.DecodeColumn(r, rows); err != nil {
		return err
	}
	d.values = d.values[:0]
	for i := range rows {
		d.values = append(d.values, d.ColStr.Row(i))
	}
	return nil
}

// Row implements proto.ColumnOf, of a block that was read.
func (d *dictionary) Row(i int) string { return d.values[i] }

func inc(rec *event.Record) uint32 {
	return uint32(rec.ProductIncarnation)<<16 | uint32(rec.EnvironmentIncarnation)
}

// commit is a SHA in the two columns that hold it.
type commit struct {
	digest proto.ColFixedStr
	text   text
}

func newCommit() commit { return commit{digest: proto.ColFixedStr{Size: 20}} }

var noDigest [20]byte

// digestOf gives a commit of exactly 40 lower-case hex digits as bytes; noDigest for
// anything else, and so for forty zeros, which git uses for "no commit": the empty
// digest means absent.
func digestOf(sha string) (digest [20]byte) {
	if len(sha) == 40 && isLowerHex(sha) {
		_, _ = hex.Decode(digest[:], []byte(sha)) // cannot fail: it was looked at
	}
	return digest
}

// append writes what is no digest as text.
func (c *commit) append(sha string) {
	digest := digestOf(sha)
	c.digest.Append(digest[:])
	if digest == noDigest {
		c.text.Append(sha)
	} else {
		c.text.Append("")
	}
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func (c *commit) input() proto.Input {
	return proto.Input{{Name: "scm_sha", Data: &c.digest}, {Name: "scm_sha_text", Data: &c.text}}
}

// author is who wrote an event.
type author struct{ id, name, mode, actor lowCardinality }

func newAuthor() author {
	return author{newLowCardinality(), newLowCardinality(), newLowCardinality(), newLowCardinality()}
}

func (c *author) append(a event.Author) {
	c.id.Append(a.CredentialID)
	c.name.Append(a.CredentialName)
	c.mode.Append(string(a.Mode))
	c.actor.Append(a.Actor)
}

func (c *author) input() proto.Input {
	return proto.Input{
		{Name: "credential_id", Data: c.id},
		{Name: "credential_name", Data: c.name},
		{Name: "mode", Data: c.mode},
		{Name: "actor", Data: c.actor},
	}
}

type eventColumns struct {
	account, subject, request  text
	stream, kind, flag, status lowCardinality
	pos                        proto.ColUInt64
	id                         proto.ColFixedStr16
	received, effective        proto.ColInt64
	author                     author
	backfilled                 proto.ColBool
}

func newEventColumns() *eventColumns {
	return &eventColumns{
		stream: newLowCardinality(), kind: newLowCardinality(), flag: newLowCardinality(), status: newLowCardinality(),
		author: newAuthor(),
	}
}

func (c *eventColumns) append(r *readmodel.EventRow) {
	c.account.Append(r.Account)
	c.stream.Append(r.Position.Stream)
	c.pos.Append(uint64(r.Position.Offset))
	c.id.Append(r.ID)
	c.kind.Append(string(r.Type))
	c.subject.Append(r.Subject)
	c.received.Append(r.ReceivedAt.UnixMilli())
	c.effective.Append(r.EffectiveAt.UnixMilli())
	c.author.append(r.Author)
	c.backfilled.Append(r.Backfilled)
	c.flag.Append(r.Flag)
	c.status.Append(r.Status)
	c.request.Append(r.Request)
}

func (c *eventColumns) input() proto.Input {
	return append(proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
		{Name: "id", Data: &c.id},
		{Name: "type", Data: c.kind},
		{Name: "subject", Data: &c.subject},
		{Name: "received_ms", Data: &c.received},
		{Name: "effective_ms", Data: &c.effective},
		{Name: "backfilled", Data: &c.backfilled},
		{Name: "flag", Data: c.flag},
		{Name: "status", Data: c.status},
		{Name: "request", Data: &c.request},
	}, c.author.input()...)
}

// runColumns are those of deployments and, with what only builds have, of builds.
type runColumns struct {
	account, version, invokeID, rest text
	id                               proto.ColFixedStr16
	stream, status, source, mode     lowCardinality
	pos                              proto.ColUInt64
	product, environment             proto.ColUUID
	inc                              proto.ColUInt32
	at                               proto.ColInt64
	sha                              commit
	leaves                           *proto.ColArr[uint32]

	ofBuilds  bool
	versionID proto.ColUUID
	begun     proto.ColInt64

	scratch []byte
	found   leaves
}

func newRunColumns(ofBuilds bool) *runColumns {
	return &runColumns{
		stream: newLowCardinality(), status: newLowCardinality(), source: newLowCardinality(), mode: newLowCardinality(),
		sha: newCommit(), leaves: new(proto.ColUInt32).Array(), ofBuilds: ofBuilds,
	}
}

func (c *runColumns) append(r *readmodel.RunRow) {
	rec := &r.Record
	c.account.Append(rec.Account)
	c.id.Append(rec.ID)
	c.stream.Append(r.Position.Stream)
	c.pos.Append(uint64(r.Position.Offset))
	c.product.Append(uuid.UUID(rec.ProductID))
	c.environment.Append(uuid.UUID(rec.EnvironmentID))
	c.inc.Append(inc(rec))
	c.version.Append(rec.Version)
	c.status.Append(rec.Status.String())
	c.at.Append(r.At().UnixMilli())
	a := &rec.Attributes
	c.source.Append(a[event.SourceSystem])
	c.sha.append(a[event.SCMSHA])
	c.invokeID.Append(a[event.InvokeID])
	c.mode.Append(string(r.Author.Mode))
	c.leaves.Append(c.found.of(rec))
	c.scratch = appendRest(c.scratch[:0], r)
	c.rest.AppendBytes(c.scratch)
	if c.ofBuilds {
		c.versionID.Append(uuid.UUID(rec.VersionID))
		c.begun.Append(rec.DeployedAt().UnixMilli())
	}
}

// appendExtra writes extra_metadata as one object, its values as they came; in
// a fixed order, so that the same row is the same bytes.
func appendExtra(dst []byte, extra map[string]event.Extra) []byte {
	if len(extra) == 0 {
		return dst
	}
	var stack [16]string // slices.Sorted takes six allocations for five names
	names := slices.AppendSeq(stack[:0], maps.Keys(extra))
	slices.Sort(names)
	sep := byte('{')
	for _, k := range names {
		dst = append(dst, sep)
		dst, _ = jsontext.AppendQuote(dst, k) // replaces invalid UTF-8
		dst = append(append(dst, ':'), extra[k].Value...)
		sep = ','
	}
	return append(dst, '}')
}

func (c *runColumns) input() proto.Input {
	in := append(proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "id", Data: &c.id},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
		{Name: "product_id", Data: &c.product},
		{Name: "environment_id", Data: &c.environment},
		{Name: "inc", Data: &c.inc},
		{Name: "version", Data: &c.version},
		{Name: "status", Data: c.status},
		{Name: "at_ms", Data: &c.at},
		{Name: "source_system", Data: c.source},
		{Name: "invoke_id", Data: &c.invokeID},
		{Name: "mode", Data: c.mode},
		{Name: "leaves", Data: c.leaves},
		{Name: "rest", Data: &c.rest},
	}, c.sha.input()...)
	if c.ofBuilds {
		in = append(in, proto.Input{{Name: "version_id", Data: &c.versionID}, {Name: "begun_ms", Data: &c.begun}}...)
	}
	return in
}

// byEnvironmentColumns are those of dep_by_env. Most are the columns of deployments, whose
// rows these are: filling them once more was a twelfth of what a rebuild took in Go.
type byEnvironmentColumns struct {
	of           *runColumns
	status, mode lowCardinality // sending these changes them, and both tables are sent at a time
	committed    proto.ColInt64
}

func newByEnvironmentColumns(of *runColumns) *byEnvironmentColumns {
	return &byEnvironmentColumns{of: of, status: newLowCardinality(), mode: newLowCardinality()}
}

// append adds what of does not have, which has the row already.
func (c *byEnvironmentColumns) append(r *readmodel.RunRow) {
	c.status.Append(r.Record.Status.String())
	c.committed.Append(readmodel.CommitTime(&r.Record).UnixMilli())
	c.mode.Append(string(r.Author.Mode))
}

func (c *byEnvironmentColumns) input() proto.Input {
	return proto.Input{
		{Name: "account", Data: &c.of.account},
		{Name: "environment_id", Data: &c.of.environment},
		{Name: "product_id", Data: &c.of.product},
		{Name: "inc", Data: &c.of.inc},
		{Name: "id", Data: &c.of.id},
		{Name: "pos", Data: &c.of.pos},
		{Name: "version", Data: &c.of.version},
		{Name: "status", Data: c.status},
		{Name: "at_ms", Data: &c.of.at},
		{Name: "commit_ms", Data: &c.committed},
		{Name: "mode", Data: c.mode},
		{Name: "rest", Data: &c.of.rest},
	}
}

// cellTable says which of the columns of cells a table has.
type cellTable int

const (
	newestCells cellTable = iota // current and attempts
	everyCell                    // cells and past_attempts: with the period, and nothing that chooses
	cellPeriods                  // both, and only what the matrix shows; time and place are in ver
)

type cellColumns struct {
	account, version, display, rest text // display is the column shown
	product, environment            proto.ColUUID
	inc                             proto.ColUInt32
	at, received                    proto.ColInt64
	id                              proto.ColFixedStr16
	stream                          lowCardinality
	pos                             proto.ColUInt64

	table     cellTable
	ver       proto.ColUInt128
	period    proto.ColInt32
	succeeded proto.ColBool

	scratch []byte
}

// namedVersions are the versions of the product that was read last. Cells come by
// product, and those of one have few: each is hashed once.
type namedVersions struct {
	account string
	product event.ProductID
	names   []string
	ids     []event.VersionID
}

func (v *namedVersions) of(account string, product event.ProductID, name string) (string, event.VersionID) {
	const many = 64
	if v.product != product || v.account != account || len(v.names) == many {
		v.account, v.product, v.names, v.ids = account, product, v.names[:0], v.ids[:0]
	}
	for i, known := range v.names {
		if known == name {
			return known, v.ids[i]
		}
	}
	id := event.VersionIDOf(account, product, name)
	v.names, v.ids = append(v.names, name), append(v.ids, id)
	return name, id
}

func newCellColumns(table cellTable) *cellColumns {
	return &cellColumns{stream: newLowCardinality(), table: table}
}

// byMoment orders rows by time, then by place in the log. The time is shifted so
// that one before 1970 sorts below: the column has no sign.
func byMoment(at time.Time, p event.Position) proto.UInt128 {
	return proto.UInt128{High: uint64(at.UnixMilli()) + 1<<63, Low: uint64(p.Offset)}
}

func (c *cellColumns) appendCell(r *readmodel.Cell) {
	c.append(&r.Record, r.EffectiveAt, r.ReceivedAt, r.Position, true)
}

func (c *cellColumns) appendAttempt(r *readmodel.Attempt) {
	c.append(&r.Record, r.At, r.ReceivedAt, r.Position, false)
}

func (c *cellColumns) append(rec *event.Record, at, received time.Time, p event.Position, succeeded bool) {
	c.account.Append(rec.Account)
	c.product.Append(uuid.UUID(rec.ProductID))
	c.environment.Append(uuid.UUID(rec.EnvironmentID))
	c.inc.Append(inc(rec))
	c.id.Append(rec.ID)
	c.stream.Append(p.Stream)
	c.version.Append(rec.Version)
	c.scratch = appendCell(c.scratch[:0], rec, p.Stream, succeeded)
	c.display.AppendBytes(c.scratch)
	if c.table != everyCell {
		c.ver.Append(byMoment(at, p))
	}
	if c.table != newestCells {
		c.period.Append(periodOf(at.UnixMilli()))
	}
	if c.table == cellPeriods {
		c.succeeded.Append(succeeded)
		return
	}
	c.at.Append(at.UnixMilli())
	c.pos.Append(uint64(p.Offset))
	c.received.Append(received.UnixMilli())
	c.scratch = appendCellRest(c.scratch[:0], rec, succeeded)
	c.rest.AppendBytes(c.scratch)
}

func (c *cellColumns) input() proto.Input {
	in := proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "product_id", Data: &c.product},
		{Name: "environment_id", Data: &c.environment},
		{Name: "inc", Data: &c.inc},
		{Name: "id", Data: &c.id},
		{Name: "stream", Data: c.stream},
		{Name: "version", Data: &c.version},
		{Name: shownColumn, Data: &c.display},
	}
	if c.table != everyCell {
		in = append(in, proto.InputColumn{Name: "ver", Data: &c.ver})
	}
	if c.table != newestCells {
		in = append(in, proto.InputColumn{Name: "period", Data: &c.period})
	}
	if c.table == cellPeriods {
		return append(in, proto.InputColumn{Name: "succeeded", Data: &c.succeeded})
	}
	return append(in, proto.Input{
		{Name: "at_ms", Data: &c.at},
		{Name: "pos", Data: &c.pos},
		{Name: "received_ms", Data: &c.received},
		{Name: restColumn, Data: &c.rest},
	}...)
}

// results gives the columns that a selection names, to be read into.
func (c *cellColumns) results(selection string) proto.Results {
	columns := map[string]proto.ColResult{"succeeded": &c.succeeded}
	for _, column := range c.input() {
		columns[column.Name], _ = column.Data.(proto.ColResult) // every one is
	}
	var out proto.Results
	for name := range strings.SplitSeq(selection, ",") {
		name = strings.TrimSpace(name)
		out = append(out, proto.ResultColumn{Name: name, Data: columns[name]})
	}
	return out
}

// rows is how many a block has that was read.
func (c *cellColumns) rows() int { return len(c.product) }

func (c *cellColumns) spot(i int) spot { return spot{c.product[i], c.environment[i], c.inc[i]} }

func (c *cellColumns) mark(i int) mark { return mark{c.at[i], c.pos[i]} }

// period is the length of what the past is cut into. Of a cell that is deployed to
// every third day a past moment reads about two rows of its own period, of successes
// and as many of attempts, and few cells have none in the one before. Of five or seven
// days the later looks cost more than that.
const period = 10 * 24 * time.Hour

// periodOf gives the period that a moment in milliseconds lies in, counted from 1970.
func periodOf(ms int64) int32 {
	length := period.Milliseconds()
	n := ms / length
	if ms < n*length { // before 1970
		n--
	}
	return int32(max(math.MinInt32, min(n, math.MaxInt32))) // the years that a client may report fit, and always is behind them
}

// periodBegin gives the first millisecond of a period.
func periodBegin(n int32) int64 { return int64(n) * period.Milliseconds() }

// nameColumns are those that products and environments share.
type nameColumns struct {
	account, name, description, extra text
	id                                proto.ColUUID
	incarnation                       proto.ColUInt16
	deleted                           proto.ColBool
	created                           proto.ColInt64
	stream                            lowCardinality
	pos                               proto.ColUInt64
}

func newNameColumns() nameColumns { return nameColumns{stream: newLowCardinality()} }

func (c *nameColumns) append(account string, p *event.Product, at event.Position) {
	c.account.Append(account)
	c.id.Append(uuid.UUID(p.ID))
	c.name.Append(p.Name)
	c.description.Append(p.Description)
	c.extra.AppendBytes(p.Extra)
	c.incarnation.Append(p.Incarnation)
	c.deleted.Append(p.Deleted)
	c.created.Append(p.CreatedAt.UnixMilli())
	c.stream.Append(at.Stream)
	c.pos.Append(uint64(at.Offset))
}

func (c *nameColumns) input() proto.Input {
	in := proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "id", Data: &c.id},
		{Name: "name", Data: &c.name},
		{Name: "description", Data: &c.description},
		{Name: "extra", Data: &c.extra},
		{Name: "incarnation", Data: &c.incarnation},
		{Name: "deleted", Data: &c.deleted},
		{Name: "created_ms", Data: &c.created},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
	}
	return in
}

type environmentColumns struct {
	nameColumns

	class        lowCardinality
	limit        proto.ColUInt16
	staleMinutes proto.ColUInt32
}

func newEnvironmentColumns() *environmentColumns {
	return &environmentColumns{nameColumns: newNameColumns(), class: newLowCardinality()}
}

func (c *environmentColumns) append(account string, e *event.Environment, at event.Position) {
	c.nameColumns.append(account, &event.Product{
		ID: event.ProductID(e.ID), Name: e.Name, Description: e.Description, Extra: e.Extra,
		Incarnation: e.Incarnation, Deleted: e.Deleted, CreatedAt: e.CreatedAt,
	}, at)
	c.class.Append(e.Class.String())
	c.limit.Append(e.ConcurrencyLimit)
	c.staleMinutes.Append(uint32(e.StaleAfter / time.Minute))
}

func (c *environmentColumns) input() proto.Input {
	return append(c.nameColumns.input(), proto.Input{
		{Name: "class", Data: c.class},
		{Name: "concurrency_limit", Data: &c.limit},
		{Name: "stale_minutes", Data: &c.staleMinutes},
	}...)
}

type versionColumns struct {
	account, version text
	id, product      proto.ColUUID
	incarnation      proto.ColUInt16
	sha              commit
	fixed            proto.ColBool
	created          proto.ColInt64
	stream           lowCardinality
	pos              proto.ColUInt64
}

func newVersionColumns() *versionColumns {
	return &versionColumns{sha: newCommit(), stream: newLowCardinality()}
}

func (c *versionColumns) append(r *readmodel.VersionRow) {
	c.account.Append(r.Account)
	c.id.Append(uuid.UUID(r.ID))
	c.product.Append(uuid.UUID(r.ProductID))
	c.version.Append(r.Version.Version)
	c.incarnation.Append(r.Incarnation)
	c.sha.append(r.SHA)
	c.fixed.Append(r.SHAFixed)
	c.created.Append(r.CreatedAt.UnixMilli())
	c.stream.Append(r.Position.Stream)
	c.pos.Append(uint64(r.Position.Offset))
}

func (c *versionColumns) input() proto.Input {
	return append(proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "id", Data: &c.id},
		{Name: "product_id", Data: &c.product},
		{Name: "version", Data: &c.version},
		{Name: "incarnation", Data: &c.incarnation},
		{Name: "sha_fixed", Data: &c.fixed},
		{Name: "created_ms", Data: &c.created},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
	}, c.sha.input()...)
}

// Storage to domain. Lists of columns and scans stand together.

// scanner is what a row of an answer offers.
type scanner interface{ Scan(dest ...any) error }

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func shaOf(digest, text string) string {
	if digest != string(noDigest[:]) {
		return hex.EncodeToString([]byte(digest))
	}
	return text
}

const eventSelection = `stream, pos, id, type, subject, received_ms, effective_ms,
	credential_id, credential_name, mode, actor, backfilled, flag, status, request`

func scanEvent(s scanner, account string) (readmodel.EventRow, error) {
	r := readmodel.EventRow{Account: account}
	var received, effective int64
	err := s.Scan(&r.Position.Stream, (*uint64)(&r.Position.Offset), (*[16]byte)(&r.ID), (*string)(&r.Type), &r.Subject, &received, &effective,
		&r.Author.CredentialID, &r.Author.CredentialName, (*string)(&r.Author.Mode), &r.Author.Actor, &r.Backfilled, &r.Flag, &r.Status, &r.Request)
	r.ReceivedAt, r.EffectiveAt = moment(received), moment(effective)
	return r, err
}

const runSelection = "id, pos, product_id, environment_id, rest"

func scanRun(s scanner, kind event.Kind, account string) (readmodel.RunRow, error) {
	var r readmodel.RunRow
	rec := &r.Record
	rec.Kind, rec.Account = kind, account
	var rest string
	err := s.Scan((*[16]byte)(&rec.ID), (*uint64)(&r.Position.Offset), (*uuid.UUID)(&rec.ProductID), (*uuid.UUID)(&rec.EnvironmentID), &rest)
	if err == nil {
		err = readRest(rest, &r)
	}
	rec.VersionID = event.VersionIDOf(account, rec.ProductID, rec.Version)
	return r, err
}

const cellSelection = "product_id, environment_id, inc, at_ms, received_ms, id, pos, shown, rest"

// shownSelection is for what the matrix shows of a success or an attempt.
const shownSelection = "product_id, environment_id, inc, at_ms, id, pos, shown"

func scanCell(s scanner, account string) (readmodel.Cell, error) {
	var c readmodel.Cell
	rec := &c.Record
	rec.Kind, rec.Account = event.Deployment, account
	var inc uint32
	var at, received int64
	var shown, rest string
	err := s.Scan((*uuid.UUID)(&rec.ProductID), (*uuid.UUID)(&rec.EnvironmentID), &inc, &at, &received, (*[16]byte)(&rec.ID), (*uint64)(&c.Position.Offset), &shown, &rest)
	if err == nil {
		c.Position.Stream, err = readCell(shown, rest, rec)
	}
	rec.ProductIncarnation, rec.EnvironmentIncarnation = uint16(inc>>16), uint16(inc)
	c.EffectiveAt, c.ReceivedAt = moment(at), moment(received)
	rec.VersionID = event.VersionIDOf(account, rec.ProductID, rec.Version)
	return c, err
}

// success and attempt are what the matrix shows of one, and of which cell.
type success struct {
	spot
	readmodel.Success
}

type attempt struct {
	spot
	readmodel.LastAttempt
}

// readSuccess fills in what shown holds of a success, and where it stands.
func readSuccess(shown string, m mark, out *readmodel.Success) error {
	display := openCell(shown)
	var a event.Attributes
	out.At, out.Position.Offset = moment(m.at), event.Offset(m.pos)
	out.Position.Stream, out.Version, out.Status = display.head()
	display.shown(&a)
	out.SHA, out.BuildNumber, out.URL, out.By = a[event.SCMSHA], a[event.BuildNumber], a[event.URL], a[event.By]
	return display.err()
}

func readAttempt(shown string, m mark, out *readmodel.LastAttempt) error {
	display := openCell(shown)
	out.At, out.Position.Offset = moment(m.at), event.Offset(m.pos)
	out.Position.Stream, out.Version, out.Status = display.head()
	return display.err()
}

// What people wrote of a product may be long; most questions need its name only.
const (
	productSelection = "id, name, description, extra, incarnation, created_ms, stream, pos"
	productNames     = "id, name, '', '', incarnation, created_ms, stream, pos"
)

func scanProduct(s scanner, account string) (readmodel.ProductRow, error) {
	r := readmodel.ProductRow{Account: account}
	var created int64
	var extra string
	err := s.Scan((*uuid.UUID)(&r.ID), &r.Name, &r.Description, &extra, &r.Incarnation, &created, &r.Position.Stream, (*uint64)(&r.Position.Offset))
	r.Extra, r.CreatedAt = object(extra), moment(created)
	return r, err
}

// object gives a JSON object, nil where there is none.
func object(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

const (
	environmentSelection = "id, name, description, extra, class, concurrency_limit, stale_minutes, incarnation, created_ms, stream, pos"
	environmentNames     = "id, name, '', '', class, concurrency_limit, stale_minutes, incarnation, created_ms, stream, pos"
)

func scanEnvironment(s scanner, account string) (readmodel.EnvironmentRow, error) {
	r := readmodel.EnvironmentRow{Account: account}
	var created int64
	var class, extra string
	var staleMinutes uint32
	err := s.Scan((*uuid.UUID)(&r.ID), &r.Name, &r.Description, &extra, &class, &r.ConcurrencyLimit, &staleMinutes, &r.Incarnation, &created, &r.Position.Stream, (*uint64)(&r.Position.Offset))
	r.Class, _ = event.ParseClass(class)
	r.Extra, r.StaleAfter, r.CreatedAt = object(extra), time.Duration(staleMinutes)*time.Minute, moment(created)
	return r, err
}

const versionSelection = "id, product_id, version, incarnation, scm_sha, scm_sha_text, sha_fixed, created_ms, stream, pos"

func scanVersion(s scanner, account string) (readmodel.VersionRow, error) {
	r := readmodel.VersionRow{Account: account}
	var digest, text string
	var created int64
	err := s.Scan((*uuid.UUID)(&r.ID), (*uuid.UUID)(&r.ProductID), &r.Version.Version, &r.Incarnation, &digest, &text, &r.SHAFixed, &created, &r.Position.Stream, (*uint64)(&r.Position.Offset))
	r.SHA, r.CreatedAt = shaOf(digest, text), moment(created)
	return r, err
}

// ulidHex is how ids of runs are bound: their bytes are not text.
func ulidHex(id ulid.ULID) string { return hex.EncodeToString(id[:]) }
