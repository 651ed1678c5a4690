package projector

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
	"github.com/shipledger/shipledger/pkg/replay"
)

// replayAnswer is a replay as answers show it (contract 5.1).
type replayAnswer struct {
	ID          string       `json:"id"`
	State       string       `json:"state"`
	Projection  string       `json:"projection"`
	Version     uint32       `json:"version"`
	Previous    uint32       `json:"previous_version"`
	Switch      string       `json:"switch"`
	Account     httpapi.Text `json:"account"`
	From        httpapi.Text `json:"from"`
	Snapshot    httpapi.Text `json:"snapshot"`
	Events      uint64       `json:"events"`
	Total       uint64       `json:"total"`
	Rate        float64      `json:"rate"`
	SecondsLeft *int64       `json:"seconds_left"`
	Verdict     httpapi.Text `json:"verdict"`
	StartedAt   *time.Time   `json:"started_at"`
	StartedBy   string       `json:"started_by"`
	VerifiedAt  *time.Time   `json:"verified_at"`
	SwitchedAt  *time.Time   `json:"switched_at"`
	UndoUntil   *time.Time   `json:"undo_until"`
	EndedAt     *time.Time   `json:"ended_at"`
	Reason      httpapi.Text `json:"reason"`
}

func (s *Service) toAPI(r *replay.Replay) replayAnswer {
	a := replayAnswer{
		ID: r.ID, State: string(r.State), Projection: r.Projection, Version: r.Version, Previous: r.Previous, Switch: string(r.Switch),
		Account: httpapi.Text(r.Part.Account), StartedAt: httpapi.Moment(r.StartedAt), StartedBy: replay.MadeBy(r.StartedBy),
		VerifiedAt: httpapi.Moment(r.VerifiedAt), SwitchedAt: httpapi.Moment(r.SwitchedAt), EndedAt: httpapi.Moment(r.EndedAt),
		Reason: httpapi.Text(r.Reason), Snapshot: httpapi.Text(r.Snapshot),
	}
	if r.Part.From.Offset > 0 {
		a.From = httpapi.Text(r.Part.From.String())
	}
	undoable := false
	s.ops.look(func(b *replay.Book) { undoable = b.Undoable(r, s.cfg.Now()) })
	if undoable {
		a.UndoUntil = httpapi.Moment(r.KeepUntil)
	}
	if c := r.Certificate; c != nil {
		a.Verdict, a.Events, a.Total = httpapi.Text(c.Verdict), c.Events, c.Events
		if c.Seconds > 0 {
			a.Rate = math.Round(float64(c.Events) / c.Seconds)
		}
		return a
	}
	if p, ok := s.replayProgress(r.ID); ok && r.State == replay.Running {
		if p.Verifying {
			a.State = string(replay.Verifying)
		}
		a.Events, a.Total, a.Rate = p.Events, p.Total, math.Round(p.Rate)
		if p.Rate > 0 {
			left := int64(p.Left / time.Second)
			a.SecondsLeft = &left
		}
	}
	return a
}

// certificateAnswer is a certificate as answers show it.
type certificateAnswer struct {
	ReplayID        string             `json:"replay_id"`
	Verdict         string             `json:"verdict"`
	From            string             `json:"from"`
	To              string             `json:"to"`
	Events          uint64             `json:"events"`
	Deployments     uint64             `json:"deployments"`
	Accounts        int                `json:"accounts"`
	Tables          []tableAnswer      `json:"tables"`
	CellsChanged    uint64             `json:"cells_changed"`
	FirstDifference *replay.Difference `json:"first_difference,omitzero"`
	CodeVersion     string             `json:"code_version"`
	Seconds         float64            `json:"seconds"`
	StoodStill      float64            `json:"stood_still_seconds"`
	MadeBy          string             `json:"made_by"`
	MadeAt          *time.Time         `json:"made_at"`
	QuarantinedOld  uint64             `json:"quarantined_old"`
	QuarantinedNew  uint64             `json:"quarantined_new"`
	Reason          httpapi.Text       `json:"reason"`
}

type tableAnswer struct {
	Name    string `json:"name"`
	Rows    uint64 `json:"rows"`
	HashOld string `json:"hash_old"`
	HashNew string `json:"hash_new"`
}

// certificateToAPI shows a certificate to somebody of an account. The sums are
// of all accounts; a row is shown only to the account whose it is.
func certificateToAPI(c *replay.Certificate, account string) certificateAnswer {
	a := certificateAnswer{
		ReplayID: c.ReplayID, Verdict: string(c.Verdict), From: c.From, To: c.To, Events: c.Events, Deployments: c.Deployments, Accounts: c.Accounts,
		Tables: []tableAnswer{}, CellsChanged: c.Cells, CodeVersion: c.CodeVersion, Seconds: c.Seconds, StoodStill: c.StoodStill,
		MadeBy: c.MadeBy, MadeAt: httpapi.Moment(c.MadeAt),
		QuarantinedOld: c.QuarantinedOld, QuarantinedNew: c.QuarantinedNew, Reason: httpapi.Text(c.Reason),
	}
	for _, t := range c.Tables {
		a.Tables = append(a.Tables, tableAnswer{t.Name, t.Rows, t.HashOld, t.HashNew})
	}
	if d := c.FirstDifference; d != nil {
		shown := *d
		if d.Account != account {
			shown = replay.Difference{Table: d.Table, Key: map[string]string{}}
		}
		if shown.Columns == nil {
			shown.Columns = []string{}
		}
		a.FirstDifference = &shown
	}
	return a
}

// diffAnswer is the preview of a switch.
type diffAnswer struct {
	httpapi.List[cellAnswer] `json:",inline"`

	ReplayID string        `json:"replay_id"`
	Verdict  string        `json:"verdict"`
	Tables   []countAnswer `json:"tables"`

	Metrics *metricsAnswer `json:"metrics"`
}

type countAnswer struct {
	Name    string `json:"name"`
	Added   uint64 `json:"added"`
	Removed uint64 `json:"removed"`
	Changed uint64 `json:"changed"`
}

func countsToAPI(c *replay.Certificate) []countAnswer {
	out := []countAnswer{}
	for _, t := range c.Tables {
		out = append(out, countAnswer{t.Name, t.Added, t.Removed, t.Changed})
	}
	return out
}

type cellAnswer struct {
	ProductName     string         `json:"product_name"`
	EnvironmentName string         `json:"environment_name"`
	From            *contentAnswer `json:"from"`
	To              *contentAnswer `json:"to"`
}

type contentAnswer struct {
	Version      string     `json:"version"`
	DeploymentID string     `json:"deployment_id"`
	At           *time.Time `json:"at"`
}

func cellToAPI(c *replay.CellChange) cellAnswer {
	show := func(v *replay.CellContent) *contentAnswer {
		if v.Version == "" {
			return nil
		}
		return &contentAnswer{v.Version, v.DeploymentID, httpapi.Moment(v.At)}
	}
	return cellAnswer{c.ProductName, c.EnvironmentName, show(&c.From), show(&c.To)}
}

// projectionAnswer is how the read model is.
type projectionAnswer struct {
	Name          string       `json:"name"`
	State         string       `json:"state"` // live, behind, failing
	ActiveVersion uint32       `json:"active_version"`
	Versions      []uint32     `json:"versions"` // kept up to date
	Position      string       `json:"position"`
	LagEvents     uint64       `json:"lag_events"`
	LagSeconds    float64      `json:"lag_seconds"`
	Error         httpapi.Text `json:"error"`

	received *time.Time
}

const (
	// countedFrames is up to how many frames of a lag are read to count them;
	// beyond it the rest is taken to be like them.
	countedFrames = 100
	// behindSeconds is from when on a projection that gets on counts as behind.
	behindSeconds = 5
)

// projection says how far the live version is behind the log.
func (s *Service) projection(ctx context.Context) (projectionAnswer, error) {
	s.mu.Lock()
	a := projectionAnswer{Name: replay.Ledger, State: "live", ActiveVersion: max(s.active, replay.FirstVersion), Versions: []uint32{}}
	for number := range s.versions {
		a.Versions = append(a.Versions, number)
	}
	live, err := s.versions[s.active], s.err
	s.mu.Unlock()
	slices.Sort(a.Versions)
	if live != nil {
		err = live.state().Err
		a.Position = live.positions(live.offsets())
	}
	for i, stream := range s.cfg.Streams {
		var at readmodel.Progress
		if live != nil {
			at = live.lanes[i].State().Progress
		}
		if a.received == nil || at.Time.After(*a.received) {
			a.received = httpapi.Moment(at.Time)
		}
		events, oldest, err := behind(ctx, stream, at.Offset.Seq())
		if err != nil {
			return a, fault.New(fault.Unavailable, "", "the log does not answer right now").Because(err)
		}
		a.LagEvents += events
		if !oldest.IsZero() {
			a.LagSeconds = max(a.LagSeconds, math.Round(s.cfg.Now().Sub(oldest).Seconds()*1000)/1000)
		}
	}
	switch {
	case err != nil:
		a.State, a.Error = "failing", "The projection does not get on; the logs of the projector say why."
		if fault.KindOf(err) == fault.Unavailable {
			a.Error = "The read model does not answer."
		}
	case a.LagSeconds > behindSeconds:
		a.State = "behind"
	}
	return a, nil
}

// behind counts the events of a stream after a sequence, and gives the receipt
// of the first of them.
func behind(ctx context.Context, stream Stream, after uint64) (events uint64, oldest time.Time, err error) {
	last, err := stream.Log.Last(ctx)
	if err != nil || last <= after {
		return 0, oldest, err
	}
	frames := uint64(0)
	for f, err := range stream.Log.Read(ctx, after) {
		if err != nil {
			return 0, oldest, err
		}
		decoded, _, err := event.DecodeEach(nil, stream.Name, f.Seq, f.Body)
		if err != nil {
			decoded = make([]event.Recorded, 1) // at least one, whatever it is
		}
		events += uint64(len(decoded))
		if oldest.IsZero() && err == nil {
			oldest = decoded[0].Time
		}
		if frames++; frames == countedFrames && last > f.Seq {
			return events * (last - after) / countedFrames, oldest, nil
		}
	}
	return events, oldest, nil
}
