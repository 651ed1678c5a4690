package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/feed"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/projection"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

const (
	lastEventID = "Last-Event-ID"
	// atOnce is how many events are written before they leave.
	atOnce = 100
)

// Render writes an event as an item of the audit log. A feed does so once for
// all who listen.
func Render(e *event.Recorded) []byte {
	row := projection.Row(e)
	body, err := json.Marshal(eventItem(&row), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	if err != nil { // the data of an event is JSON, or it could not have been read
		return []byte("null")
	}
	return body
}

// streamEvents sends events as the log gets them, and before them those after
// the place from which the client wants to go on.
func (s *Service) streamEvents(w http.ResponseWriter, r *httpapi.Request) error {
	f := readmodel.EventFilter{Family: r.QueryString("family"), Type: event.Type(r.QueryString("type"))}
	return s.stream(w, r, func(out *eventStream, i *feed.Item, at string) error {
		if (f.Family == "" || f.Family == i.Event.Type.Family()) && (f.Type == "" || f.Type == i.Event.Type) {
			out.add(at, string(i.Event.Type), i.Body)
		}
		return nil
	}, nil)
}

// stream passes on what a listener hears until the client leaves, its credential
// dies or the server stops. heard is called for each event, in turn; settle, if
// given, from time to time.
func (s *Service) stream(w http.ResponseWriter, r *httpapi.Request, heard func(out *eventStream, i *feed.Item, at string) error, settle func(ctx context.Context, out *eventStream, at string) error) error {
	if s.feed == nil {
		return fault.New(fault.Unavailable, "", "This process has no streams.")
	}
	from, err := s.streamBegin(r)
	if err != nil {
		return err
	}
	ctx, stop := r.WhileAlive()
	defer stop()
	listener, err := s.feed.Listen(ctx, r.Identity.Account, s.auditStreams(r.Identity.Account), from)
	if errors.Is(err, feed.ErrAhead) {
		return badBegin(r, err.Error())
	}
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := r.Reverify(); err != nil { // contract 3.3: before the first byte
		return err
	}
	out := openEventStream(w, placeOf(listener.At()))
	if out.flush() != nil || r.Method == http.MethodHead {
		return nil
	}
	beats := time.NewTicker(s.heartbeat)
	defer beats.Stop()
	ticks := make(<-chan time.Time)
	if settle != nil {
		t := time.NewTicker(settleEvery)
		defer t.Stop()
		ticks = t.C
	}
	for {
		select {
		case i := <-listener.Items():
			err = s.pass(listener, &i, out, heard)
		case <-ticks:
			err = settle(ctx, out, placeOf(listener.At()))
		case <-beats.C:
			err = out.beat()
		case <-ctx.Done(): // the client has left, or may hear no more
			return nil
		case <-r.Stopping():
			out.end("stopping")
			return nil
		case <-listener.Done():
			reason := "unavailable"
			switch {
			case errors.Is(listener.Err(), feed.ErrSlow):
				reason = "too_slow"
			case errors.Is(listener.Err(), feed.ErrStopped):
				reason = "stopping"
			}
			out.end(reason)
			return nil
		}
		if err != nil { // the client cannot be reached, which is no failure of ours
			return nil
		}
	}
}

// pass passes on an event and those that are there behind it.
func (s *Service) pass(listener *feed.Listener, first *feed.Item, out *eventStream, heard func(*eventStream, *feed.Item, string) error) error {
	i := *first
	for range atOnce {
		if err := heard(out, &i, placeOf(listener.Heard(&i))); err != nil {
			return err
		}
		select {
		case i = <-listener.Items():
			continue
		default:
		}
		break
	}
	if len(out.buffer) == 0 {
		return nil
	}
	return out.flush()
}

// streamBegin gives the place that the client names: the header counts, since a
// browser that comes back asks again with the parameter it began with.
func (s *Service) streamBegin(r *httpapi.Request) (map[string]event.Offset, error) {
	text := r.Header.Get(lastEventID)
	if text == "" {
		text = r.QueryString("position")
	}
	if text == "" {
		return nil, nil
	}
	from, err := event.ParsePositions(text)
	if err != nil {
		return nil, badBegin(r, err.Error())
	}
	streams := s.auditStreams(r.Identity.Account)
	for stream := range from {
		if !slices.Contains(streams, stream) {
			return nil, badBegin(r, "events are not drawn from the stream "+stream)
		}
	}
	return from, nil
}

func badBegin(r *httpapi.Request, msg string) error {
	loc := []string{"query", "position"}
	if r.Header.Get(lastEventID) != "" {
		loc = []string{"header", lastEventID}
	}
	return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: loc, Msg: msg, Type: "value_error"}}}
}

// placeOf writes a place in every stream (contract 5.2).
func placeOf(at map[string]event.Offset) string {
	var out []string
	for _, stream := range slices.Sorted(maps.Keys(at)) {
		out = append(out, event.Position{Stream: stream, Offset: at[stream]}.String())
	}
	return strings.Join(out, ",")
}

// settleEvery is how often changed cells are looked up: a burst of events about
// one is one change of it.
const settleEvery = 200 * time.Millisecond

// streamMatrix sends cells as they change. Which cells may have changed is told
// by the log; what they then show by the read model, once it has come as far.
func (s *Service) streamMatrix(w http.ResponseWriter, r *httpapi.Request) error {
	c := changes{service: s, account: r.Identity.Account, touched: map[event.ProductID]map[event.Position]bool{}}
	var err error
	if c.product, err = s.product(r); err != nil {
		return err
	}
	if c.environment, err = s.environment(r, r.QueryString("environment")); err != nil {
		return err
	}
	return s.stream(w, r, c.heard, c.settle)
}

// changes are the events that may have changed cells since they were last looked up.
type changes struct {
	service     *Service
	account     string
	product     event.ProductID
	environment event.EnvironmentID
	touched     map[event.ProductID]map[event.Position]bool
}

func (c *changes) heard(_ *eventStream, i *feed.Item, _ string) error {
	run, ok := i.Event.Payload.(*event.Run)
	if !ok || run.Record.Kind != event.Deployment ||
		c.product != (event.ProductID{}) && c.product != run.Record.ProductID ||
		c.environment != (event.EnvironmentID{}) && c.environment != run.Record.EnvironmentID {
		return nil
	}
	if c.touched[run.Record.ProductID] == nil {
		c.touched[run.Record.ProductID] = map[event.Position]bool{}
	}
	c.touched[run.Record.ProductID][i.Event.Position] = true
	return nil
}

// settle sends the cells that now show what an event left behind. While the
// read model is behind or away they wait.
func (c *changes) settle(ctx context.Context, out *eventStream, at string) error {
	if len(c.touched) == 0 || !c.arrived(ctx) {
		return nil
	}
	for product, positions := range c.touched {
		m, err := c.service.model.Matrix(ctx, c.account, readmodel.MatrixFilter{Product: product, Environment: c.environment}, readmodel.Page{Limit: 1})
		if err != nil {
			return nil //nolint:nilerr // it is asked again
		}
		names := make(map[event.EnvironmentID]string, len(m.Environments))
		for i := range m.Environments {
			names[m.Environments[i].ID] = m.Environments[i].Name
		}
		for i := range m.Items {
			for j := range m.Items[i].Cells {
				cell := &m.Items[i].Cells[j]
				if cell.Live == nil || !positions[cell.Live.Position] && (cell.LastAttempt == nil || !positions[cell.LastAttempt.Position]) {
					continue
				}
				p := &m.Items[i].Product
				body, err := json.Marshal(changedCell{p.ID.String(), p.Name, matrixCellOf(cell, names[cell.Environment])}, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
				if err != nil {
					return fmt.Errorf("write a cell: %w", err)
				}
				out.add("", "cell", body)
			}
		}
		delete(c.touched, product)
	}
	// Only behind all of them: who goes on from here has had every cell.
	out.buffer = append(append(append(out.buffer, "id: "...), at...), "\n\n"...)
	return out.flush()
}

// arrived tells whether the read model has come as far as the events.
func (c *changes) arrived(ctx context.Context) bool {
	progress, err := c.service.progress(ctx)
	if err != nil {
		return false
	}
	want := map[string]event.Offset{}
	for _, positions := range c.touched {
		for p := range positions {
			want[p.Stream] = max(want[p.Stream], p.Offset)
		}
	}
	return c.service.reached(progress, want, c.service.streamsOf(c.account))
}
