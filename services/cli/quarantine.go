package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Quarantine are the commands about events that the read model could not apply.
type Quarantine struct {
	List    quarantineList    `cmd:"" help:"List what could not be applied, and what waits behind it."`
	Redrive quarantineRedrive `cmd:"" help:"Try events again, in order, with the code that runs now."`
	Discard quarantineDiscard `cmd:"" help:"Leave an event out of every read model. It stays in the log."`
}

type quarantineList struct {
	Server  `embed:""`
	State   string `enum:"quarantined,redriven,discarded,all" default:"quarantined" help:"quarantined, redriven, discarded or all."`
	Type    string `help:"Only events of this type."`
	Subject string `help:"Only events of this deployment or build."`
	Limit   int    `default:"100" help:"Events shown at most."`
}

type quarantineRedrive struct {
	Server `embed:""`
	IDs    []string `arg:"" optional:"" name:"id" help:"Places of events, such as t0.8123.17."`
	All    bool     `help:"All of the account."`
}

type quarantineDiscard struct {
	Server `embed:""`
	ID     string `arg:"" help:"The place of the event, such as t0.8123.17."`
	Reason string `required:"" help:"Why it is never to be applied."`
}

// asideState is an event in quarantine as the server shows it.
type asideState struct {
	ID      string  `json:"id"`
	Type    *string `json:"type"`
	Subject *string `json:"subject"`
	State   string  `json:"state"`
	Reason  *string `json:"reason"`
	Tries   int     `json:"attempts"`
}

// Run lists.
func (c *quarantineList) Run(ctx context.Context, app *kong.Context) error {
	query := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	for name, value := range map[string]string{"state": c.State, "type": c.Type, "subject": c.Subject} {
		if value != "" && value != "all" {
			query.Set(name, value)
		}
	}
	var list jsontext.Value
	if err := c.call(ctx, http.MethodGet, "quarantine/", query, nil, &list); err != nil {
		return err
	}
	if c.JSON {
		return printValue(app.Stdout, list)
	}
	var l struct {
		Items []asideState `json:"items"`
		Next  *string      `json:"next_cursor"`
	}
	if err := json.Unmarshal(list, &l); err != nil {
		return fmt.Errorf("read the quarantine: %w", err)
	}
	if len(l.Items) == 0 {
		_, err := fmt.Fprintln(app.Stdout, "Nothing.")
		return err
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "ID\tSTATE\tTYPE\tSUBJECT\tTRIES\tREASON") // into memory
	for _, i := range l.Items {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", i.ID, i.State, shown(i.Type), shown(i.Subject), i.Tries, shown(i.Reason))
	}
	_ = table.Flush()
	if l.Next != nil {
		b.WriteString("There are more; --limit shows up to 500, the API all of them.\n")
	}
	_, err := io.WriteString(app.Stdout, b.String())
	return err
}

// shown makes a text fit for one line of a terminal: it may quote what anybody sent.
func shown(text *string) string {
	if text == nil || *text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, *text)
}

// Run tries again.
func (c *quarantineRedrive) Run(ctx context.Context, app *kong.Context) error {
	if c.All == (len(c.IDs) > 0) {
		return errors.New("name the events to try again, or --all")
	}
	body := map[string]any{"all": true}
	if !c.All {
		body = map[string]any{"ids": c.IDs}
	}
	var answer jsontext.Value
	if err := c.call(ctx, http.MethodPost, "quarantine/redrive", nil, body, &answer); err != nil {
		return err
	}
	if c.JSON {
		return printValue(app.Stdout, answer)
	}
	var r struct {
		Redriven    int `json:"redriven"`
		Quarantined int `json:"quarantined"`
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	_, err := fmt.Fprintf(app.Stdout, "%s applied, %s still in quarantine.\n", group(r.Redriven), group(r.Quarantined))
	return err
}

// Run discards.
func (c *quarantineDiscard) Run(ctx context.Context, app *kong.Context) error {
	var answer jsontext.Value
	if err := c.call(ctx, http.MethodPost, "quarantine/"+url.PathEscape(c.ID)+"/discard", nil, map[string]string{"reason": c.Reason}, &answer); err != nil {
		return err
	}
	if c.JSON {
		return printValue(app.Stdout, answer)
	}
	_, err := fmt.Fprintf(app.Stdout, "The event at %s is discarded. It stays in the log.\n", c.ID)
	return err
}
