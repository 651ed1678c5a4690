package separate_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go"
	"github.com/nats-io/nats.go"

	"github.com/shipledger/shipledger/integration/separate"
	"github.com/shipledger/shipledger/pkg/tlsfiles"
	"github.com/shipledger/shipledger/pkg/tlsfiles/tlsfilestest"
)

// Every connection of a whole system is over TLS, and between processes both sides show
// a certificate of one authority. Whoever has none of it, or speaks plain text, gets
// nothing from any of them, on the same machine as well.
func TestEveryConnectionIsEncryptedAndBothSidesAreKnown(t *testing.T) {
	w := startWith(t, separate.Config{TLS: true, Counts: map[string]int{"projector": 2}})
	var made struct {
		ID string `json:"id"`
	}
	answered := func(method, path, token, body string, into any) {
		t.Helper()
		w.eventually(method+" "+path, func() error {
			_, err := w.ask(method, path, token, body, into)
			return err
		})
	}
	answered(http.MethodPost, "/deployment-events/", w.key,
		`{"product_name":"secret","version":"1.0.0","environment_name":"production","status":"success","invoke_id":"1"}`, &made)
	var list struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	answered(http.MethodGet, "/deployments/?product=secret&min_position="+w.position, w.pat, "", &list)
	if len(list.Items) != 1 || list.Items[0].ID != made.ID {
		t.Errorf("read %+v, made %s", list, made.ID)
	}
	// An agent's question goes from the front door to mcp, and from there to query; one
	// about rebuilds to whichever projector is asked, and from there to the one that leads.
	var answer struct {
		Result struct {
			IsError bool `json:"isError"`
		} `json:"result"`
	}
	w.eventually("an agent is answered", func() error {
		answer.Result.IsError = false
		_, err := w.ask(http.MethodPost, "/mcp", w.pat,
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_environments","arguments":{}}}`, &answer)
		if err == nil && answer.Result.IsError {
			err = fmt.Errorf("it is answered %+v", answer)
		}
		return err
	})
	for range 4 {
		var projections struct{}
		answered(http.MethodGet, "/projections/", w.pat, "", &projections)
	}
	others, err := tlsfilestest.New(t.TempDir(), "others")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := others.Issue("stranger", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	fellow, fellowKey, err := w.Authority.Issue("fellow", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	callers := map[string]*tls.Config{
		"plain text":               nil,
		"no certificate":           opened(t, tlsfiles.Config{Roots: w.Authority.File}).Client("127.0.0.1"),
		"one of another authority": opened(t, tlsfiles.Config{Roots: w.Authority.File, Cert: cert, Key: key}).Client("127.0.0.1"),
	}
	known := opened(t, tlsfiles.Config{Roots: w.Authority.File, Cert: fellow, Key: fellowKey}).Client("127.0.0.1")
	for _, name := range []string{"accounts", "ingest", "projector", "query", "mcp", "nats-server", "shipledger"} {
		for _, p := range w.Processes(name) {
			speak := speakers[name]
			if speak == nil {
				speak = speakHTTP
			}
			for who, cfg := range callers {
				if said, err := speak(t.Context(), p.Addr, cfg); err == nil {
					t.Errorf("%s answers one with %s: %s", name, who, said)
				}
			}
			if _, err := speak(t.Context(), p.Addr, known); err != nil {
				t.Errorf("%s refuses one of the authority: %v", name, err)
			}
		}
	}
	// The front door is for everybody, over TLS alone, and its cookies are for TLS.
	door := w.Processes("console")[0]
	if said, err := speakHTTP(t.Context(), door.Addr, nil); err == nil {
		t.Errorf("the front door answers plain text: %s", said)
	}
	w.renewed(door)
	w.closed()
}

// renewed replaces the certificate of the front door, which then shows the new one.
func (w *town) renewed(door *separate.Process) {
	w.t.Helper()
	serial := func() string {
		files := opened(w.t, tlsfiles.Config{Roots: w.Authority.File})
		conn, err := files.DialContext(w.t.Context(), "tcp", door.Addr)
		if err != nil {
			w.t.Fatal(err)
		}
		defer conn.Close()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	if _, _, err := w.Authority.Issue("console", "127.0.0.1"); err != nil {
		w.t.Fatal(err)
	}
	if serial() == before {
		w.t.Error("the front door shows the certificate of before")
	}
}

func opened(t *testing.T, cfg tlsfiles.Config) *tlsfiles.Files {
	t.Helper()
	f, err := tlsfiles.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// speakers try what is not HTTP. Each gives what was said, or why nothing was.
var speakers = map[string]func(ctx context.Context, addr string, secure *tls.Config) (string, error){
	"nats-server": speakNATS, "shipledger": speakClickHouse,
}

func speakHTTP(ctx context.Context, addr string, secure *tls.Config) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if secure != nil {
		conn = tls.Client(conn, secure)
	}
	if _, err := io.WriteString(conn, "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK { // in plain text it is told that this is TLS
		return "", fmt.Errorf("%s: %s", res.Status, text)
	}
	return string(text), err
}

func speakNATS(_ context.Context, addr string, secure *tls.Config) (string, error) {
	if secure == nil { // the library would go over to TLS, as the server asks for
		conn, err := net.Dial("tcp", addr) //nolint:noctx // of this machine: at once or never
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "CONNECT {\"verbose\":true}\r\nPING\r\n"); err != nil {
			return "", err
		}
		text, err := io.ReadAll(conn) // what it is, and then why it ends
		if err == nil && !strings.Contains(string(text), "PONG") && !strings.Contains(string(text), "+OK") {
			err = errors.New(string(text))
		}
		return string(text), err
	}
	nc, err := nats.Connect("tls://"+addr, nats.Secure(secure), nats.NoReconnect(), nats.Timeout(patience))
	if err != nil {
		return "", err
	}
	defer nc.Close()
	return nc.ConnectedServerId(), nc.FlushTimeout(patience)
}

func speakClickHouse(ctx context.Context, addr string, secure *tls.Config) (string, error) {
	client, err := ch.Dial(ctx, ch.Options{Address: addr, TLS: secure, User: "nobody", Password: "nothing", DialTimeout: patience})
	if err == nil {
		return "it let us in", client.Close()
	}
	// The engine itself refuses this user; whoever hears it was let through to it.
	if _, answered := errors.AsType[*ch.Exception](err); answered {
		return err.Error(), nil
	}
	return "", err
}
