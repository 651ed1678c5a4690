package logarchive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// AccountFormat is what the archive of one account says it is.
const AccountFormat = "shipledger-account-log/1"

// accountLine is a line of such an archive.
type accountLine struct {
	Format  string         `json:"format,omitzero"`
	Account string         `json:"account,omitzero"`
	Stream  string         `json:"stream,omitzero"`
	Seq     uint64         `json:"seq,omitzero"`
	Indexes []int          `json:"indexes,omitzero"`
	Body    jsontext.Value `json:"body,omitzero"`
	End     bool           `json:"end,omitzero"`
	Frames  uint64         `json:"frames,omitzero"`
	Events  uint64         `json:"events,omitzero"`
	Sum     string         `json:"sum,omitzero"` // SHA-256: of the body, and in the last line of all lines before it
}

// WriteAccount archives what one account may see of streams: a frame holds
// events of several accounts, and its headers count for all of them, so that
// what is written of a frame are the account's own events and where they stood
// in it. It is a copy to read, of which the tree says nothing; it cannot be
// restored.
func WriteAccount(ctx context.Context, w io.Writer, account string, sources []Source, o Options) error {
	out := &summed{w: w, sum: sha256.New()}
	if err := out.line(json.Marshal(accountLine{Format: AccountFormat, Account: account}, strict)); err != nil {
		return err
	}
	end := accountLine{End: true}
	var done, total uint64
	lasts := make([]uint64, len(sources))
	for i, s := range sources {
		last, err := s.Log.Last(ctx)
		if err != nil {
			return fmt.Errorf("archive %s: %w", s.Stream, err)
		}
		lasts[i] = last
		total += last
	}
	for i, s := range sources {
		for r, err := range s.Log.Read(ctx, 0) {
			if err != nil {
				return fmt.Errorf("archive %s: %w", s.Stream, err)
			}
			if r.Seq > lasts[i] {
				break
			}
			l := accountLine{Stream: s.Stream, Seq: r.Seq}
			if l.Indexes, l.Body, err = own(r.Body, "/accounts/"+account); err != nil {
				return fmt.Errorf("archive frame %s.%d: %w", s.Stream, r.Seq, err)
			}
			if len(l.Indexes) > 0 {
				sum := sha256.Sum256(l.Body)
				l.Sum = hex.EncodeToString(sum[:])
				if err := out.line(json.Marshal(l, strict)); err != nil {
					return err
				}
				end.Frames++
				end.Events += uint64(len(l.Indexes))
			}
			if done++; o.Progress != nil {
				o.Progress(done, total)
			}
		}
	}
	end.Sum = hex.EncodeToString(out.sum.Sum(nil))
	return out.line(json.Marshal(end, strict))
}

// own gives the events of a batch that have a source, and their places.
func own(body []byte, source string) (indexes []int, batch jsontext.Value, err error) {
	var all []jsontext.Value
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, nil, err
	}
	for i, e := range all {
		var from struct {
			Source string `json:"source"`
		}
		if err := json.Unmarshal(e, &from); err != nil {
			return nil, nil, err
		}
		if from.Source != source {
			continue
		}
		if len(indexes) == 0 {
			batch = append(batch, '[')
		} else {
			batch = append(batch, ',')
		}
		indexes = append(indexes, i)
		batch = append(batch, e...)
	}
	if len(indexes) > 0 {
		batch = append(batch, ']')
	}
	return indexes, batch, nil
}
