package chmodel

import (
	"encoding/hex"
	"maps"
	"slices"
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

func newLowCardinality() lowCardinality { return new(proto.ColStr).LowCardinality() }

func inc(rec *event.Record) uint32 {
	return uint32(rec.ProductIncarnation)<<16 | uint32(rec.EnvironmentIncarnation)
}

// commit is a SHA in the two columns that hold it.
type commit struct {
	digest proto.ColFixedStr
	text   proto.ColStr
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
	account, subject, request  proto.ColStr
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
	account, version, invokeID, extra, rest           proto.ColStr
	id                                                proto.ColFixedStr16
	stream, status, source, by, byEmail, byName, mode lowCardinality
	pos                                               proto.ColUInt64
	product, environment                              proto.ColUUID
	inc                                               proto.ColUInt32
	at                                                proto.ColInt64
	sha                                               commit
	leaves                                            *proto.ColArr[uint32]

	ofBuilds  bool
	versionID proto.ColUUID
	begun     proto.ColInt64

	scratch []byte
	found   leaves
}

func newRunColumns(ofBuilds bool) *runColumns {
	return &runColumns{
		stream: newLowCardinality(), status: newLowCardinality(), source: newLowCardinality(),
		by: newLowCardinality(), byEmail: newLowCardinality(), byName: newLowCardinality(), mode: newLowCardinality(),
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
	c.by.Append(a[event.By])
	c.byEmail.Append(a[event.ByEmail])
	c.byName.Append(a[event.ByName])
	c.mode.Append(string(r.Author.Mode))
	c.scratch = appendExtra(c.scratch[:0], rec.Extra)
	c.extra.AppendBytes(c.scratch)
	c.leaves.Append(c.found.of(rec.Extra))
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
	sep := byte('{')
	for _, k := range slices.Sorted(maps.Keys(extra)) {
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
		{Name: "done_by", Data: c.by},
		{Name: "done_by_email", Data: c.byEmail},
		{Name: "done_by_name", Data: c.byName},
		{Name: "mode", Data: c.mode},
		{Name: "extra", Data: &c.extra},
		{Name: "extra_leaves", Data: c.leaves},
		{Name: "rest", Data: &c.rest},
	}, c.sha.input()...)
	if c.ofBuilds {
		in = append(in, proto.Input{{Name: "version_id", Data: &c.versionID}, {Name: "begun_ms", Data: &c.begun}}...)
	}
	return in
}

type byEnvironmentColumns struct {
	account, version     proto.ColStr
	environment, product proto.ColUUID
	inc                  proto.ColUInt32
	id                   proto.ColFixedStr16
	pos                  proto.ColUInt64
	status, mode         lowCardinality
	at, committed        proto.ColInt64
}

func newByEnvironmentColumns() *byEnvironmentColumns {
	return &byEnvironmentColumns{status: newLowCardinality(), mode: newLowCardinality()}
}

func (c *byEnvironmentColumns) append(r *readmodel.RunRow) {
	rec := &r.Record
	c.account.Append(rec.Account)
	c.environment.Append(uuid.UUID(rec.EnvironmentID))
	c.product.Append(uuid.UUID(rec.ProductID))
	c.inc.Append(inc(rec))
	c.id.Append(rec.ID)
	c.pos.Append(uint64(r.Position.Offset))
	c.version.Append(rec.Version)
	c.status.Append(rec.Status.String())
	c.at.Append(r.At().UnixMilli())
	c.committed.Append(readmodel.CommitTime(rec).UnixMilli())
	c.mode.Append(string(r.Author.Mode))
}

func (c *byEnvironmentColumns) input() proto.Input {
	return proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "environment_id", Data: &c.environment},
		{Name: "product_id", Data: &c.product},
		{Name: "inc", Data: &c.inc},
		{Name: "id", Data: &c.id},
		{Name: "pos", Data: &c.pos},
		{Name: "version", Data: &c.version},
		{Name: "status", Data: c.status},
		{Name: "at_ms", Data: &c.at},
		{Name: "commit_ms", Data: &c.committed},
		{Name: "mode", Data: c.mode},
	}
}

// cellColumns are those of current and attempts and, with a period, of cells and
// past_attempts.
type cellColumns struct {
	account, version, buildNumber, url  proto.ColStr
	product, environment                proto.ColUUID
	inc                                 proto.ColUInt32
	at, received                        proto.ColInt64
	created, started, completed         proto.ColInt64
	id                                  proto.ColFixedStr16
	ver                                 proto.ColUInt128
	stream, status, by, byEmail, byName lowCardinality
	pos                                 proto.ColUInt64
	sha                                 commit
	mismatch                            proto.ColBool

	withPeriod bool // those that keep the past
	period     proto.ColInt32
}

func newCellColumns(withPeriod bool) *cellColumns {
	return &cellColumns{
		stream: newLowCardinality(), status: newLowCardinality(), by: newLowCardinality(),
		byEmail: newLowCardinality(), byName: newLowCardinality(), sha: newCommit(), withPeriod: withPeriod,
	}
}

// byMoment orders rows by time, then by place in the log. The time is shifted so
// that one before 1970 sorts below: the column has no sign.
func byMoment(at time.Time, p event.Position) proto.UInt128 {
	return proto.UInt128{High: uint64(at.UnixMilli()) + 1<<63, Low: uint64(p.Offset)}
}

// byOffset orders rows by place in the log.
func byOffset(p event.Position) proto.UInt128 { return proto.UInt128{Low: uint64(p.Offset)} }

func (c *cellColumns) append(rec *event.Record, at, received time.Time, p event.Position, ver proto.UInt128) {
	c.account.Append(rec.Account)
	c.product.Append(uuid.UUID(rec.ProductID))
	c.environment.Append(uuid.UUID(rec.EnvironmentID))
	c.inc.Append(inc(rec))
	c.at.Append(at.UnixMilli())
	c.received.Append(received.UnixMilli())
	c.id.Append(rec.ID)
	c.ver.Append(ver)
	c.stream.Append(p.Stream)
	c.pos.Append(uint64(p.Offset))
	c.version.Append(rec.Version)
	c.status.Append(rec.Status.String())
	c.created.Append(rec.CreatedAt.UnixMilli())
	c.started.Append(rec.StartedAt.UnixMilli())
	c.completed.Append(rec.CompletedAt.UnixMilli())
	a := &rec.Attributes
	c.sha.append(a[event.SCMSHA])
	c.buildNumber.Append(a[event.BuildNumber])
	c.url.Append(a[event.URL])
	c.by.Append(a[event.By])
	c.byEmail.Append(a[event.ByEmail])
	c.byName.Append(a[event.ByName])
	c.mismatch.Append(rec.SHAMismatch)
	if c.withPeriod {
		c.period.Append(periodOf(at.UnixMilli()))
	}
}

func (c *cellColumns) input() proto.Input {
	in := append(proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "product_id", Data: &c.product},
		{Name: "environment_id", Data: &c.environment},
		{Name: "inc", Data: &c.inc},
		{Name: "at_ms", Data: &c.at},
		{Name: "received_ms", Data: &c.received},
		{Name: "id", Data: &c.id},
		{Name: "ver", Data: &c.ver},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
		{Name: "version", Data: &c.version},
		{Name: "status", Data: c.status},
		{Name: "created_ms", Data: &c.created},
		{Name: "started_ms", Data: &c.started},
		{Name: "completed_ms", Data: &c.completed},
		{Name: "build_number", Data: &c.buildNumber},
		{Name: "url", Data: &c.url},
		{Name: "done_by", Data: c.by},
		{Name: "done_by_email", Data: c.byEmail},
		{Name: "done_by_name", Data: c.byName},
		{Name: "sha_mismatch", Data: &c.mismatch},
	}, c.sha.input()...)
	if c.withPeriod {
		in = append(in, proto.InputColumn{Name: "period", Data: &c.period})
	}
	return in
}

// period is the length of what the past is cut into. In one of ten days a cell that
// is deployed to daily has as many rows as it has periods in a quarter.
const period = 10 * 24 * time.Hour

// periodOf gives the period that a moment in milliseconds lies in, counted from 1970.
func periodOf(ms int64) int32 {
	length := period.Milliseconds()
	n := ms / length
	if ms < n*length { // before 1970
		n--
	}
	return int32(n) // the years that a client may report fit
}

// periodBegin gives the first millisecond of a period.
func periodBegin(n int32) int64 { return int64(n) * period.Milliseconds() }

type periodColumns struct {
	account, version     proto.ColStr
	product, environment proto.ColUUID
	period               proto.ColInt32
	inc                  proto.ColUInt32
	succeeded            proto.ColBool
	at                   proto.ColInt64
	ver                  proto.ColUInt128
	stream               lowCardinality
	pos                  proto.ColUInt64
}

func newPeriodColumns() *periodColumns { return &periodColumns{stream: newLowCardinality()} }

func (c *periodColumns) append(rec *event.Record, at time.Time, p event.Position, succeeded bool) {
	c.account.Append(rec.Account)
	c.period.Append(periodOf(at.UnixMilli()))
	c.product.Append(uuid.UUID(rec.ProductID))
	c.environment.Append(uuid.UUID(rec.EnvironmentID))
	c.inc.Append(inc(rec))
	c.succeeded.Append(succeeded)
	c.at.Append(at.UnixMilli())
	c.ver.Append(byMoment(at, p))
	c.stream.Append(p.Stream)
	c.pos.Append(uint64(p.Offset))
	c.version.Append(rec.Version)
}

func (c *periodColumns) input() proto.Input {
	return proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "period", Data: &c.period},
		{Name: "product_id", Data: &c.product},
		{Name: "environment_id", Data: &c.environment},
		{Name: "inc", Data: &c.inc},
		{Name: "succeeded", Data: &c.succeeded},
		{Name: "at_ms", Data: &c.at},
		{Name: "ver", Data: &c.ver},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
		{Name: "version", Data: &c.version},
	}
}

// nameColumns are those that products and environments share.
type nameColumns struct {
	account, name, description, extra proto.ColStr
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
	account, version proto.ColStr
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

const runSelection = "id, pos, product_id, environment_id, scm_sha, invoke_id, extra, rest"

func scanRun(s scanner, kind event.Kind, account string) (readmodel.RunRow, error) {
	var r readmodel.RunRow
	rec, a := &r.Record, &r.Record.Attributes
	rec.Kind, rec.Account = kind, account
	var digest, extra, rest string
	err := s.Scan((*[16]byte)(&rec.ID), (*uint64)(&r.Position.Offset), (*uuid.UUID)(&rec.ProductID), (*uuid.UUID)(&rec.EnvironmentID),
		&digest, &a[event.InvokeID], &extra, &rest)
	if err == nil {
		err = readRest(rest, &r)
	}
	a[event.SCMSHA] = shaOf(digest, a[event.SCMSHA])
	rec.Extra = event.DecodeExtra(jsontext.Value(extra), event.Stamp{})
	rec.VersionID = event.VersionIDOf(account, rec.ProductID, rec.Version)
	return r, err
}

const cellSelection = `product_id, environment_id, inc, at_ms, received_ms, id, stream, pos, version, status, created_ms, started_ms, completed_ms,
	scm_sha, scm_sha_text, build_number, url, done_by, done_by_email, done_by_name, sha_mismatch`

func scanCell(s scanner, account string) (readmodel.Cell, error) {
	var c readmodel.Cell
	rec, a := &c.Record, &c.Record.Attributes
	rec.Kind, rec.Account = event.Deployment, account
	var inc uint32
	var at, received, created, started, completed int64
	var status, digest, text string
	err := s.Scan((*uuid.UUID)(&rec.ProductID), (*uuid.UUID)(&rec.EnvironmentID), &inc, &at, &received, (*[16]byte)(&rec.ID), &c.Position.Stream, (*uint64)(&c.Position.Offset), &rec.Version, &status, &created, &started, &completed,
		&digest, &text, &a[event.BuildNumber], &a[event.URL], &a[event.By], &a[event.ByEmail], &a[event.ByName], &rec.SHAMismatch)
	rec.ProductIncarnation, rec.EnvironmentIncarnation = uint16(inc>>16), uint16(inc)
	rec.Status, _ = event.StatusOf(status)
	c.EffectiveAt, c.ReceivedAt = moment(at), moment(received)
	rec.CreatedAt, rec.StartedAt, rec.CompletedAt = moment(created), moment(started), moment(completed)
	a[event.SCMSHA] = shaOf(digest, text)
	rec.VersionID = event.VersionIDOf(account, rec.ProductID, rec.Version)
	return c, err
}

// attempt is what the matrix shows of an attempt, and of which cell.
type attempt struct {
	identity
	readmodel.LastAttempt
}

const attemptSelection = "product_id, environment_id, inc, at_ms, id, stream, pos, version, status"

func scanAttempt(s scanner) (attempt, error) {
	var a attempt
	var inc uint32
	var at int64
	var status string
	err := s.Scan((*uuid.UUID)(&a.product), (*uuid.UUID)(&a.environment), &inc, &at, (*[16]byte)(&a.ID), &a.Position.Stream, (*uint64)(&a.Position.Offset), &a.Version, &status)
	a.productIncarnation, a.environmentIncarnation = uint16(inc>>16), uint16(inc)
	a.At = moment(at)
	a.Status, _ = event.StatusOf(status)
	return a, err
}

// attemptOf tells of a row that was read whole what the matrix shows.
func attemptOf(c *readmodel.Cell) attempt {
	r := &c.Record
	return attempt{identityOf(r), readmodel.LastAttempt{ID: r.ID, Version: r.Version, Status: r.Status, At: c.EffectiveAt, Position: c.Position}}
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
