package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Replay are the commands about rebuilds of the read model. Where a command
// takes an id and gets none, it is about the newest replay.
type Replay struct {
	Start  replayStart  `cmd:"" help:"Rebuild the read model from the log, beside the live one."`
	Status replayStatus `cmd:"" help:"Show how a replay stands, and what it found."`
	Watch  replayWatch  `cmd:"" help:"Show progress until a replay is verified."`
	Diff   replayDiff   `cmd:"" help:"Show what a switch would change."`
	Switch replaySwitch `cmd:"" help:"Make the rebuilt tables live."`
	Undo   replayUndo   `cmd:"" help:"Go back to the tables from before a switch."`
	Cancel replayCancel `cmd:"" help:"Cancel a replay and drop its tables."`
}

type replayStart struct {
	Server  `embed:""`
	Switch  string `enum:"manual,when_equal" default:"manual" help:"Who switches: manual, or when_equal: by itself if nothing differs."`
	Account string `help:"Check this account only; it is not switched to."`
	From    string `help:"Check what the events from this position on made; it is not switched to."`

	Snapshot string `help:"Read the log from this file in the server's folder for snapshots (SHIPLEDGER_SNAPSHOT_DIR), as far as it goes."`

	Watch bool          `short:"w" help:"Show progress until it is verified."`
	Every time.Duration `hidden:"" default:"300ms"`
}

type replayID struct {
	Server `embed:""`
	ID     string `arg:"" optional:"" help:"The replay; default: the newest one."`
}

type replayStatus struct {
	replayID `embed:""`
}

type replayWatch struct {
	replayID `embed:""`
	Every    time.Duration `hidden:"" default:"300ms"`
}

type replayDiff struct {
	replayID `embed:""`
	Limit    int `default:"500" help:"Cells shown at most."`
}

type replaySwitch struct {
	replayID `embed:""`
	Consent  bool `help:"Switch although the tables differ."`
}

type replayUndo struct {
	replayID `embed:""`
}

type replayCancel struct {
	replayID `embed:""`
}

// replayState is a replay as the server shows it.
type replayState struct {
	ID          string     `json:"id"`
	State       string     `json:"state"`
	Version     uint32     `json:"version"`
	Previous    uint32     `json:"previous_version"`
	Switch      string     `json:"switch"`
	Account     *string    `json:"account"`
	From        *string    `json:"from"`
	Events      int        `json:"events"`
	Total       int        `json:"total"`
	Rate        float64    `json:"rate"`
	SecondsLeft *int64     `json:"seconds_left"`
	Verdict     *string    `json:"verdict"`
	StartedAt   *time.Time `json:"started_at"`
	UndoUntil   *time.Time `json:"undo_until"`
	Reason      *string    `json:"reason"`

	raw jsontext.Value
}

// UnmarshalJSON keeps what came, for --json.
func (s *replayState) UnmarshalJSON(text []byte) error {
	type plain replayState
	var p plain
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	*s = replayState(p)
	s.raw = append(jsontext.Value(nil), text...)
	return nil
}

// certificateState is a certificate as the server shows it.
type certificateState struct {
	From        string  `json:"from"`
	To          string  `json:"to"`
	Events      int     `json:"events"`
	Deployments int     `json:"deployments"`
	Cells       int     `json:"cells_changed"`
	Seconds     float64 `json:"seconds"`
	StoodStill  float64 `json:"stood_still_seconds"`
	Reason      *string `json:"reason"`
	Tables      []struct {
		Name    string `json:"name"`
		Rows    int    `json:"rows"`
		HashOld string `json:"hash_old"`
		HashNew string `json:"hash_new"`
	} `json:"tables"`
	First *struct {
		Table   string            `json:"table"`
		Account string            `json:"account"`
		Key     map[string]string `json:"key"`
		Columns []string          `json:"columns"`
		Old     map[string]string `json:"old"`
		New     map[string]string `json:"new"`
		Event   *struct {
			Position string `json:"position"`
			Type     string `json:"type"`
			Subject  string `json:"subject"`
		} `json:"event"`
	} `json:"first_difference"`
}

// Run starts a replay.
func (c *replayStart) Run(ctx context.Context, app *kong.Context) error {
	body := map[string]string{"switch": c.Switch}
	if c.Account != "" {
		body["account"] = c.Account
	}
	if c.From != "" {
		body["from"] = c.From
	}
	if c.Snapshot != "" {
		body["snapshot"] = c.Snapshot
	}
	var r replayState
	if err := c.call(ctx, http.MethodPost, "replays/", nil, body, &r); err != nil {
		return err
	}
	if c.Watch {
		return watchReplay(ctx, app, &c.Server, r, c.Every)
	}
	if c.JSON {
		return printValue(app.Stdout, r.raw)
	}
	_, err := fmt.Fprintf(app.Stdout, "Replay %s builds version %d. Follow it with `shipledger replay watch`.\n", r.ID, r.Version)
	return err
}

// find gives the replay with the id, or the newest.
func (c *replayID) find(ctx context.Context) (r replayState, err error) {
	if c.ID != "" {
		err := c.call(ctx, http.MethodGet, "replays/"+url.PathEscape(c.ID), nil, nil, &r)
		return r, err
	}
	var list struct {
		Items []replayState `json:"items"`
	}
	if err := c.call(ctx, http.MethodGet, "replays/", url.Values{"limit": {"1"}}, nil, &list); err != nil {
		return r, err
	}
	if len(list.Items) == 0 {
		return r, errors.New("there was no replay yet: begin one with `shipledger replay start`")
	}
	return list.Items[0], nil
}

// Run shows a replay.
func (c *replayStatus) Run(ctx context.Context, app *kong.Context) error {
	r, err := c.find(ctx)
	if err != nil {
		return err
	}
	return showReplay(ctx, app, &c.Server, r)
}

// Run follows a replay.
func (c *replayWatch) Run(ctx context.Context, app *kong.Context) error {
	r, err := c.find(ctx)
	if err != nil {
		return err
	}
	return watchReplay(ctx, app, &c.Server, r, c.Every)
}

// Run shows what a switch would change.
func (c *replayDiff) Run(ctx context.Context, app *kong.Context) error {
	r, err := c.find(ctx)
	if err != nil {
		return err
	}
	var diff jsontext.Value
	if err := c.call(ctx, http.MethodGet, "replays/"+r.ID+"/diff", url.Values{"limit": {strconv.Itoa(c.Limit)}}, nil, &diff); err != nil {
		return err
	}
	if c.JSON {
		return printValue(app.Stdout, diff)
	}
	var d struct {
		Verdict string `json:"verdict"`
		Items   []struct {
			Product     string       `json:"product_name"`
			Environment string       `json:"environment_name"`
			From        *cellContent `json:"from"`
			To          *cellContent `json:"to"`
		} `json:"items"`
		Next   *string `json:"next_cursor"`
		Tables []struct {
			Name    string `json:"name"`
			Added   int    `json:"added"`
			Removed int    `json:"removed"`
			Changed int    `json:"changed"`
		} `json:"tables"`
		Metrics *changedMetrics `json:"metrics"`
	}
	if err := json.Unmarshal(diff, &d); err != nil {
		return fmt.Errorf("read the diff: %w", err)
	}
	var b strings.Builder
	if d.Verdict == "equal" {
		b.WriteString("Nothing would change: the tables are equal.\n")
	}
	for _, t := range d.Tables {
		if t.Added+t.Removed+t.Changed > 0 {
			fmt.Fprintf(&b, "%-14s %10s added %10s removed %10s changed\n", t.Name, group(t.Added), group(t.Removed), group(t.Changed))
		}
	}
	for _, i := range d.Items {
		fmt.Fprintf(&b, "%s in %s: %s -> %s\n", i.Product, i.Environment, i.From, i.To)
	}
	if d.Next != nil {
		b.WriteString("There are more cells; --limit shows up to 500, the API all of them.\n")
	}
	if d.Metrics != nil && d.Verdict != "equal" {
		d.Metrics.write(&b)
	}
	_, err = io.WriteString(app.Stdout, b.String())
	return err
}

// changedMetrics are the delivery metrics that a switch would change.
type changedMetrics struct {
	Definition int             `json:"definition"`
	From       time.Time       `json:"from"`
	To         time.Time       `json:"to"`
	Reason     *string         `json:"reason"`
	Overall    []changedFigure `json:"overall"`
	Changed    int             `json:"products_changed"`
	Products   []struct {
		Name    string          `json:"product_name"`
		Figures []changedFigure `json:"figures"`
	} `json:"products"`
}

type changedFigure struct {
	Name string   `json:"name"`
	Unit string   `json:"unit"`
	Old  *float64 `json:"old"`
	New  *float64 `json:"new"`
}

func (m *changedMetrics) write(b *strings.Builder) {
	fmt.Fprintf(b, "metrics (definition %d) of %s to %s: ", m.Definition, m.From.Format(time.DateOnly), m.To.Format(time.DateOnly))
	switch {
	case m.Reason != nil:
		fmt.Fprintf(b, "not compared. %s\n", *m.Reason)
		return
	case len(m.Overall) == 0 && m.Changed == 0:
		b.WriteString("none would change\n")
		return
	}
	fmt.Fprintf(b, "those of %s products would change\n", group(m.Changed))
	write := func(what string, figures []changedFigure) {
		for _, f := range figures {
			fmt.Fprintf(b, "  %-24s %-28s %12s -> %-12s %s\n", what, f.Name, figure(f.Old), figure(f.New), f.Unit)
		}
	}
	write("all products", m.Overall)
	for _, p := range m.Products {
		write(p.Name, p.Figures)
	}
	if left := m.Changed - len(m.Products); left > 0 {
		fmt.Fprintf(b, "  and %s products more\n", group(left))
	}
}

// figure shows a number as short as it can be told from others.
func figure(v *float64) string {
	if v == nil {
		return "none"
	}
	return strconv.FormatFloat(*v, 'g', 6, 64)
}

type cellContent struct {
	Version    string `json:"version"`
	Deployment string `json:"deployment_id"`
}

func (c *cellContent) String() string {
	if c == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s (%s)", c.Version, c.Deployment)
}

// Run switches.
func (c *replaySwitch) Run(ctx context.Context, app *kong.Context) error {
	return c.decide(ctx, app, "switch", map[string]bool{"consent": c.Consent})
}

// Run undoes a switch.
func (c *replayUndo) Run(ctx context.Context, app *kong.Context) error {
	return c.decide(ctx, app, "undo", nil)
}

// Run cancels.
func (c *replayCancel) Run(ctx context.Context, app *kong.Context) error {
	return c.decide(ctx, app, "cancel", nil)
}

func (c *replayID) decide(ctx context.Context, app *kong.Context, what string, body any) error {
	r, err := c.find(ctx)
	if err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodPost, "replays/"+r.ID+"/"+what, nil, body, &r); err != nil {
		return err
	}
	if c.JSON {
		return printValue(app.Stdout, r.raw)
	}
	live := r.Previous
	if r.State == "switched" {
		live = r.Version
	}
	text := fmt.Sprintf("Replay %s is %s: version %d is live.", r.ID, r.State, live)
	if r.UndoUntil != nil {
		text += fmt.Sprintf(" `shipledger replay undo` goes back until %s.", r.UndoUntil.Format(time.RFC3339))
	}
	_, err = fmt.Fprintln(app.Stdout, text)
	return err
}

// lookEvery is how often a long replay is looked at: less often than the budget
// of an admin's token allows, half a look a second (contract 3.6).
const lookEvery = 3 * time.Second

// watchReplay shows progress until the replay is no longer made, and then what
// came of it. A server that is away for a moment is waited for.
func watchReplay(ctx context.Context, app *kong.Context, s *Server, r replayState, every time.Duration) error {
	var bar *progressbar.ProgressBar
	if f, ok := app.Stderr.(*os.File); ok && !s.JSON && term.IsTerminal(int(f.Fd())) {
		bar = progressbar.NewOptions64(100,
			progressbar.OptionSetWriter(f), progressbar.OptionSetWidth(30), progressbar.OptionSetPredictTime(false),
			progressbar.OptionSetElapsedTime(false), progressbar.OptionShowDescriptionAtLineEnd(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
		)
	}
	plain := time.Time{}
	for r.State == "running" || r.State == "verifying" || willSwitch(&r) {
		switch {
		case bar != nil:
			bar.ChangeMax64(int64(max(r.Total, 1)))
			bar.Describe(describeReplay(&r))
			_ = bar.Set64(int64(r.Events))
		case !s.JSON && time.Since(plain) >= plainEvery:
			plain = time.Now()
			_, _ = fmt.Fprintln(app.Stderr, describeReplay(&r))
		}
		if err := sleep(ctx, every); err != nil {
			return errors.New("interrupted: the replay goes on; see it again with `shipledger replay watch`")
		}
		every = min(every+every/2, max(every, lookEvery))
		if err := s.call(ctx, http.MethodGet, "replays/"+r.ID, nil, nil, &r); err != nil {
			if e, ok := errors.AsType[*refusedError](err); ok && !transient(e.Status) {
				return err
			}
			if ctx.Err() == nil && bar == nil && !s.JSON {
				_, _ = fmt.Fprintln(app.Stderr, err)
			}
		}
	}
	if bar != nil {
		_ = bar.Clear()
		_ = bar.Exit()
	}
	return showReplay(ctx, app, s, r)
}

// willSwitch tells whether the server is about to switch by itself.
func willSwitch(r *replayState) bool {
	return r.State == "ready" && r.Switch == "when_equal" && r.Account == nil && r.From == nil && r.Verdict != nil && *r.Verdict == "equal"
}

func describeReplay(r *replayState) string {
	if r.State == "verifying" {
		return group(r.Events) + " events, comparing"
	}
	if r.Total == 0 {
		return "starting"
	}
	text := fmt.Sprintf("%s of about %s events, %s/s", group(r.Events), group(r.Total), group(int(r.Rate)))
	text += fmt.Sprintf(", %.0f %%", 100*float64(r.Events)/float64(r.Total))
	if r.SecondsLeft != nil {
		text += fmt.Sprintf(", %s left", time.Duration(*r.SecondsLeft)*time.Second)
	}
	return text
}

// showReplay prints how a replay stands, and its certificate.
func showReplay(ctx context.Context, app *kong.Context, s *Server, r replayState) error {
	var certificate jsontext.Value
	if r.Verdict != nil {
		if err := s.call(ctx, http.MethodGet, "replays/"+r.ID+"/certificate", nil, nil, &certificate); err != nil {
			return err
		}
	}
	if s.JSON {
		all := map[string]jsontext.Value{"replay": r.raw}
		if certificate != nil {
			all["certificate"] = certificate
		}
		text, err := json.Marshal(all, json.Deterministic(true))
		if err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return printValue(app.Stdout, text)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %s\n%-12s %s\n%-12s %d, beside %d\n", "replay", r.ID, "state", r.State, "version", r.Version, r.Previous)
	switch {
	case r.Reason != nil:
		fmt.Fprintf(&b, "%-12s %s\n", "reason", *r.Reason)
	case r.Verdict == nil:
		fmt.Fprintf(&b, "%-12s %s\n", "progress", describeReplay(&r))
	default:
		var c certificateState
		if err := json.Unmarshal(certificate, &c); err != nil {
			return fmt.Errorf("read the certificate: %w", err)
		}
		c.write(&b, *r.Verdict)
	}
	b.WriteString(nextStep(&r))
	_, err := io.WriteString(app.Stdout, b.String())
	return err
}

func (c *certificateState) write(b *strings.Builder, verdict string) {
	fmt.Fprintf(b, "%-12s %s\n%-12s %s to %s\n%-12s %s, of them %s deployments\n%-12s %.1f (%s events/s), live waited %.0f ms\n",
		"verdict", verdict, "compared", c.From, c.To, "events", group(c.Events), group(c.Deployments),
		"seconds", c.Seconds, group(int(float64(c.Events)/max(c.Seconds, 0.001))), c.StoodStill*1000)
	if c.Reason != nil {
		fmt.Fprintf(b, "%-12s %s\n", "reason", *c.Reason)
	}
	for _, t := range c.Tables {
		same := "equal"
		if t.HashOld != t.HashNew {
			same = "DIFFERENT"
		}
		fmt.Fprintf(b, "  %-14s %12s rows  %s  %s\n", t.Name, group(t.Rows), t.HashNew, same)
	}
	f := c.First
	if f == nil {
		return
	}
	fmt.Fprintf(b, "first difference in %s", f.Table)
	if f.Account == "" {
		b.WriteString(", of another account\n")
		return
	}
	fmt.Fprintf(b, " at %v\n", f.Key)
	for _, column := range f.Columns {
		fmt.Fprintf(b, "  %-14s %q -> %q\n", column, f.Old[column], f.New[column])
	}
	switch {
	case f.Old == nil:
		b.WriteString("  the live tables have no such row\n")
	case f.New == nil:
		b.WriteString("  the rebuilt tables have no such row\n")
	}
	if f.Event != nil {
		fmt.Fprintf(b, "  behind it: %s of %s at %s\n", f.Event.Type, f.Event.Subject, f.Event.Position)
	}
}

func nextStep(r *replayState) string {
	switch {
	case r.State == "switched" && r.UndoUntil != nil:
		return fmt.Sprintf("It is live. `shipledger replay undo` goes back until %s.\n", r.UndoUntil.Format(time.RFC3339))
	case r.State != "ready" || r.Account != nil || r.From != nil:
		return ""
	case r.Verdict != nil && *r.Verdict == "equal":
		return "Switch with `shipledger replay switch`, or drop it with `shipledger replay cancel`.\n"
	}
	return "See what would change with `shipledger replay diff`; then `shipledger replay switch --consent` or `shipledger replay cancel`.\n"
}

func printValue(w io.Writer, v jsontext.Value) error {
	if err := v.Indent(); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	_, err := fmt.Fprintf(w, "%s\n", v)
	return err
}
