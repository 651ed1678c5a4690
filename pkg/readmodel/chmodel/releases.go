package chmodel

import (
	"context"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

type releaseColumns struct {
	account, name, description, extra, versions text
	id                                          proto.ColFixedStr16
	status, stream                              lowCardinality
	created                                     proto.ColInt64
	pos                                         proto.ColUInt64
}

func newReleaseColumns() *releaseColumns {
	return &releaseColumns{status: newLowCardinality(), stream: newLowCardinality()}
}

func (c *releaseColumns) append(r *readmodel.ReleaseRow) {
	c.account.Append(r.Account)
	c.id.Append(r.ID)
	c.name.Append(r.Name)
	c.description.Append(r.Description)
	c.status.Append(r.Status)
	c.extra.AppendBytes(r.Extra)
	c.created.Append(r.CreatedAt.UnixMilli())
	c.versions.AppendBytes(event.AppendReleaseVersions(nil, r.Versions))
	c.stream.Append(r.Position.Stream)
	c.pos.Append(uint64(r.Position.Offset))
}

func (c *releaseColumns) input() proto.Input {
	return proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "id", Data: &c.id},
		{Name: "name", Data: &c.name},
		{Name: "description", Data: &c.description},
		{Name: "status", Data: c.status},
		{Name: "extra", Data: &c.extra},
		{Name: "created_ms", Data: &c.created},
		{Name: "versions", Data: &c.versions},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
	}
}

const releaseRows = `SELECT id, name, description, status, extra, created_ms, versions, stream, pos
	FROM releases_vN FINAL WHERE account = {account:String}`

func scanReleaseOf(account string) func(scanner) (readmodel.ReleaseRow, error) {
	return func(s scanner) (readmodel.ReleaseRow, error) {
		r := readmodel.ReleaseRow{Account: account}
		var created int64
		var extra, versions string
		err := s.Scan((*[16]byte)(&r.ID), &r.Name, &r.Description, &r.Status, &extra, &created, &versions, &r.Position.Stream, (*uint64)(&r.Position.Offset))
		if err != nil {
			return r, err
		}
		r.Extra, r.CreatedAt = object(extra), moment(created)
		r.Versions, err = event.DecodeReleaseVersions([]byte(versions))
		for i := range r.Versions {
			r.Versions[i].AddedAt = readmodel.Moment(r.Versions[i].AddedAt)
		}
		return r, err
	}
}

// dressReleases leaves out what was deleted, and gives the names of now.
func (q question) dressReleases(ctx context.Context, account string, rows []readmodel.ReleaseRow) error {
	var of []identity
	for _, r := range rows {
		for _, v := range r.Versions {
			of = append(of, identity{product: v.ProductID})
		}
	}
	n, err := q.namesOf(ctx, account, of)
	if err != nil {
		return err
	}
	for i := range rows {
		var living []event.ReleaseVersion
		for _, v := range rows[i].Versions {
			if p, ok := n.products[v.ProductID]; ok && p.Incarnation == v.Incarnation {
				v.ProductName = p.Name
				living = append(living, v)
			}
		}
		rows[i].Versions = living
	}
	return nil
}

// Releases implements readmodel.Releases.
func (m *Model) Releases(ctx context.Context, account string, p readmodel.Page) ([]readmodel.ReleaseRow, error) {
	where, b := "", params{"account": account, "limit": limit(p)}
	if p.After != "" {
		before, err := readmodel.ParseRunKey(p.After)
		if err != nil {
			return nil, err
		}
		where, b["before"] = " AND id < toFixedString(unhex({before:String}), 16)", ulidHex(before)
	}
	q := m.now()
	rows, err := list(ctx, q, "read releases", releaseRows+where+" ORDER BY id DESC LIMIT {limit:UInt32}", b, scanReleaseOf(account))
	if err != nil {
		return nil, err
	}
	return rows, q.dressReleases(ctx, account, rows)
}

// Release implements readmodel.Releases.
func (m *Model) Release(ctx context.Context, account string, id ulid.ULID) (readmodel.ReleaseRow, error) {
	q := m.now()
	r, err := one(ctx, q, "read a release", releaseRows+" AND id = toFixedString(unhex({id:String}), 16)",
		params{"account": account, "id": ulidHex(id)}, scanReleaseOf(account))
	if err != nil {
		return r, err
	}
	rows := []readmodel.ReleaseRow{r}
	err = q.dressReleases(ctx, account, rows)
	return rows[0], err
}
