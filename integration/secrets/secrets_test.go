// Package secrets_test runs the whole system with known credentials, uses them
// rightly and wrongly, and then searches everything that it wrote.
package secrets_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/embedded/chserver"
	"github.com/shipledger/shipledger/pkg/embedded/chserver/chservertest"
	"github.com/shipledger/shipledger/pkg/embedded/natsserver"
	"github.com/shipledger/shipledger/pkg/lifecycle/lifecycletest"
	"github.com/shipledger/shipledger/services/all"
)

func TestMain(m *testing.M) { chservertest.Main(m) }

const credentialsFile = "bootstrap-credentials.json"

// first are the credentials that the first start makes.
type first struct {
	Key      string `json:"api_key"`
	PAT      string `json:"pat"`
	Admin    string `json:"admin_pat"`
	Email    string `json:"admin_email"`
	Password string `json:"admin_password"`
}

// written collects what a process says: its log at every level, and its answers.
type written struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *written) text() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.b.Bytes())
}

// Rows: VR-34, VF-06, VT-18
func TestASecretIsInOneAnswerAndNowhereElse(t *testing.T) {
	engine := chservertest.Engine(t)
	dir := t.TempDir()
	var log, answers written
	secrets := use(t, dir, &log, &answers)

	for name, secret := range secrets {
		for where, text := range map[string][]byte{"the log": log.text(), "an answer": answers.text()} {
			if i := bytes.Index(text, []byte(secret)); i >= 0 {
				t.Errorf("%s holds %s: …%q", where, name, text[max(0, i-80):i])
			}
		}
	}
	searchFiles(t, dir, secrets)
	searchStreams(t, filepath.Join(dir, "nats"), secrets)
	searchTables(t, engine, filepath.Join(dir, "clickhouse"), secrets)
}

// use runs the system, does with credentials what people do, and gives what is
// to be found nowhere: the random part of each.
func use(t *testing.T, dir string, log, answers *written) map[string]string {
	t.Helper()
	var base string
	app, err := all.New(all.Config{
		Data: dir, Addr: "127.0.0.1:0", Account: "main", NATSReplicas: 1, RateLimit: "off",
		Listening: func(a net.Addr) { base = "http://" + a.String() },
	}, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	defer lifecycletest.Run(t, app)()
	var own first
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(dir, credentialsFile))), &own); err != nil {
		t.Fatal(err)
	}
	c := caller{t: t, base: base, answers: answers}
	secrets := map[string]string{
		"the first key": randomPart(own.Key), "the first token": randomPart(own.PAT), "the admin's token": randomPart(own.Admin), "the password": own.Password,
	}

	key := c.once("POST", "/api-keys/", own.Admin, `{"name":"ci","expires":"30d"}`)
	token := c.once("POST", "/personal-access-tokens/", own.Admin, `{"name":"mine","expires":"30d"}`)
	heir := c.once("POST", "/api-keys/"+key["id"]+"/rotate", own.Admin, `{"grace":"1h"}`)
	secrets["a key"], secrets["a token"], secrets["a successor"] = randomPart(key["secret"]), randomPart(token["secret"]), randomPart(heir["secret"])
	imported := "vso_" + strings.Repeat("5c1e07b94d2a68f3", 3)
	c.send("POST", "/personal-access-tokens/import", own.Admin, `{"name":"old","expires":"30d","value":"`+imported+`"}`)
	secrets["an imported token"] = imported[4:]
	session := c.once("POST", "/auth/login", "", `{"email":"`+own.Email+`","password":"`+own.Password+`"}`)["token"]
	secrets["a session"] = session[strings.LastIndexByte(session, '.')+1:]
	invited := c.once("POST", "/users/", own.Admin, `{"email":"ada@acme.example","role":"developer"}`)
	if link := invited["link"]; link != "" {
		secrets["an invitation"] = link[strings.LastIndexByte(link, '/')+1:]
	}

	event := func(member string) string {
		return `{"product_name":"svc","version":"1","environment_name":"production","status":"success",` + member + `}`
	}
	for _, s := range []string{own.Key, key["secret"], heir["secret"], own.PAT, token["secret"], own.Admin, imported} {
		c.send("POST", "/deployment-events/", s, event(`"deployed_by":"ci"`))
		c.send("GET", "/deployments/", s, "")
		c.send("GET", "/nowhere", s, "")
		c.send("POST", "/deployment-events/", s, "{")
		c.send("POST", "/deployment-events/", s[:len(s)-1]+"x", event(`"deployed_by":"ci"`))
		c.send("POST", "/mcp", s, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
	}
	for _, s := range []string{own.Key, token["secret"]} { // in places where people put them by mistake
		c.send("GET", "/deployments/"+s, own.PAT, "")
		c.send("GET", "/"+s, own.PAT, "")
		c.send("POST", "/deployment-events/", own.Key, event(`"deployed_by":"`+s+`","extra_metadata":{"`+s+`":"`+s+`"}`))
		c.send("POST", "/deployment-events/", own.Key, event(`"deploy_url":"https://x.example/?key=`+s+`","invoke_id":"`+s+`"`))
		c.send("POST", "/build-events/", own.Key, event(`"error_message":"401 for `+s+`"`))
	}
	c.send("POST", "/auth/login", "", `{"email":"`+own.Email+`","password":"`+own.Password+`!"}`)
	c.send("POST", "/auth/logout", session, "")
	c.send("DELETE", "/api-keys/"+key["id"], own.Admin, "")
	c.send("GET", "/deployments/", key["secret"], "")
	for _, path := range []string{"/api-keys/", "/personal-access-tokens/", "/users/", "/events/?limit=500", "/deployments/", "/builds/", "/docs", "/docs/docs.js", "/openapi.json", "/health"} {
		c.send("GET", path, own.Admin, "")
	}
	position := c.position
	if a := c.send("GET", "/events/?min_position="+position, own.Admin, ""); a != http.StatusOK {
		t.Fatalf("the read model does not reach %s: %d", position, a)
	}
	return secrets
}

// caller sends requests and keeps what is answered.
type caller struct {
	t        *testing.T
	base     string
	answers  *written
	position string
}

func (c *caller) do(method, path, token, text string) (int, []byte) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw := must(io.ReadAll(resp.Body))
	if p := resp.Header.Get("X-Shipledger-Position"); strings.HasPrefix(p, "t0.") {
		c.position = p
	}
	for name, values := range resp.Header {
		if name != "Set-Cookie" { // the one answer that a session is in has it there too
			fmt.Fprintln(c.answers, name, values)
		}
	}
	return resp.StatusCode, raw
}

// patience is no expectation: only what hangs reaches it.
const patience = 3 * time.Minute

// send keeps the answer: no secret may be in it. A read model that is not there in
// time is asked again.
func (c *caller) send(method, path, token, text string) int {
	c.t.Helper()
	status, raw := c.do(method, path, token, text)
	for deadline := time.After(patience); status == http.StatusServiceUnavailable && bytes.Contains(raw, []byte("READ_MODEL_")); {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			c.t.Fatalf("%s: %d %s", method, status, raw)
		}
		status, raw = c.do(method, path, token, text)
	}
	if status >= 500 {
		c.t.Errorf("%s: %d %s", method, status, raw)
	}
	_, _ = c.answers.Write(raw)
	return status
}

// once gives the text members of the one answer that holds a secret.
func (c *caller) once(method, path, token, text string) map[string]string {
	c.t.Helper()
	status, raw := c.do(method, path, token, text)
	if status >= 300 {
		c.t.Fatalf("%s %s: %d %s", method, path, status, raw)
	}
	members := map[string]any{}
	if err := json.Unmarshal(raw, &members); err != nil {
		c.t.Fatal(err)
	}
	texts := map[string]string{}
	var collect func(map[string]any)
	collect = func(m map[string]any) {
		for name, v := range m {
			switch v := v.(type) {
			case string:
				if _, taken := texts[name]; !taken {
					texts[name] = v
				}
			case map[string]any:
				collect(v)
			}
		}
	}
	collect(members)
	return texts
}

// searchFiles looks at the bytes of every file but the one that is there to
// tell the first credentials. What is compressed is searched below.
func searchFiles(t *testing.T, dir string, secrets map[string]string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == credentialsFile {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for name, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds %s", path, name)
			}
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Errorf("%d files were searched: %v", files, err)
	}
}

// searchStreams looks at every message of every stream: subjects, headers, bodies.
func searchStreams(t *testing.T, dir string, secrets map[string]string) {
	t.Helper()
	srv := must(natsserver.New(natsserver.Config{Dir: dir}, slog.New(slog.DiscardHandler)))
	defer lifecycletest.Run(t, srv)()
	ctx := t.Context()
	nc := must(srv.Connect())
	defer nc.Close()
	js := must(jetstream.New(nc))
	messages := 0
	for info := range js.ListStreams(ctx).Info() {
		stream := must(js.Stream(ctx, info.Config.Name))
		for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
			m, err := stream.GetMsg(ctx, seq)
			if err != nil {
				continue // replaced by a newer one of its subject
			}
			messages++
			text := fmt.Sprintf("%s %v %s", m.Subject, m.Header, m.Data)
			for name, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("message %d of %s holds %s", seq, info.Config.Name, name)
				}
			}
		}
	}
	if messages < 20 {
		t.Errorf("only %d messages were searched", messages)
	}
}

// searchTables looks at every row of every table.
func searchTables(t *testing.T, engine chserver.Engine, dir string, secrets map[string]string) {
	t.Helper()
	srv := must(chserver.New(chserver.Config{Dir: dir, Engine: engine}, slog.New(slog.DiscardHandler)))
	defer lifecycletest.Run(t, srv)()
	ctx := t.Context()
	auth := srv.Auth()
	db := clickhouse.OpenDB(&clickhouse.Options{
		Auth:        clickhouse.Auth{Username: auth.User, Password: auth.Password, Database: auth.Database},
		DialContext: srv.DialContext,
	})
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT name FROM system.tables WHERE database = currentDatabase() AND total_rows > 0")
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil || len(tables) < 5 {
		t.Fatalf("tables %v: %v", tables, err)
	}
	for _, table := range tables {
		for name, secret := range secrets {
			var found uint64
			err := db.QueryRowContext(ctx, "SELECT countIf(position(toString(tuple(*)), {secret:String}) > 0) FROM "+table, clickhouse.Named("secret", secret)).Scan(&found)
			if err != nil {
				t.Fatalf("search %s: %v", table, err)
			}
			if found > 0 {
				t.Errorf("%d rows of %s hold %s", found, table, name)
			}
		}
	}
}

// randomPart gives what of a minted token nobody may know: its last part
// without the checksum.
func randomPart(token string) string {
	random := token[strings.LastIndexByte(token, '_')+1:]
	return random[:len(random)-6]
}

// must is for what fails only where the test is wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
