// Package mcp lets agents ask the ledger over the Model Context Protocol.
//
//	agent ── POST /mcp, Bearer pat_… ──► httpapi (the one verifier) ──► tool
//	                                                                      │ the same token
//	                        query ◄── GET /matrix, /deployments/ … ◄──────┘
//
// It knows neither the log nor the read model: a tool asks the public API as any
// client would, with the token that it was called with. So a tool can show what
// its caller may see and nothing else, and what ends a token ends it here in the
// same moment (contract 20, VO-04, VO-05).
package mcp

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// Config is what the service needs.
type Config struct {
	// API is where the tools ask: the base URL of the public API.
	API string
	// Transport carries what they ask; nil: over the network. One process that
	// serves both hands in the API itself (httpapi.InProcess).
	Transport http.RoundTripper
	// Version is what agents are told of this build.
	Version string
}

// Service answers /mcp.
type Service struct {
	protocol http.Handler
}

// New returns the service.
func New(cfg Config, logger *slog.Logger) *Service {
	server := sdk.NewServer(&sdk.Implementation{Name: "shipledger", Title: "Shipledger", Version: cfg.Version}, &sdk.ServerOptions{
		Instructions: instructions, Logger: logger,
	})
	addTools(server, &client{base: strings.TrimSuffix(cfg.API, "/"), http: &http.Client{Transport: cfg.Transport}})
	return &Service{protocol: sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &sdk.StreamableHTTPOptions{
		// Each request stands alone: there is no session that could outlive its
		// token, and any process can answer.
		Stateless: true, JSONResponse: true, Logger: logger,
		// That protection is for servers that trust a browser on the same machine;
		// here every request carries a token, which no other site has.
		DisableLocalhostProtection: true,
	})}
}

const instructions = "Shipledger is the ledger of builds and deployments: what is live where, what was live at any moment, and what happened. " +
	"Names of products and environments are exact and case-sensitive. Every answer says up to which position of the log it holds."

// Handlers gives the handler of each operation, for the API to mount.
func (s *Service) Handlers() httpapi.Handlers { return httpapi.Handlers{"callMCP": s.call} }

// call answers one message. The tokens of the caller's budget are taken by what
// a tool asks of the API; a message that asks nothing takes one here.
func (s *Service) call(w http.ResponseWriter, r *httpapi.Request) error {
	body, err := r.ReadJSON()
	if err != nil {
		return err
	}
	var message struct {
		Method string `json:"method"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		return fault.New(fault.Invalid, "INVALID_JSON", "The request body must be one JSON-RPC message.").Because(err)
	}
	if message.Method != "tools/call" && r.Take(1) == 0 {
		return httpapi.RetryLater{Err: fault.New(fault.RateLimited, "", "Too many requests."), After: r.RetryAfter()}
	}
	if err := r.Reverify(); err != nil {
		return err
	}
	in := r.Clone(context.WithValue(r.Context(), callerKey{}, callerOf(r)))
	in.Body, in.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	// Contract 1.9 lets clients leave these two out; the protocol does not.
	in.Header.Set("Content-Type", "application/json")
	in.Header.Set("Accept", "application/json, text/event-stream")
	var out httpapi.Held
	s.protocol.ServeHTTP(&out, in)
	return send(w, &out)
}

// send passes an answer of the protocol's library on. What it complains of in
// words is put into the documented error body.
func send(w http.ResponseWriter, out *httpapi.Held) error {
	contentType := out.Header().Get("Content-Type")
	if out.Status >= http.StatusBadRequest && !strings.HasPrefix(contentType, "application/json") {
		return fault.New(fault.Invalid, "INVALID_JSON", "%s", strings.TrimSpace(out.Body.String()))
	}
	if contentType != "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(cmp.Or(out.Status, http.StatusAccepted)) // nothing is said to a notification
	_, _ = w.Write(out.Body.Bytes())                       // the agent may be gone
	return nil
}

// A caller is who a tool asks for. It stays in the request's context: no tool
// can be called for somebody else.
type caller struct {
	authorization string
	address       string // the client's, without its port
	agent         string
	position      string // reads behind the caller's own writes (contract 5.2)
}

type callerKey struct{}

func callerOf(r *httpapi.Request) caller {
	address := "unknown" // no service takes that for an address
	if addr := r.ClientAddr(); addr.IsValid() {
		address = addr.String()
	}
	return caller{r.Header.Get("Authorization"), address, r.UserAgent(), r.Header.Get(httpapi.PositionHeader)}
}

// anyPosition is for reads that do not wait for the caller's writes.
func anyPosition(ctx context.Context) context.Context {
	by, _ := ctx.Value(callerKey{}).(caller)
	by.position = ""
	return context.WithValue(ctx, callerKey{}, by)
}
