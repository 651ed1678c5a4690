package cli_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/shipledger/shipledger/services/cli"
)

// shipledger runs a command line as the binary does.
func shipledger(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var app struct {
		Accounts   cli.Accounts   `cmd:""`
		Import     cli.Import     `cmd:""`
		Quarantine cli.Quarantine `cmd:""`
		Replay     cli.Replay     `cmd:""`
		Log        struct {
			Export cli.LogExport `cmd:""`
			Verify cli.LogVerify `cmd:""`
			Prove  cli.LogProve  `cmd:""`
		} `cmd:""`
	}
	var out, errOut bytes.Buffer
	k, err := kong.New(&app, kong.Writers(&out, &errOut), kong.BindTo(t.Context(), (*context.Context)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	command, err := k.Parse(args)
	if err != nil {
		return "", "", err
	}
	err = command.Run()
	return out.String(), errOut.String(), err
}
