// Package query answers what is deployed where and how it came to be so, from
// the read model. It writes nothing.
package query

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/singleflight"

	"github.com/shipledger/shipledger/pkg/apidocs"
	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/feed"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

const (
	askAgain = 10 * time.Millisecond

	defaultHeartbeat = 15 * time.Second

	// answerTime is how long one answer may take in all, however many questions it asks of
	// the read model. A connection takes no answer much later, and then nobody hears why.
	answerTime = 75 * time.Second
)

// Service answers the operations of query.
type Service struct {
	model   readmodel.Reader
	streams []string                       // short names of the log's partitions, in their order
	audited []string                       // those that the audit log is drawn from beside them
	others  map[string]func() event.Offset // how far this process follows other streams
	logs    map[string]eventlog.Reader     // of the streams
	archive *archive                       // what may be exported; nil: nothing
	asOf    inTurn[[]readmodel.Progress]
	newer   singleflight.Group
	answers *answers

	underWay underWay

	keys      func(recordID string) (credential.Held, bool)
	held      credentials // nil: nobody knows any
	uses      uses
	feed      *feed.Feed
	heartbeat time.Duration
}

// New returns a service that reads model, a projection of the log's partitions,
// which are the streams of these short names in the order of their numbers. What is
// told of an account is drawn from its own partition (event.PartitionOf): others may
// be behind, or not answer.
func New(model readmodel.Reader, streams ...string) *Service {
	return &Service{model: model, streams: streams, others: map[string]func() event.Offset{}, answers: newAnswers()}
}

// Following lets callers wait for positions of a stream that the read model is
// not made of, but this process follows: what a credential may see changes with
// it. It must be called before the service is used.
func (s *Service) Following(stream string, reached func() event.Offset) *Service {
	s.others[stream] = reached
	return s
}

// Auditing names the streams that only the audit log is drawn from. It must be
// called before the service is used.
func (s *Service) Auditing(streams ...string) *Service {
	s.audited = streams
	return s
}

// Keys names who knows credentials by their record ids. It must be called before
// the service is used; without it no credential exists.
func (s *Service) Keys(record func(id string) (credential.Held, bool)) *Service {
	s.keys = record
	return s
}

// Streaming names what streams of events are drawn from, and how often one
// without news says that it is alive; zero means 15 s. It must be called before the service is
// used; without it there are no streams.
func (s *Service) Streaming(f *feed.Feed, heartbeat time.Duration) *Service {
	s.feed, s.heartbeat = f, cmp.Or(heartbeat, defaultHeartbeat)
	return s
}

// Handlers gives the handler of each operation, for the API to mount.
func (s *Service) Handlers() httpapi.Handlers {
	handlers := httpapi.Handlers{
		"listUsage":    s.listUsage,
		"listReleases": s.listReleases, "getRelease": s.getRelease,
		"listReleaseVersions": s.listReleaseVersions, "listReleaseDeployments": s.listReleaseDeployments,
		"listDeployments":   s.sharing(s.listDeployments),
		"getDeployment":     s.sharing(s.getDeployment),
		"listBuilds":        s.sharing(s.listBuilds),
		"getBuild":          s.getBuild,
		"listVersions":      s.sharing(s.listVersions),
		"getVersion":        s.sharing(s.getVersion),
		"listProducts":      s.sharing(s.listProducts),
		"getProduct":        s.sharing(s.getProduct),
		"listEnvironments":  s.sharing(s.listEnvironments),
		"getEnvironment":    s.sharing(s.getEnvironment),
		"getMatrix":         s.sharing(s.getMatrix),
		"getMatrixDiff":     s.sharing(s.getMatrixDiff),
		"getCellHistory":    s.sharing(s.getCellHistory),
		"getDora":           s.sharing(s.getDora),
		"getDoraEvidence":   s.getDoraEvidence,
		"listEvents":        s.listEvents,
		"getEvent":          s.getEvent,
		"streamEvents":      s.streamEvents,
		"streamMatrix":      s.streamMatrix,
		"getBalance":        s.getBalance,
		"exportDeployments": s.exportDeployments,
		"exportBuilds":      s.exportBuilds,
		"exportEvents":      s.exportEvents,
		"getAPIKeyWrites":   s.writes(credential.APIKey, "API key"),
		"getTokenWrites":    s.writes(credential.PAT, "personal access token"),
		"exportCells":       s.exportCells,
		"exportLog":         s.exportLog,
	}
	for id, h := range handlers {
		if !slices.Contains(asLongAsAsked, id) {
			handlers[id] = bounded(h)
		}
	}
	maps.Copy(handlers, apidocs.Handlers())
	return handlers
}

// asLongAsAsked are operations whose answers come piece by piece, as much as there is, and the
// balance, which counts the log: nobody could ask for less of it.
var asLongAsAsked = []string{
	"streamEvents", "streamMatrix", "exportDeployments", "exportBuilds", "exportEvents", "exportCells", "exportLog", "getBalance",
}

// bounded ends what h asks for after answerTime, so that no question keeps the read model
// busy for ever, and says so.
func bounded(h httpapi.Handler) httpapi.Handler {
	return func(w http.ResponseWriter, r *httpapi.Request) error {
		asked := r.Request
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		r.Request = r.WithContext(ctx)
		err := h(w, r)
		r.Request = asked
		if err != nil && ctx.Err() != nil && asked.Context().Err() == nil {
			return fault.New(fault.Unavailable, "QUERY_TOO_EXPENSIVE", "this question takes more time than one question may").
				WithHint("Ask for less: a shorter time, fewer products or environments, or a smaller page.").Because(err)
		}
		return err
	}
}

// fresh waits until the read model holds what the caller wants to see, and
// gives how new the answer will be at least.
func (s *Service) fresh(r *httpapi.Request) (httpapi.AsOf, error) {
	progress, err := s.freshOf(r, s.streamsOf(r.Identity.Account))
	return asOf(progress), err
}

// streamsOf gives the streams that the state of an account is made of: its partition.
func (s *Service) streamsOf(account string) []string {
	i := event.PartitionOf(account, len(s.streams))
	return s.streams[i : i+1]
}

// freshOf does so for an answer that is drawn from these streams, and gives how
// far each is projected.
func (s *Service) freshOf(r *httpapi.Request, streams []string) ([]readmodel.Progress, error) {
	return s.await(r, r.MinPosition(), streams)
}

func (s *Service) await(r *httpapi.Request, want map[string]event.Offset, streams []string) ([]readmodel.Progress, error) {
	if err := s.known(want, streams); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), httpapi.WaitForPosition)
	defer cancel()
	for {
		progress, err := s.progress(ctx)
		if err != nil && (len(want) == 0 || fault.KindOf(err) != fault.Unavailable) {
			return nil, err
		}
		if err == nil && s.reached(progress, want, streams) {
			r.Request = r.WithContext(readmodel.AfterAsOf(r.Context())) // whatever is asked now need not be newer
			return slices.DeleteFunc(slices.Clone(progress), func(p readmodel.Progress) bool { return !slices.Contains(streams, p.Stream) }), nil
		}
		select {
		case <-ctx.Done():
			if err != nil { // it did not answer all that time
				return nil, err
			}
			return nil, fault.New(fault.Unavailable, "READ_MODEL_BEHIND", "the read model has not reached the position that was asked for").
				WithHint("Ask again after the time in Retry-After, or leave the position out to read what is there.")
		case <-time.After(askAgain):
		}
	}
}

// progress asks the read model how far it is. Callers that wait at the same
// time share one question, which began after each of them came.
func (s *Service) progress(ctx context.Context) ([]readmodel.Progress, error) {
	progress, err := s.asOf.do(func() ([]readmodel.Progress, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpapi.WaitForPosition) // the first to ask may leave
		defer cancel()
		return s.model.AsOf(ctx)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fault.New(fault.Unavailable, "READ_MODEL_UNAVAILABLE", "the read model does not answer right now").Because(err)
	}
	return progress, err
}

func (s *Service) known(want map[string]event.Offset, streams []string) error {
	for stream := range want {
		if s.others[stream] == nil && !slices.Contains(streams, stream) {
			return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{
				Loc: []string{"query", "min_position"}, Msg: "these answers are not drawn from the stream " + stream, Type: "value_error",
			}}}
		}
	}
	return nil
}

func (s *Service) reached(progress []readmodel.Progress, want map[string]event.Offset, streams []string) bool {
	for stream, offset := range want {
		if offset == 0 { // the place before the first event, of which nobody is short
			continue
		}
		ok := !slices.Contains(streams, stream) && s.others[stream]() >= offset
		for _, p := range progress {
			ok = ok || p.Stream == stream && p.Offset >= offset
		}
		if !ok {
			return false
		}
	}
	return true
}

func asOf(progress []readmodel.Progress) httpapi.AsOf {
	positions, newest := readmodel.Reached(progress)
	return httpapi.AsOf{Position: positions, Time: httpapi.Moment(newest)}
}

// page asks for one row more than the caller wants: it tells whether the list goes on.
func page(r *httpapi.Request) readmodel.Page {
	return readmodel.Page{After: r.After(), Limit: r.Limit() + 1}
}

// list answers with rows, shown one by one.
func list[R, T any](r *httpapi.Request, at httpapi.AsOf, rows []R, key func(*R) string, show func(*R) T) error {
	rows, after := cut(rows, r.Limit(), key)
	items := make([]T, len(rows))
	for i := range rows {
		items[i] = show(&rows[i])
	}
	return r.JSON(http.StatusOK, httpapi.NewList(r, items, after, at))
}

// cut takes the row away that was asked for too much, and gives the key to go on after.
func cut[R any](rows []R, limit int, key func(*R) string) ([]R, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	rows = rows[:limit]
	return rows, key(&rows[limit-1])
}

// missing tells an object of another account from one that exists nowhere. What
// the caller's own account had and deleted is nowhere.
func (s *Service) missing(r *httpapi.Request, object readmodel.Object, id string, err error) error {
	if !errors.Is(err, readmodel.ErrNotFound) {
		return err
	}
	switch owner, ownerErr := s.model.Owner(r.Context(), object, id); {
	case ownerErr == nil && owner != r.Identity.Account:
		return httpapi.NotOwner(string(object))
	case ownerErr == nil, errors.Is(ownerErr, readmodel.ErrNotFound):
		return httpapi.NotFound(string(object))
	default:
		return ownerErr
	}
}

// runID reads the id in the path; no object has an id of another form.
func runID(r *httpapi.Request, object readmodel.Object) (ulid.ULID, error) {
	id, err := ulid.ParseStrict(r.PathValue("id"))
	if err != nil {
		return id, httpapi.NotFound(string(object))
	}
	return id, nil
}
