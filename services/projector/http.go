package projector

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/replay"
)

// lenient reads bodies as package httpapi checks them.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Handlers gives the handler of each operation, for the API to mount.
func (s *Service) Handlers() httpapi.Handlers {
	return httpapi.Handlers{
		"listProjections": s.listProjections,
		"listReplays":     s.listReplays, "startReplay": s.startReplay, "getReplay": s.getReplay,
		"getReplayCertificate": s.getCertificate, "getReplayDiff": s.getDiff,
		"switchReplay": s.switchReplay, "undoReplay": s.undoReplay, "cancelReplay": s.cancelReplay,
		"listQuarantine": s.listQuarantine, "redriveEvents": s.redriveEvents, "redriveEvent": s.redriveEvent, "discardEvent": s.discardEvent,
	}
}

// settling is how long an answer waits for what is decided to be in force. It
// takes milliseconds, but for a read model that does not answer.
const settling = time.Second

// fresh waits until this process knows the position that the caller names, and
// what is decided is in force: a replay that is said to be switched to is live.
func (s *Service) fresh(r *httpapi.Request) error {
	if err := r.AwaitStream(replay.Stream, s.ops.await); err != nil {
		return err
	}
	settled, stop := context.WithTimeout(r.Context(), settling)
	defer stop()
	seq, _ := s.ops.applied()
	_ = s.inForce(settled, seq) // what was decided stands, whenever it comes into force
	return nil
}

// read reads a body; none at all counts as an empty object.
func (s *Service) read(r *httpapi.Request, into any) error {
	body, err := r.ReadJSON()
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return nil
	}
	faults, err := s.spec.CheckBody(r.Operation.Body, body)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return &httpapi.ValidationError{Faults: faults}
	}
	if err := json.Unmarshal(body, into, lenient); err != nil {
		return httpapi.InvalidJSON()
	}
	return nil
}

// own gives the replay that the path names, if the caller's account started it.
func (s *Service) own(r *httpapi.Request) (replay.Replay, error) {
	found, ok := s.find(r.PathValue("id"))
	switch {
	case !ok:
		return found, httpapi.NotFound("replay")
	case found.Account != r.Identity.Account:
		return found, httpapi.NotOwner("replay")
	}
	return found, nil
}

func (s *Service) startReplay(w http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		Account string `json:"account"`
		From    string `json:"from"`
		Switch  string `json:"switch"`

		Snapshot string `json:"snapshot"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	if asked.Account != "" && asked.Account != r.Identity.Account {
		return httpapi.NotOwner("account")
	}
	order := replay.Order{Account: r.Identity.Account, By: r.Identity.Author(), Part: replay.Part{Account: asked.Account}, Switch: replay.Manual, Snapshot: asked.Snapshot}
	if asked.Snapshot != "" {
		if _, err := s.snapshotFile(asked.Snapshot); err != nil {
			return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: []string{"body", "snapshot"}, Msg: reasonOf(err), Type: "value_error"}}}
		}
	}
	if asked.Switch != "" {
		order.Switch = replay.Switch(asked.Switch)
	}
	if asked.From != "" {
		from, err := s.from(r.Context(), asked.From)
		if err != nil {
			return err
		}
		order.Part.From = from
	}
	id, err := s.ops.newID()
	if err != nil {
		return err
	}
	done, err := s.ops.commit(r.Context(), order.By, r.Reverify, func(b *replay.Book, now time.Time) (replay.Change, error) {
		return b.Start(id.String(), order, now)
	})
	if err != nil {
		return err
	}
	w.Header()[httpapi.PositionHeader] = []string{position(done.seq)}
	return r.JSON(http.StatusCreated, s.toAPI(&done.Replay))
}

// from reads where a check begins: a position that the log has reached.
func (s *Service) from(ctx context.Context, text string) (event.Position, error) {
	from, err := event.ParsePosition(text)
	msg := ""
	at := slices.IndexFunc(s.cfg.Streams, func(st Stream) bool { return st.Name == from.Stream })
	switch {
	case err != nil:
		msg = err.Error()
	case at < 0:
		msg = "the read model is not made of the stream " + from.Stream
	default:
		last, err := s.cfg.Streams[at].Log.Last(ctx)
		if err != nil {
			return from, fault.New(fault.Unavailable, "", "the log does not answer right now").Because(err)
		}
		if from.Offset.Seq() == 0 || from.Offset.Seq() > last {
			msg = "the log has no such position"
		}
	}
	if msg != "" {
		return from, &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: []string{"body", "from"}, Msg: msg, Type: "value_error"}}}
	}
	return from, nil
}

func (s *Service) listReplays(_ http.ResponseWriter, r *httpapi.Request) error {
	if err := s.fresh(r); err != nil {
		return err
	}
	var all []replay.Replay
	var at httpapi.AsOf
	s.ops.look(func(b *replay.Book) {
		all = b.Replays()
		if seq, newest := b.Applied(); seq > 0 {
			at = httpapi.AsOf{Position: position(seq), Time: httpapi.Moment(newest)}
		}
	})
	var items []replayAnswer
	after, begun := "", r.After() == ""
	for i := range all {
		switch {
		case all[i].Account != r.Identity.Account:
			continue
		case !begun:
			begun = all[i].ID == r.After()
			continue
		}
		if len(items) == r.Limit() {
			after = items[len(items)-1].ID
			break
		}
		items = append(items, s.toAPI(&all[i]))
	}
	return r.JSON(http.StatusOK, httpapi.NewList(r, items, after, at))
}

func (s *Service) getReplay(_ http.ResponseWriter, r *httpapi.Request) error {
	if err := s.fresh(r); err != nil {
		return err
	}
	found, err := s.own(r)
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, s.toAPI(&found))
}

// certified gives the replay that the path names once it is verified.
func (s *Service) certified(r *httpapi.Request) (replay.Replay, error) {
	if err := s.fresh(r); err != nil {
		return replay.Replay{}, err
	}
	found, err := s.own(r)
	if err == nil && found.Certificate == nil {
		err = fault.New(fault.NotFound, "REPLAY_NOT_VERIFIED", "This replay is %s and was not verified.", found.State)
	}
	return found, err
}

func (s *Service) getCertificate(_ http.ResponseWriter, r *httpapi.Request) error {
	found, err := s.certified(r)
	if err != nil {
		return err
	}
	return r.JSON(http.StatusOK, certificateToAPI(found.Certificate, r.Identity.Account))
}

func (s *Service) getDiff(_ http.ResponseWriter, r *httpapi.Request) error {
	found, err := s.certified(r)
	if err != nil {
		return err
	}
	after := uint64(0)
	if r.After() != "" {
		after, _ = strconv.ParseUint(r.After(), 10, 64) // it was ours
	}
	cells, err := s.tables.ChangedCells(r.Context(), r.Identity.Account, found.ID, found.Certificate.To, after, r.Limit()+1)
	if err != nil {
		return err
	}
	next := ""
	if len(cells) > r.Limit() {
		cells = cells[:r.Limit()]
		next = strconv.FormatUint(cells[len(cells)-1].Seq, 10)
	}
	items := make([]cellAnswer, len(cells))
	for i := range cells {
		items[i] = cellToAPI(&cells[i])
	}
	var metrics *metricsAnswer
	if r.After() == "" { // pages of cells go on without asking for them again
		if metrics, err = s.changedMetrics(r.Context(), r.Identity.Account, &found); err != nil {
			return err
		}
	}
	at := httpapi.AsOf{Position: found.Certificate.To, Time: httpapi.Moment(found.Certificate.MadeAt)}
	return r.JSON(http.StatusOK, diffAnswer{
		List: httpapi.NewList(r, items, next, at), ReplayID: found.ID, Verdict: string(found.Certificate.Verdict),
		Tables: countsToAPI(found.Certificate), Metrics: metrics,
	})
}

func (s *Service) switchReplay(w http.ResponseWriter, r *httpapi.Request) error {
	var asked struct {
		Consent bool `json:"consent"`
	}
	if err := s.read(r, &asked); err != nil {
		return err
	}
	found, err := s.own(r)
	if err != nil {
		return err
	}
	ready := func() bool {
		stands, ok := s.find(found.ID)
		return ok && stands.State == replay.Ready && !stands.Part.Check()
	}
	if err := s.level(r.Context(), found.Previous, found.Version, ready); err != nil {
		return err
	}
	return s.decide(w, r, func(_ *replay.Book, stands *replay.Replay, now time.Time) (replay.Change, error) {
		return stands.SwitchTo(asked.Consent, s.cfg.Keep, now)
	})
}

func (s *Service) undoReplay(w http.ResponseWriter, r *httpapi.Request) error {
	found, err := s.own(r)
	if err != nil {
		return err
	}
	undoable := func() (yes bool) {
		s.ops.look(func(b *replay.Book) {
			stands, ok := b.Find(found.ID)
			yes = ok && b.Undoable(&stands, s.cfg.Now())
		})
		return yes
	}
	if err := s.level(r.Context(), found.Version, found.Previous, undoable); err != nil {
		return err
	}
	return s.decide(w, r, func(b *replay.Book, stands *replay.Replay, now time.Time) (replay.Change, error) {
		return b.Undo(stands, now)
	})
}

func (s *Service) cancelReplay(w http.ResponseWriter, r *httpapi.Request) error {
	return s.decide(w, r, func(_ *replay.Book, stands *replay.Replay, now time.Time) (replay.Change, error) {
		return stands.Cancel(now)
	})
}

// decide changes the replay that the path names, and answers when the change is
// in force in this process.
func (s *Service) decide(w http.ResponseWriter, r *httpapi.Request, change func(b *replay.Book, stands *replay.Replay, now time.Time) (replay.Change, error)) error {
	found, err := s.own(r)
	if err != nil {
		return err
	}
	done, err := s.ops.commit(r.Context(), r.Identity.Author(), r.Reverify, func(b *replay.Book, now time.Time) (replay.Change, error) {
		stands, _ := b.Find(found.ID)
		return change(b, &stands, now)
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), httpapi.WaitForPosition)
	defer cancel()
	if err := s.inForce(ctx, done.seq); err != nil {
		return fault.New(fault.Unavailable, "READ_MODEL_UNAVAILABLE", "The decision is recorded and will come into force, but the read model has not answered in time.").Because(err)
	}
	w.Header()[httpapi.PositionHeader] = []string{position(done.seq)}
	return r.JSON(http.StatusOK, s.toAPI(&done.Replay))
}

func (s *Service) listProjections(_ http.ResponseWriter, r *httpapi.Request) error {
	p, err := s.projection(r.Context())
	if err != nil {
		return err
	}
	at := httpapi.AsOf{Position: p.Position, Time: p.received}
	return r.JSON(http.StatusOK, httpapi.NewList(r, []projectionAnswer{p}, "", at))
}

func position(seq uint64) string {
	return event.Position{Stream: replay.Stream, Offset: event.At(seq, 0)}.String()
}
