// Package cli is the part of the shipledger command that speaks to a server as
// any client does: over HTTP, with a token, through the published contract.
//
// It exists apart from the services so that what loads a history into a running
// server — a real one from a file, or the generated one of a demonstration —
// has no way around the public API: it is decided, refused and recorded like
// what everybody else sends.
//
//	Import ── Lines ──┐
//	                  ├─ Item ─▶ Load ──▶ POST /events/batch?backfill=true
//	   DemoHistory ───┘
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/alecthomas/kong"
)

// Import is the command that loads a history from a file. The application that
// embeds it binds a context.Context; when that ends, the import ends too, and
// the server may still store the batch that was on its way.
//
// No file remembers how far it came. The server answers what it already has as
// a duplicate, so running the command again resumes it, repairs it, or loads
// what was added to the file since.
type Import struct {
	File      string        `arg:"" help:"History to load: one JSON object a line, plain or gzip. - reads standard input."`
	URL       string        `env:"SHIPLEDGER_URL" default:"http://127.0.0.1:8080" help:"Address of the server."`
	Token     string        `env:"SHIPLEDGER_TOKEN" help:"Token with the scope admin. Prefer the variable: flags can be seen by others on the machine."`
	JSON      bool          `name:"json" help:"Print the result as JSON, without progress."`
	BatchSize int           `default:"1000" help:"Events a call, 1 to 1000."`
	RetryFor  time.Duration `default:"5m" help:"Give up when the server has taken nothing for this long."`

	TLS TLS `embed:""`
}

// callTimeout is far above what a batch takes; it is for a connection that went dead.
const callTimeout = 2 * time.Minute

// Validate is called by kong before Run.
func (c *Import) Validate() error {
	if c.BatchSize < 1 || c.BatchSize > MaxBatch {
		return fmt.Errorf("--batch-size %d: the server takes 1 to %d events a call", c.BatchSize, MaxBatch)
	}
	return nil
}

// Run loads the file and prints what came of it. It fails if a line was
// refused; every other line is loaded all the same.
func (c *Import) Run(ctx context.Context, app *kong.Context) error {
	if c.Token == "" {
		return errors.New("no token: set SHIPLEDGER_TOKEN to one with the scope admin, " + whereToken)
	}
	client, err := c.TLS.client()
	if err != nil {
		return err
	}
	file, size, err := c.open()
	if err != nil {
		return err
	}
	closeFile := func() { _ = file.Close() }  // it is only read
	defer context.AfterFunc(ctx, closeFile)() // a pipe may have nothing to say for long
	defer closeFile()

	source := &meter{Reader: file}
	lines := NewLines(source)
	out := newReport(app.Stdout, app.Stderr, c.JSON, source, size)
	sum, err := Load(ctx, client, c.URL, c.Token, lines.All(), Options{
		BatchSize: c.BatchSize,
		RetryFor:  c.RetryFor,
		Progress:  out.progress,
		Waiting:   out.waiting,
		Refused:   out.refused,
	})
	if err == nil {
		err = lines.Err()
	}
	switch {
	case err == nil && sum.Refused > 0:
		err = fmt.Errorf("%d of %d lines were refused and the rest is loaded: mend them and run the same command again",
			sum.Refused, sum.Events())
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted: run the same command again for the rest; what is loaded answers as a duplicate")
	}
	if perr := out.finish(sum, err); perr != nil && err == nil {
		err = fmt.Errorf("print the result: %w", perr)
	}
	return err
}

// open gives the source and its size in bytes, -1 where that is not known.
func (c *Import) open() (*os.File, int64, error) {
	if c.File == "-" {
		return os.Stdin, -1, nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, 0, fmt.Errorf("open the history: %w", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		_ = f.Close()
		return nil, 0, fmt.Errorf("open the history: %w", err)
	case info.IsDir():
		_ = f.Close()
		return nil, 0, fmt.Errorf("%s is a directory: name a file of one JSON object a line", c.File)
	case !info.Mode().IsRegular():
		return f, -1, nil
	}
	return f, info.Size(), nil
}
