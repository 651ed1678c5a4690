package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

const (
	usualWindow = 30 * 24 * time.Hour
	maxBuckets  = 1000
)

// metricsQuestion is what both operations on metrics ask.
type metricsQuestion struct {
	window delivery.Window
	cells  readmodel.CellFilter
	week   bool // a series by week instead of day
}

func (s *Service) metricsQuestion(r *httpapi.Request, at httpapi.AsOf) (metricsQuestion, error) {
	q := metricsQuestion{
		window: delivery.Window{From: r.QueryTime("from"), To: r.QueryTime("to")},
		week:   r.QueryString("period") == "week",
	}
	q.cells.Team = r.QueryString("team")
	var err error
	if q.cells.Environment, q.cells.Environments, err = s.columnFilter(r); err != nil {
		return q, err
	}
	if names := r.QueryList("product"); len(names) == 1 && !isPattern(names[0]) {
		if q.cells.Product, err = s.model.ProductNamed(r.Context(), r.Identity.Account, names[0]); err != nil {
			return q, err
		}
	} else {
		q.cells.Products = names
	}
	if q.window.To.IsZero() { // the end of the day of the newest event, so that pages of evidence agree
		end := time.Unix(0, 0)
		if at.Time != nil {
			end = *at.Time
		}
		q.window.To = end.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	}
	if q.window.From.IsZero() {
		q.window.From = q.window.To.Add(-usualWindow)
	}
	wrong := func(name, msg string) error {
		return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: []string{"query", name}, Msg: msg, Type: "value_error"}}}
	}
	if !q.window.From.Before(q.window.To) {
		return q, wrong("to", "to must be after from")
	}
	if q.bucket(q.window.To.Add(-1)) >= maxBuckets {
		return q, wrong("period", fmt.Sprintf("the window has more than %d of these; ask for a shorter one, or by week", maxBuckets))
	}
	return q, nil
}

// start gives the beginning of the day, or of the week, that holds t, in UTC.
func (q *metricsQuestion) start(t time.Time) time.Time {
	day := t.UTC().Truncate(24 * time.Hour)
	if q.week {
		return day.AddDate(0, 0, -(int(day.Weekday())+6)%7) // weeks begin on Monday
	}
	return day
}

func (q *metricsQuestion) length() time.Duration {
	if q.week {
		return 7 * 24 * time.Hour
	}
	return 24 * time.Hour
}

// bucket gives which day or week of the window t is in.
func (q *metricsQuestion) bucket(t time.Time) int {
	return int(q.start(t).Sub(q.start(q.window.From)) / q.length())
}

// judged is a judgement and the cell that it is of.
type judged struct{ readmodel.Judged }

// judge hands the judgements of every chosen cell to each, in the order of cells
// and of deployments in them.
func (s *Service) judge(ctx context.Context, account string, q metricsQuestion, each func(judged) error) error {
	return readmodel.Judge(ctx, s.model, account, q.cells, q.window, func(j readmodel.Judged) error { return each(judged{j}) })
}

type metrics struct {
	Definition int        `json:"definition"`
	From       *time.Time `json:"from"`
	To         *time.Time `json:"to"`
	Period     string     `json:"period"`
	figures    `json:",inline"`
	Rules      metricRules    `json:"rules"`
	Series     []metricBucket `json:"series"`
	AsOf       httpapi.AsOf   `json:"as_of"`
}

// metricRules counts, for each metric, the deployments by rule.
type metricRules map[delivery.Metric]map[delivery.Rule]int

type metricBucket struct {
	From    *time.Time `json:"from"`
	To      *time.Time `json:"to"`
	figures `json:",inline"`
}

type figures struct {
	Frequency frequency    `json:"deployment_frequency"`
	Lead      distribution `json:"lead_time"`
	Failures  rate         `json:"change_failure_rate"`
	Recovery  distribution `json:"recovery_time"`
	Rework    rate         `json:"rework_rate"`
}

type frequency struct {
	Count  int     `json:"count"`
	PerDay float64 `json:"per_day"`
}

// distribution is of times in seconds; the percentiles are null without any.
type distribution struct {
	Count int      `json:"count"`
	P50   *float64 `json:"p50"`
	P75   *float64 `json:"p75"`
	P90   *float64 `json:"p90"`
	P95   *float64 `json:"p95"`
}

// rate is null where nothing counts.
type rate struct {
	Count int      `json:"count"`
	Hits  int      `json:"hits"`
	Rate  *float64 `json:"rate"`
}

func figuresOf(t *delivery.Tally, w delivery.Window) figures {
	times := func(m delivery.Metric) distribution {
		n, _ := t.Counted(m)
		at := func(p int) *float64 {
			v, ok := t.Percentile(m, p)
			if !ok {
				return nil
			}
			seconds := v.Seconds()
			return &seconds
		}
		return distribution{n, at(50), at(75), at(90), at(95)}
	}
	share := func(m delivery.Metric) rate {
		n, hits := t.Counted(m)
		share, ok := t.Rate(m)
		if !ok {
			return rate{}
		}
		return rate{n, hits, &share}
	}
	n, _ := t.Counted(delivery.DeploymentFrequency)
	return figures{
		Frequency: frequency{n, t.PerDay(delivery.DeploymentFrequency, w)},
		Lead:      times(delivery.LeadTime), Failures: share(delivery.ChangeFailureRate),
		Recovery: times(delivery.RecoveryTime), Rework: share(delivery.ReworkRate),
	}
}

// getDora answers with the five metrics, as a whole and as a series.
func (s *Service) getDora(w http.ResponseWriter, r *httpapi.Request) error {
	if r.QueryTime("from").IsZero() || r.QueryTime("to").IsZero() { // its window goes with the newest event of any account
		at, err := s.fresh(r)
		if err != nil {
			return err
		}
		answer, err := s.dora(r, at)
		if err != nil {
			return err
		}
		return tag(w, r, at, answer)
	}
	read, done, err := s.again(w, r)
	if err != nil || done {
		return err
	}
	answer, err := s.dora(r, read.at)
	if err != nil {
		return err
	}
	return read.answer(w, answer)
}

func (s *Service) dora(r *httpapi.Request, at httpapi.AsOf) (*metrics, error) {
	q, err := s.metricsQuestion(r, at)
	if err != nil {
		return nil, err
	}
	var whole delivery.Tally
	series := make([]delivery.Tally, q.bucket(q.window.To.Add(-1))+1)
	err = s.judge(r.Context(), r.Identity.Account, q, func(j judged) error {
		whole.Add(j.Judgement)
		series[q.bucket(j.Run.At)].Add(j.Judgement)
		return nil
	})
	if err != nil {
		return nil, err
	}
	answer := &metrics{
		Definition: delivery.Definition, From: httpapi.Moment(q.window.From), To: httpapi.Moment(q.window.To), Period: "day",
		figures: figuresOf(&whole, q.window), Rules: metricRules{}, Series: make([]metricBucket, len(series)),
	}
	if q.week {
		answer.Period = "week"
	}
	for _, m := range delivery.Metrics {
		answer.Rules[m] = whole.Rules(m)
		if answer.Rules[m] == nil {
			answer.Rules[m] = map[delivery.Rule]int{}
		}
	}
	begin := q.start(q.window.From)
	for i := range series {
		part := delivery.Window{From: begin.Add(time.Duration(i) * q.length()), To: begin.Add(time.Duration(i+1) * q.length())}
		if part.From.Before(q.window.From) {
			part.From = q.window.From
		}
		if part.To.After(q.window.To) {
			part.To = q.window.To
		}
		answer.Series[i] = metricBucket{httpapi.Moment(part.From), httpapi.Moment(part.To), figuresOf(&series[i], part)}
	}
	return answer, nil
}

type evidence struct {
	DeploymentID    string     `json:"deployment_id"`
	Counted         bool       `json:"counted"`
	Rule            string     `json:"rule"`
	Hit             bool       `json:"hit"`
	Seconds         *float64   `json:"seconds"`
	ProductName     string     `json:"product_name"`
	EnvironmentName string     `json:"environment_name"`
	Version         string     `json:"version"`
	At              *time.Time `json:"at"`
}

func evidenceItem(j *judged) evidence {
	e := evidence{
		DeploymentID: j.Run.ID.String(), Counted: j.Counted, Rule: string(j.Rule), Hit: j.Hit,
		ProductName: j.Cell.Product.Name, EnvironmentName: j.Cell.Environment.Name, Version: j.Run.Version, At: httpapi.Moment(j.Run.At),
	}
	if j.Timed {
		seconds := j.Value.Seconds()
		e.Seconds = &seconds
	}
	return e
}

// evidenceKey is the place of a deployment in the order of the evidence.
type evidenceKey struct {
	place readmodel.Place
	at    int64
	id    ulid.ULID
	begun bool // a page went before
}

func (j *judged) key() evidenceKey {
	return evidenceKey{
		place: readmodel.Place{Environment: j.Cell.Environment.ID, Product: j.Cell.Product.ID},
		at:    j.Run.At.UnixMilli(), id: j.Run.ID,
	}
}

func (k evidenceKey) text() string {
	return strings.Join([]string{k.place.Environment.String(), k.place.Product.String(), strconv.FormatInt(k.at, 10), k.id.String()}, "/")
}

func parseEvidenceKey(text string) (evidenceKey, error) {
	if text == "" {
		return evidenceKey{}, nil
	}
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		return evidenceKey{}, errors.New("not four parts")
	}
	environment, err := uuid.Parse(parts[0])
	product, err2 := uuid.Parse(parts[1])
	at, err3 := strconv.ParseInt(parts[2], 10, 64)
	id, err4 := ulid.ParseStrict(parts[3])
	return evidenceKey{readmodel.Place{Environment: event.EnvironmentID(environment), Product: event.ProductID(product)}, at, id, true},
		errors.Join(err, err2, err3, err4)
}

// before tells whether a page that ended at k had shown a deployment: those of
// one cell are in the order of At, and of one moment in that of the log, which
// the cell itself tells.
func (k *evidenceKey) before(j *judged) bool {
	if !k.begun {
		return true
	}
	at := j.key()
	if c := cmp.Or(readmodel.ComparePlaces(at.place, k.place), cmp.Compare(at.at, k.at)); c != 0 {
		return c > 0
	}
	if at.id == k.id {
		k.at-- // those that follow at the same moment were not shown
	}
	return false
}

var errPageFull = errors.New("the page is full")

// getDoraEvidence lists the deployments that a figure is made of, and those that
// it leaves out, each with its rule.
func (s *Service) getDoraEvidence(w http.ResponseWriter, r *httpapi.Request) error {
	metric := delivery.Metric(r.QueryString("metric"))
	if metric == "" {
		return &httpapi.ValidationError{Faults: []httpapi.FieldFault{{Loc: []string{"query", "metric"}, Msg: "field required", Type: "value_error.missing"}}}
	}
	at, err := s.fresh(r)
	if err != nil {
		return err
	}
	q, err := s.metricsQuestion(r, at)
	if err != nil {
		return err
	}
	after, err := parseEvidenceKey(r.After())
	if err != nil {
		return fault.New(fault.Unprocessable, "INVALID_CURSOR", "the cursor was not given by this list").Because(err)
	}
	q.cells.From = after.place
	rows := make([]judged, 0, r.Limit()+1)
	err = s.judge(r.Context(), r.Identity.Account, q, func(j judged) error {
		if j.Metric != metric || !after.before(&j) {
			return nil
		}
		if rows = append(rows, j); len(rows) > r.Limit() {
			return errPageFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errPageFull) {
		return err
	}
	rows, next := cut(rows, r.Limit(), func(j *judged) string { return j.key().text() })
	return tag(w, r, at, httpapi.NewList(r, show(rows, evidenceItem), next, httpapi.AsOf{}))
}
