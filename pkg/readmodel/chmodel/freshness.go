package chmodel

import (
	"context"

	"github.com/shipledger/shipledger/pkg/event"
)

// Newer implements readmodel.Freshness. It reads the end of the account's range
// of the key.
func (m *Model) Newer(ctx context.Context, account, stream string, after event.Offset) (newer bool, err error) {
	err = m.now().ask(ctx, "look for newer events", `
		SELECT 1 FROM events_vN
		WHERE account = {account:String} AND stream = {stream:String} AND pos > {after:UInt64} LIMIT 1`,
		params{"account": account, "stream": stream, "after": uint64(after)}, func(s scanner) error {
			newer = true
			var one uint8
			return s.Scan(&one)
		})
	return newer, err
}

// Edition implements readmodel.Freshness: it is the version of the tables.
func (m *Model) Edition() uint32 { return m.Active() }
