package contract_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/shipledger/shipledger/pkg/credential"
)

// message is a JSON-RPC request as an agent sends it.
func message(method string, params any) string {
	return body{"jsonrpc": "2.0", "id": "1", "method": method, "params": params}.String()
}

// ask sends a message to /mcp behind the script's own writes.
func (l *ledger) ask(text string, options ...option) answer {
	l.t.Helper()
	l.mu.Lock()
	seen := l.seen
	l.mu.Unlock()
	usual := []option{as(l.pat), header("Content-Type", "application/json")}
	if seen.Stream != "" {
		usual = append(usual, header("X-Shipledger-Position", seen.String()))
	}
	return l.send(http.MethodPost, "/mcp", text, append(usual, options...)...)
}

// tool calls a tool and gives what it answered, which must be no error.
func (l *ledger) tool(name string, args body, options ...option) answer {
	l.t.Helper()
	a := l.patiently(func() answer { return l.ask(message("tools/call", body{"name": name, "arguments": args}), options...) }).is(http.StatusOK)
	if failed, _ := a.at("result.isError").(bool); failed {
		l.t.Fatalf("%s: %s", name, a.raw)
	}
	return a
}

// withToken sends a token with every request.
type withToken struct{ token string }

// RoundTrip implements http.RoundTripper.
func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+w.token)
	return client.Transport.RoundTrip(r)
}

func TestAnAgentFindsAndCallsTheToolsOverTheOfficialClient(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		l.deployed(l.deployment("success", body{"version": "1.0"}))
		l.read("/deployments/")
		agent := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
		session, err := agent.Connect(t.Context(), &mcp.StreamableClientTransport{
			Endpoint: l.url + "/mcp", HTTPClient: &http.Client{Transport: withToken{l.pat}}, DisableStandaloneSSE: true,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = session.Close() }()
		offered, err := session.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, tool := range offered.Tools {
			names = append(names, tool.Name)
			if tool.Annotations == nil || !tool.Annotations.ReadOnlyHint {
				t.Errorf("%s does not say that it only reads", tool.Name)
			}
		}
		slices.Sort(names)
		differ(t, "tools", []string{
			"get_deployment_briefing", "get_deployment_history", "get_deployment_status", "get_deployments",
			"get_environment_state", "get_environment_status", "list_api_keys", "list_environments",
		}, names)
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{
			Name: "get_deployment_status", Arguments: map[string]any{"product": l.product, "environment": "production"},
		})
		if err != nil || result.IsError {
			t.Fatalf("%v %+v", err, result)
		}
		text, _ := json.Marshal(result.StructuredContent)
		if !strings.Contains(string(text), `"current_version":"1.0"`) {
			t.Errorf("answered %s", text)
		}
	})
}

func TestToolsAnswerAsTheRoutesDo(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		noon := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
		for i, version := range []string{"1", "2", "3"} {
			l.deployed(l.deployment("success", body{
				"version": version, "invoke_id": version, "deployed_by": "ada", "completed_at": moment(noon.Add(time.Duration(i) * time.Hour)),
			}))
		}
		l.deployed(l.deployment("success", body{"version": "3", "environment_name": l.name("qa")}))
		l.built(l.build("success", body{"version": "3"}))
		l.tool("get_deployment_status", body{"product": l.product, "environment": "production"}).shows(body{
			"result.structuredContent.items.0.product": l.product, "result.structuredContent.items.0.environment": "production",
			"result.structuredContent.items.0.current_version": "3", "result.structuredContent.items.0.previous_version": "2",
			"result.structuredContent.items.0.status": "completed", "result.structuredContent.items.0.deployed_by": "ada",
			"result.structuredContent.items.1": absent, "result.structuredContent.more": false,
		})
		l.tool("get_deployment_status", body{"product": l.product, "environment": "production", "at": moment(noon.Add(30 * time.Minute))}).shows(body{
			"result.structuredContent.items.0.current_version": "1", "result.structuredContent.items.0.previous_version": nil,
		})
		l.tool("get_deployment_briefing", body{"product": l.product}).shows(body{
			"result.structuredContent.drift": false, "result.structuredContent.deployments.3.version": "1", "result.structuredContent.builds.0.version": "3",
		})
		for _, name := range []string{"get_environment_status", "get_environment_state"} {
			l.tool(name, body{"environment": l.name("qa")})
		}
		l.tool("get_environment_state", body{"environment": l.name("qa")}).shows(body{
			"result.structuredContent.environment": l.name("qa"), "result.structuredContent.services.0.version": "3", "result.structuredContent.services.1": absent,
		})
		l.tool("get_deployments", body{"product": l.product, "status": "completed", "limit": 2}).shows(body{
			"result.structuredContent.items.1.product_name": l.product, "result.structuredContent.items.2": absent, "result.structuredContent.more": true,
		})
		l.tool("get_deployment_history", body{"product": l.product, "environment": "production"}).shows(body{
			"result.structuredContent.items.0.version": "3", "result.structuredContent.items.2.version": "1", "result.structuredContent.items.3": absent,
		})
		if n := len(l.tool("list_environments", body{}).list("result.structuredContent.items")); n == 0 {
			t.Error("no environments")
		}
		key := l.manage(http.MethodPost, keysPath, wanted(l.name("agent"))).is(http.StatusCreated).id()
		shown := l.tool("list_api_keys", body{}, as(l.admin)).list("result.structuredContent.items")
		if !slices.ContainsFunc(shown, func(k any) bool { one := k.(map[string]any); return one["id"] == key && one["status"] == "active" }) {
			t.Errorf("key %s is not shown active among %v", key, shown)
		}
	})
}

// An account has more products than a page of the matrix has rows.
func TestToolsFindWhatIsLiveInAnEnvironmentBehindProductsThatAreNotThere(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		var elsewhere []any
		for i := range 600 {
			elsewhere = append(elsewhere, m.deployment("success", body{"product_name": fmt.Sprintf("a%03d", i), "invoke_id": strconv.Itoa(i), "kind": "deployment"}))
		}
		m.lines(elsewhere).is(http.StatusOK)
		m.deployed(m.deployment("success", body{"product_name": "z", "version": "7", "environment_name": "qa"}))
		m.tool("get_environment_state", body{"environment": "qa"}).shows(body{
			"result.structuredContent.services.0.product": "z", "result.structuredContent.services.0.version": "7",
			"result.structuredContent.services.1": absent, "result.structuredContent.more": false,
		})
	})
}

func TestAToolTellsTheAgentWhatTheAPIRefuses(t *testing.T) {
	everywhere(t, func(t *testing.T, l *ledger) {
		for _, c := range []struct {
			tool, says string
			args       body
		}{
			{"get_deployment_status", "at", body{"at": "yesterday"}},
			{"get_deployments", "status", body{"status": "shipped"}},
			{"get_deployments", "limit", body{"limit": 501}},
			{"get_deployment_briefing", "exact", body{"product": l.name("nothing")}},
			{"list_api_keys", "INSUFFICIENT_SCOPE", body{}},
			{"get_deployment_history", "product", body{}},
		} {
			a := l.ask(message("tools/call", body{"name": c.tool, "arguments": c.args})).is(http.StatusOK)
			a.shows(body{"result.isError": true})
			if text, _ := a.at("result.content.0.text").(string); !strings.Contains(text, c.says) {
				t.Errorf("%s %v: %q", c.tool, c.args, text)
			}
		}
		l.ask(message("tools/call", body{"name": "drop_everything", "arguments": body{}})).is(http.StatusOK).shows(body{"result": absent, "error.code": float64(-32602)})
		l.ask("{").is(http.StatusBadRequest)
		l.ask(`"text"`).is(http.StatusBadRequest)
		l.ask(message("ping", body{}), header("Mcp-Protocol-Version", "1999-01-01")).is(http.StatusBadRequest)
		l.send(http.MethodGet, "/mcp", "", as(l.pat)).is(http.StatusMethodNotAllowed)
	})
}

// Rows: VR-16
func TestMCPTakesATokenAndRefusesKeysAndStrangers(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		ping := message("ping", body{})
		for _, grant := range []string{"read", "sync-trigger", "write", "admin"} {
			m.ask(ping, as(m.token("pat", grant))).is(http.StatusOK)
		}
		for _, grant := range []string{"events:write", "read", "admin"} {
			m.ask(ping, as(m.token("sk", grant))).is(http.StatusForbidden)
		}
		m.ask(ping, as("")).is(http.StatusUnauthorized)
		m.ask(ping, as("pat_p7Qx_nobody")).is(http.StatusUnauthorized)
	})
}

func TestASettingLetsAPIKeysThatMayReadCallMCP(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		call := message("tools/call", body{"name": "list_environments", "arguments": body{}})
		m.set("mcp_allow_api_keys", true)
		m.ask(call, as(m.token("sk", "read"))).is(http.StatusOK).shows(body{"result.isError": absent})
		m.ask(call, as(m.token("sk", "events:write"))).fails(http.StatusForbidden, "INSUFFICIENT_SCOPE")
		m.ask(call, as(m.tokenOf(other, "sk", "read"))).fails(http.StatusForbidden, "WRONG_CREDENTIAL_KIND")
		m.set("mcp_allow_api_keys", false)
		m.ask(call, as(m.token("sk", "read"))).fails(http.StatusForbidden, "WRONG_CREDENTIAL_KIND")
	})
}

// Rows: VO-05
func TestRevokingATokenEndsRESTAndMCPAtOnce(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		call := message("tools/call", body{"name": "list_environments", "arguments": body{}})
		m.get("/deployments/").is(http.StatusOK)
		m.ask(call).is(http.StatusOK)
		id := ""
		for _, held := range heldTokens(m) {
			if strings.Contains(m.pat, "_"+held.PublicID+"_") {
				id = held.ID
			}
		}
		m.send(http.MethodDelete, "/personal-access-tokens/"+id, "", as(m.admin)).is(http.StatusNoContent)
		m.send(http.MethodGet, "/deployments/", "", as(m.pat)).is(http.StatusUnauthorized)
		m.send(http.MethodPost, "/mcp", call, as(m.pat), header("Content-Type", "application/json")).is(http.StatusUnauthorized)
	})
}

// heldTokens gives the tokens of acme.
func heldTokens(m *memory) []credential.Held {
	held, _ := m.ring.Records(acme, credential.PAT)
	return held
}

func TestAToolSeesItsCallersAccountOnly(t *testing.T) {
	inMemory(t, func(t *testing.T, m *memory) {
		m.deployed(m.deployment("success", body{"version": "1"}))
		m.read("/deployments/")
		foreign := as(m.tokenOf(other, "pat", "admin"))
		m.send(http.MethodPost, "/mcp", message("tools/call", body{"name": "get_deployments", "arguments": body{}}), foreign, header("Content-Type", "application/json")).
			is(http.StatusOK).shows(body{"result.structuredContent.items.0": absent})
	})
}
