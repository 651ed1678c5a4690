package accounts

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/usage"
)

// unusedAfter is how long a credential is not used until it is marked (contract 3.5).
const unusedAfter = 30 * 24 * time.Hour

// used gives what is known of a credential's use.
func (s *Service) used(recordID string) usage.Summary {
	if s.usage == nil {
		return usage.Summary{}
	}
	return s.usage.Of(recordID)
}

// show gives a credential as answers show it, with its last use.
func (s *Service) show(r *credential.Record, now time.Time) answer {
	a := toAPI(r, now)
	summary, since := s.used(r.ID), r.CreatedAt
	if last, ok := summary.Latest(); ok {
		since = last.Last
		a.LastUsedAt = httpapi.Moment(last.Last)
		a.LastUsedWith = httpapi.Text(last.UserAgent)
		a.LastUsedIP = address(&last)
	}
	a.Unused30d = now.Sub(since) >= unusedAfter
	return a
}

func address(u *usage.Use) httpapi.Text {
	if !u.Addr.IsValid() {
		return ""
	}
	return httpapi.Text(u.Addr.String())
}

// ordered sorts answers as a list is asked for, and gives those after the cursor.
// The key of one tells its place among the others.
func ordered(items []answer, sort, after string) []answer {
	slices.SortFunc(items, func(a, b answer) int { return cmp.Compare(b.key(sort), a.key(sort)) })
	if after == "" {
		return items
	}
	return slices.DeleteFunc(items, func(a answer) bool { return a.key(sort) >= after })
}

// key orders credentials: the newest first, or those used last first and those
// never used at the end.
func (a *answer) key(sort string) string {
	if sort != "last_used_at" {
		return a.ID
	}
	at := int64(0)
	if a.LastUsedAt != nil {
		at = a.LastUsedAt.UnixNano()
	}
	return fmt.Sprintf("%020d.%s", at, a.ID)
}

type callerAnswer struct {
	SourceSystem httpapi.Text `json:"source_system"`
	UserAgent    httpapi.Text `json:"user_agent"`
	IP           httpapi.Text `json:"ip"`
	FirstAt      *time.Time   `json:"first_at"`
	LastAt       *time.Time   `json:"last_at"`
	Requests     uint64       `json:"requests"`
}

// callers answers who uses a credential, the latest first: nobody may use a
// rotated one when its grace ends.
func (s *Service) callers(f family) httpapi.Handler {
	return func(_ http.ResponseWriter, r *httpapi.Request) error {
		if err := s.fresh(r); err != nil {
			return err
		}
		held, err := s.find(f, r)
		if err != nil {
			return err
		}
		summary := s.used(held.ID)
		out := struct {
			Items []callerAnswer `json:"items"`
		}{make([]callerAnswer, len(summary.Callers))}
		for i := range summary.Callers {
			u := &summary.Callers[i]
			out.Items[i] = callerAnswer{
				httpapi.Text(u.SourceSystem), httpapi.Text(u.UserAgent), address(u), httpapi.Moment(u.First), httpapi.Moment(u.Last), u.Count,
			}
		}
		return r.JSON(http.StatusOK, out)
	}
}

// wantsUnused tells whether a list is to hold an answer.
func wantsUnused(filter string, a *answer) bool {
	return filter == "" || (filter == "true") == a.Unused30d
}
