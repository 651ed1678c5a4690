package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/shipledger/shipledger/pkg/logarchive"
)

// LogExport is the command that fetches the log of a running server into a file.
type LogExport struct {
	Out   string `short:"o" required:"" type:"path" help:"File to write; .gz or .zst packs it. It appears when it is whole."`
	URL   string `env:"SHIPLEDGER_URL" default:"http://127.0.0.1:8080" help:"Address of the server."`
	Token string `env:"SHIPLEDGER_TOKEN" help:"Token with the scope admin; of the first account for the whole log. Prefer the variable: flags can be seen by others on the machine."`
	JSON  bool   `name:"json" help:"Print the result as JSON, without progress."`

	TLS TLS `embed:""`
}

// Run exports. What was fetched is checked while it is written, so that a file
// that stands under its name is sound.
func (c *LogExport) Run(ctx context.Context, app *kong.Context) (err error) {
	if c.Token == "" {
		return errors.New("no token: set SHIPLEDGER_TOKEN to one with the scope admin, " + whereToken)
	}
	began := time.Now()
	res, err := c.fetch(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it is only read
	file, err := logarchive.Create(c.Out)
	if err != nil {
		return err
	}
	bar := newCounter(app.Stderr, c.JSON, -1)
	checked, result, err := receive(io.TeeReader(io.TeeReader(res.Body, bar), file))
	bar.done()
	if err != nil {
		return errors.Join(fmt.Errorf("export the log: %w; nothing was written", err), file.Discard())
	}
	if err := file.Commit(); err != nil {
		return err
	}
	info, err := os.Stat(c.Out)
	if err != nil {
		return err
	}
	out := exported{File: c.Out, Bytes: info.Size(), Seconds: time.Since(began).Seconds(), Checked: checked, Streams: result.Streams, Key: result.Key}
	if c.JSON {
		return printJSON(app.Stdout, out)
	}
	_, err = fmt.Fprintf(app.Stdout, "%s: %s bytes in %.1f s\n", out.File, group(int(out.Bytes)), out.Seconds)
	if err != nil || !checked {
		return err
	}
	printStreams(app.Stdout, result)
	_, err = fmt.Fprintf(app.Stdout, "Keep the key of checkpoints elsewhere, to verify with: %s\n", result.Key)
	return err
}

// exported is the result of an export.
type exported struct {
	File    string           `json:"file"`
	Bytes   int64            `json:"bytes"`
	Seconds float64          `json:"seconds"`
	Checked bool             `json:"checked"` // false for the log of one account, which has no tree
	Streams []logarchive.End `json:"streams,omitzero"`
	Key     string           `json:"key,omitzero"`
}

func (c *LogExport) fetch(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.URL, "/")+"/log/export", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("export the log: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	client, err := c.TLS.client()
	if err != nil {
		return nil, err
	}
	client.Timeout = 0 // a log takes as long as it takes; the server ends what stands still
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("export the log: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
		_ = res.Body.Close()
		return nil, fmt.Errorf("the server answers %s: %s", res.Status, text)
	}
	return res, nil
}

// receive reads an export to its end. The log of one account has no tree to
// check, and must have its last line.
func receive(src io.Reader) (checked bool, _ logarchive.Result, err error) {
	in := bufio.NewReaderSize(src, 1<<16)
	first, err := in.Peek(len(`{"format":"` + logarchive.AccountFormat))
	if err != nil {
		return false, logarchive.Result{}, err
	}
	if !strings.HasSuffix(string(first), logarchive.AccountFormat) {
		result, err := logarchive.Scan(in, logarchive.Expect{}, nil)
		if err == nil && !result.OK() {
			err = &logarchive.FaultyError{Result: result}
		}
		return true, result, err
	}
	last := ""
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, logarchive.Result{}, err
		}
		last = line
	}
	if !strings.HasPrefix(last, `{"end":true`) {
		return false, logarchive.Result{}, errors.New("the answer was cut off")
	}
	return false, logarchive.Result{}, nil
}

// LogVerify is the command that checks an archive, or a proof, offline.
type LogVerify struct {
	File       string   `arg:"" type:"existingfile" help:"Archive to check, or a proof with --proof."`
	Key        string   `env:"SHIPLEDGER_LOG_PUBLIC_KEY" help:"Public key of the ledger's checkpoints, as the first export printed it."`
	Checkpoint []string `type:"existingfile" help:"File with an earlier checkpoint that the archive must continue; may be given often."`
	Proof      bool     `help:"FILE is a proof, made by log prove."`
	JSON       bool     `name:"json" help:"Print the result as JSON, without progress."`
}

// ErrNotSound says that a verification found faults; they are printed.
var ErrNotSound = errors.New("the archive is not what was written")

// Run verifies. It fails if anything is wrong.
func (c *LogVerify) Run(app *kong.Context) error {
	var expect logarchive.Expect
	var err error
	if c.Key != "" {
		if expect.Key, err = logarchive.ParsePublicKey(c.Key); err != nil {
			return err
		}
	}
	if c.Proof {
		return c.proof(app, expect.Key)
	}
	for _, name := range c.Checkpoint {
		text, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read a checkpoint: %w", err)
		}
		expect.Checkpoints = append(expect.Checkpoints, string(text))
	}
	began := time.Now()
	result, err := scanFile(app, c.File, c.JSON, expect)
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(app.Stdout, result); err != nil {
			return err
		}
	} else {
		printResult(app.Stdout, &result, time.Since(began))
	}
	if !result.OK() {
		return ErrNotSound
	}
	return nil
}

func (c *LogVerify) proof(app *kong.Context, key logarchive.PublicKey) error {
	if key.IsZero() {
		return errors.New("a proof needs the public key of the ledger: --key")
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("read the proof: %w", err)
	}
	var p logarchive.Proof
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("read the proof: %w", err)
	}
	_, at, err := p.Verify(key)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(app.Stdout, struct {
			Event  string `json:"event"`
			ID     string `json:"id"`
			Stream string `json:"stream"`
			Size   uint64 `json:"size"`
		}{p.Event, p.ID, at.Stream, at.Size})
	}
	_, err = fmt.Fprintf(app.Stdout, "The event %s (%s) stands in the log whose first %s frames were signed.\n", p.ID, p.Event, group(int(at.Size)))
	return err
}

// LogProve is the command that takes the proof of one event out of an archive.
type LogProve struct {
	File  string `arg:"" type:"existingfile" help:"Archive that holds the event, with signed ends."`
	Event string `arg:"" help:"Id of the event, or its position, such as t0.812.3."`
	Out   string `short:"o" type:"path" help:"File to write; default: the standard output."`
}

// Run makes the proof.
func (c *LogProve) Run(app *kong.Context) error {
	p, err := logarchive.Prove(func() (io.ReadCloser, error) { return logarchive.Open(c.File) }, c.Event, logarchive.Expect{})
	if err != nil {
		return err
	}
	if c.Out == "" {
		return printJSON(app.Stdout, p)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(c.Out, append(text, '\n'), 0o600)
}

// scanFile checks an archive and shows how far it is.
func scanFile(app *kong.Context, name string, quiet bool, expect logarchive.Expect) (logarchive.Result, error) {
	src, err := logarchive.Open(name)
	if err != nil {
		return logarchive.Result{}, err
	}
	defer func() { _ = src.Close() }() // it is only read
	size := int64(-1)
	if info, err := os.Stat(name); err == nil && !strings.HasSuffix(name, ".gz") && !strings.HasSuffix(name, ".zst") {
		size = info.Size()
	}
	bar := newCounter(app.Stderr, quiet, size)
	defer bar.done()
	return logarchive.Scan(io.TeeReader(src, bar), expect, nil)
}

func printResult(w io.Writer, r *logarchive.Result, took time.Duration) {
	for _, f := range r.Faults {
		_, _ = fmt.Fprintln(w, f)
	}
	if !r.OK() {
		return
	}
	printStreams(w, *r)
	whose := "the archive's own key: give --key to know whose it is"
	if r.Trusted {
		whose = "the key that was given"
	}
	switch {
	case len(r.Signed) > 0:
		_, _ = fmt.Fprintf(w, "sound in %.1f s; signed with %s; %d checkpoints fit\n", took.Seconds(), whose, r.Checked)
	default:
		_, _ = fmt.Fprintf(w, "sound in %.1f s; NOT signed: it shows damage, and not who made it\n", took.Seconds())
	}
}

func printStreams(w io.Writer, r logarchive.Result) {
	for _, e := range r.Streams {
		_, _ = fmt.Fprintf(w, "%-4s %12s frames %12s events  root %s\n", e.Stream, group(int(e.Frames)), group(int(e.Events)), e.Root)
	}
}

func printJSON(w io.Writer, v any) error {
	if err := json.MarshalWrite(w, v, jsontext.WithIndent("  ")); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// counter shows how many bytes have passed, on a terminal.
type counter struct{ bar *progressbar.ProgressBar }

func newCounter(w io.Writer, quiet bool, size int64) *counter {
	f, ok := w.(*os.File)
	if quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return &counter{}
	}
	return &counter{progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
	)}
}

// Write counts; it never fails.
func (c *counter) Write(b []byte) (int, error) {
	if c.bar != nil {
		_ = c.bar.Add(len(b))
	}
	return len(b), nil
}

func (c *counter) done() {
	if c.bar != nil {
		_ = c.bar.Clear()
		_ = c.bar.Exit()
	}
}
