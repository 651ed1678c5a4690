package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
)

// Everywhere is the service of operations that every process answers.
const Everywhere = "every"

// maxBody is the most bytes a request body may have, unless its operation
// documents another number (contract 1.9).
const maxBody = 256 << 10

// Spec is the OpenAPI document, read once. It is safe for concurrent use.
type Spec struct {
	document   []byte
	etag       string
	operations []*Operation
	byID       map[string]*Operation
	bodies     map[string]*bodySchema // by component name
	paths      table                  // finds operations, not handlers
}

// Operation is one documented method of one path.
type Operation struct {
	ID      string // operationId, such as listDeployments
	Method  string
	Path    string // as documented, such as /deployments/{id}
	Service string // who answers it: ingest, query, …; Everywhere: every process

	// Public operations take no credential and check none that is supplied.
	Public bool
	// Kinds are the kinds of credential that may call the operation.
	Kinds []credential.Kind
	// BySetting names, by kind, the setting of an account that lets further kinds call.
	BySetting map[credential.Kind]string
	// Scopes are the scopes of which a credential must hold at least one.
	Scopes []credential.Scopes
	// SessionRoles are the roles whose web sessions may call the operation, in
	// place of a scope, and the owners whose tokens may, beside the scope. None:
	// the scope alone decides.
	SessionRoles []string

	// Ingestion operations are those that API keys are made for: they have a
	// budget of their own, and are the only ones open to keys without read.
	Ingestion bool
	// PerItem operations are charged by their handler, one token an item.
	PerItem bool

	// Body names the component schema of the JSON request body, if there is one.
	Body string
	// MaxBody is the most bytes the decoded request body may have.
	MaxBody int64
	// TooLarge is the code of a body over MaxBody.
	TooLarge string

	parameters []parameter
	waits      bool // a caller may say which position it wants to see
	responses  map[string]jsontext.Value
	pathNames  []string
}

// document is as much of OpenAPI as is executed.
type document struct {
	OpenAPI    string                       `json:"openapi"`
	Paths      map[string]map[string]opWire `json:"paths"`
	Components struct {
		Schemas    map[string]jsontext.Value `json:"schemas"`
		Parameters map[string]paramWire      `json:"parameters"`
	} `json:"components"`
}

type opWire struct {
	OperationID string            `json:"operationId"`
	Service     string            `json:"x-shipledger-service"`
	Scope       jsontext.Value    `json:"x-shipledger-scope"` // one word, or a list of which one is enough
	Kinds       []string          `json:"x-shipledger-kinds"`
	BySetting   map[string]string `json:"x-shipledger-kinds-by-setting"`
	Roles       []string          `json:"x-shipledger-session-roles"`
	Ingestion   bool              `json:"x-shipledger-ingestion"`
	PerItem     bool              `json:"x-shipledger-charged-per-item"`
	MaxBody     int64             `json:"x-shipledger-max-body"`
	TooLarge    string            `json:"x-shipledger-too-large"`
	Security    *[]map[string]any `json:"security"`
	Parameters  []paramWire       `json:"parameters"`
	RequestBody *struct {
		Content media `json:"content"`
	} `json:"requestBody"`
	Responses map[string]jsontext.Value `json:"responses"`
}

type media map[string]struct {
	Schema struct {
		Ref string `json:"$ref"`
	} `json:"schema"`
}

var kindWords = map[string]credential.Kind{
	"api_key": credential.APIKey, "pat": credential.PAT, "session": credential.Session,
}

var scopeWords = map[string]credential.Scopes{
	"read": credential.Read, "events:write": credential.EventsWrite,
	"write": credential.Write, "admin": credential.Admin,
}

const schemaPrefix = "#/components/schemas/"

// ParseSpec reads an OpenAPI document and compiles what it executes. It fails
// where the document leaves open who may call an operation or who answers it.
func ParseSpec(body []byte) (*Spec, error) {
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		return nil, fmt.Errorf("OpenAPI version %q is not 3.1", d.OpenAPI)
	}
	sum := sha256.Sum256(body)
	s := &Spec{
		document: body, etag: `"` + hex.EncodeToString(sum[:12]) + `"`,
		byID: map[string]*Operation{}, bodies: map[string]*bodySchema{},
	}
	compiler, err := newCompiler(body)
	if err != nil {
		return nil, err
	}
	for path, methods := range d.Paths {
		for method, w := range methods {
			op, err := w.operation(path, strings.ToUpper(method), &d)
			if err != nil {
				return nil, fmt.Errorf("OpenAPI %s %s: %w", strings.ToUpper(method), path, err)
			}
			if s.byID[op.ID] != nil {
				return nil, fmt.Errorf("OpenAPI operationId %s is used twice", op.ID)
			}
			s.byID[op.ID] = op
			s.operations = append(s.operations, op)
			if err := s.compileBody(compiler, op.Body, &d); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(s.operations, func(a, b *Operation) int {
		return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method)
	})
	for _, op := range s.operations {
		s.paths.add(op, nil, true)
	}
	return s, nil
}

// Document gives the bytes that were parsed.
func (s *Spec) Document() []byte { return s.document }

// Operations gives all operations, ordered by path and method.
func (s *Spec) Operations() []*Operation { return slices.Clone(s.operations) }

// Operation gives the operation with this operationId, or nil.
func (s *Spec) Operation(id string) *Operation { return s.byID[id] }

// Find gives the operation that answers a request of this method and path, in
// any of the forms that the router accepts; nil if none does.
func (s *Spec) Find(method, path string) *Operation {
	r, _ := s.paths.match(path)
	if r == nil {
		return nil
	}
	if e := r.entry(method); e != nil {
		return e.op
	}
	return nil
}

// Response gives the JSON pointer of the documented response of op, following
// one reference; false where the status is not documented.
func (s *Spec) Response(op *Operation, status string) (pointer string, ok bool) {
	raw, ok := op.responses[status]
	if !ok {
		return "", false
	}
	var ref struct {
		Ref string `json:"$ref"`
	}
	if err := json.Unmarshal(raw, &ref); err == nil && ref.Ref != "" {
		return strings.TrimPrefix(ref.Ref, "#"), true
	}
	escaped := strings.NewReplacer("~", "~0", "/", "~1").Replace(op.Path)
	return "/paths/" + escaped + "/" + strings.ToLower(op.Method) + "/responses/" + status, true
}

func (w *opWire) operation(path, method string, d *document) (*Operation, error) {
	op := &Operation{
		ID: w.OperationID, Method: method, Path: path, Service: w.Service,
		Ingestion: w.Ingestion, PerItem: w.PerItem, MaxBody: w.MaxBody, TooLarge: w.TooLarge,
		Public: w.Security != nil && len(*w.Security) == 0, responses: w.Responses,
	}
	if op.MaxBody == 0 {
		op.MaxBody, op.TooLarge = maxBody, "BODY_TOO_LARGE"
	}
	if op.ID == "" || op.Service == "" {
		return nil, errors.New("operationId or x-shipledger-service is missing")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if name, ok := parameterName(segment); ok {
			op.pathNames = append(op.pathNames, name)
		}
	}
	if err := w.permission(op); err != nil {
		return nil, err
	}
	if w.RequestBody != nil {
		op.Body = strings.TrimPrefix(w.RequestBody.Content["application/json"].Schema.Ref, schemaPrefix)
	}
	for _, p := range w.Parameters {
		if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
			p, ok = d.Components.Parameters[name]
			if !ok {
				return nil, fmt.Errorf("parameter %s does not exist", name)
			}
		}
		if p.In != "query" {
			continue
		}
		parsed, err := p.parse()
		if err != nil {
			return nil, fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		op.parameters = append(op.parameters, parsed)
		op.waits = op.waits || p.Name == "min_position"
	}
	return op, nil
}

func (w *opWire) permission(op *Operation) error {
	if op.Public {
		return nil
	}
	var words []string
	if w.Scope.Kind() == '"' {
		words = make([]string, 1)
		if err := json.Unmarshal(w.Scope, &words[0]); err != nil {
			return err
		}
	} else if len(w.Scope) > 0 {
		if err := json.Unmarshal(w.Scope, &words); err != nil {
			return err
		}
	}
	for _, word := range words {
		scope, ok := scopeWords[word]
		if !ok {
			return fmt.Errorf("x-shipledger-scope %q is unknown", word)
		}
		op.Scopes = append(op.Scopes, scope)
	}
	for _, word := range w.Kinds {
		kind, ok := kindWords[word]
		if !ok {
			return fmt.Errorf("x-shipledger-kinds %q is unknown", word)
		}
		op.Kinds = append(op.Kinds, kind)
	}
	for word, setting := range w.BySetting {
		kind, ok := kindWords[word]
		if !ok || new(event.Settings).Named(setting) == nil {
			return fmt.Errorf("x-shipledger-kinds-by-setting %q: %q is unknown", word, setting)
		}
		if op.BySetting == nil {
			op.BySetting = map[credential.Kind]string{}
		}
		op.BySetting[kind] = setting
	}
	for _, role := range w.Roles {
		if credential.RoleScopes(role) == 0 {
			return fmt.Errorf("x-shipledger-session-roles %q is unknown", role)
		}
		op.SessionRoles = append(op.SessionRoles, role)
	}
	if len(op.Scopes) == 0 || len(op.Kinds) == 0 {
		return errors.New("neither public nor restricted to kinds and scopes")
	}
	return nil
}

// resource is the name that the document has inside the schema compiler.
const resource = "openapi.json"

// newCompiler makes a compiler that knows the document and the formats that
// only this system has.
func newCompiler(body []byte) (*jsonschema.Compiler, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	for name, check := range formats {
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: check})
	}
	if err := c.AddResource(resource, doc); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	return c, nil
}

func parameterName(segment string) (string, bool) {
	name, ok := strings.CutPrefix(segment, "{")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, "}")
}
