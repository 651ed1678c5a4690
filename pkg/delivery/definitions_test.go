package delivery_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/delivery"
	"github.com/shipledger/shipledger/pkg/event"
)

var epoch = time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)

// when reads days+hours.
func when(t *testing.T, text string) time.Time {
	t.Helper()
	days, hours, _ := strings.Cut(text, "+")
	d, err := strconv.Atoi(days)
	h, err2 := strconv.Atoi(hours)
	if err != nil || err2 != nil {
		t.Fatalf("%q is no moment", text)
	}
	return epoch.Add(time.Duration(24*d+h) * time.Hour)
}

// Each example of DEFINITIONS.md comes out as it says.
func TestTheWorkedExamplesOfTheDefinitionsHold(t *testing.T) {
	text, err := os.Open("DEFINITIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	title, examples := "", 0
	var lines []string
	inside := false
	for s := bufio.NewScanner(text); s.Scan(); {
		line := s.Text()
		switch {
		case strings.HasPrefix(line, "### "):
			title = strings.TrimPrefix(line, "### ")
		case line == "```example":
			inside, lines = true, nil
		case line == "```" && inside:
			inside = false
			examples++
			example := lines
			t.Run(title, func(t *testing.T) { runExample(t, example) })
		case inside:
			lines = append(lines, line)
		}
	}
	if examples < 10 {
		t.Errorf("only %d examples were found", examples)
	}
}

func runExample(t *testing.T, lines []string) {
	t.Helper()
	w := delivery.Window{From: epoch.Add(-time.Hour), To: epoch.AddDate(1, 0, 0)}
	builds := map[event.VersionID]time.Time{}
	product := event.ProductIDOf("acme", "svc")
	var runs []delivery.Run
	var tally delivery.Tally
	judged := false
	for _, line := range lines {
		words := strings.Fields(line)
		switch words[0] {
		case "window":
			w = delivery.Window{From: when(t, words[1]), To: when(t, words[2])}
		case "=":
			if !judged {
				delivery.Judge(runs, builds, w, tally.Add)
				judged = true
			}
			if got, want := figure(&tally, delivery.Metric(words[1])), strings.Join(words[2:], " "); got != want {
				t.Errorf("%s is %s, want %s; rules %v", words[1], got, want, tally.Rules(delivery.Metric(words[1])))
			}
		default:
			status, ok := event.StatusOf(words[2])
			if !ok {
				t.Fatalf("%q", line)
			}
			r := delivery.Run{
				ID: ulid.ULID{15: byte(len(runs) + 1)}, At: when(t, words[0]), Version: words[1], VersionID: event.VersionIDOf("acme", product, words[1]),
				Status: status, Mode: event.Live, Offset: event.Offset(len(runs) + 1),
			}
			for _, word := range words[3:] {
				name, value, _ := strings.Cut(word, "=")
				switch name {
				case "commit":
					r.CommittedAt = when(t, value)
				case "built":
					builds[r.VersionID] = when(t, value)
				case "test":
					r.Mode = event.Test
				}
			}
			runs = append(runs, r)
		}
	}
}

// figure writes a metric as the examples do.
func figure(t *delivery.Tally, m delivery.Metric) string {
	counted, hit := t.Counted(m)
	switch m {
	case delivery.DeploymentFrequency:
		return strconv.Itoa(counted)
	case delivery.ChangeFailureRate, delivery.ReworkRate:
		return fmt.Sprintf("%d/%d", hit, counted)
	case delivery.LeadTime, delivery.RecoveryTime:
	}
	if counted == 0 {
		return "none"
	}
	var out []string
	for i := range counted { // each value once, by its own percentile
		v, _ := t.Percentile(m, (100*(i+1))/counted)
		out = append(out, strings.TrimSuffix(v.String(), "0m0s"))
	}
	return strings.Join(out, " ")
}
