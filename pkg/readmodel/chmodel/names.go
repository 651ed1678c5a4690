package chmodel

import (
	"context"
	"errors"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// meaningColumns are those of names.
type meaningColumns struct {
	account, name  text
	object, stream lowCardinality
	id             proto.ColUUID
	pos            proto.ColUInt64
}

func newMeaningColumns() *meaningColumns {
	return &meaningColumns{object: newLowCardinality(), stream: newLowCardinality()}
}

func (c *meaningColumns) append(r *readmodel.NameRow) {
	c.account.Append(r.Account)
	c.object.Append(string(r.Object))
	c.name.Append(r.Name)
	c.id.Append(uuid.UUID(r.ID))
	c.stream.Append(r.Position.Stream)
	c.pos.Append(uint64(r.Position.Offset))
}

func (c *meaningColumns) input() proto.Input {
	return proto.Input{
		{Name: "account", Data: &c.account},
		{Name: "object", Data: c.object},
		{Name: "name", Data: &c.name},
		{Name: "id", Data: &c.id},
		{Name: "stream", Data: c.stream},
		{Name: "pos", Data: &c.pos},
	}
}

// ProductNamed implements readmodel.Names.
func (m *Model) ProductNamed(ctx context.Context, account, name string) (event.ProductID, error) {
	id, err := m.meaning(ctx, account, readmodel.ProductObject, name, uuid.UUID(event.ProductIDOf(account, name)))
	return event.ProductID(id), err
}

// EnvironmentNamed implements readmodel.Names.
func (m *Model) EnvironmentNamed(ctx context.Context, account, name string) (event.EnvironmentID, error) {
	id, err := m.meaning(ctx, account, readmodel.EnvironmentObject, name, uuid.UUID(event.EnvironmentIDOf(account, name)))
	return event.EnvironmentID(id), err
}

// meaning reads a table that is empty until something is renamed.
func (m *Model) meaning(ctx context.Context, account string, object readmodel.Object, name string, derived uuid.UUID) (uuid.UUID, error) {
	q := m.now()
	if s, err := q.hot(ctx, account, meaningParts); err != nil {
		return derived, err
	} else if s != nil {
		if meant, ok := s.meanings[meaningOf{object, name}]; ok {
			return meant.id, nil
		}
		return derived, nil
	}
	id, err := one(ctx, q, "read what a name means", `
		SELECT id FROM names_vN WHERE account = {account:String} AND object = {object:String} AND name = {name:String}
		ORDER BY pos DESC LIMIT 1`,
		params{"account": account, "object": string(object), "name": name}, func(s scanner) (id uuid.UUID, err error) {
			err = s.Scan(&id)
			return id, err
		})
	if errors.Is(err, readmodel.ErrNotFound) {
		return derived, nil
	}
	return id, err
}
