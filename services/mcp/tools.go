package mcp

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// How much a tool shows.
const (
	shownRows    = 100 // of lists whose caller did not say
	briefingRows = 10  // of each list in a briefing
	pageRows     = 500 // of the matrix, where most may be empty
	mostPages    = 20  // of the matrix that one call asks for
)

// addTools offers the tools of contract 20 that only read.
func addTools(s *sdk.Server, c *client) {
	add(s, "get_deployment_status", "What is live: version, when and by whom, of a product, in an environment, or of everything. With at: what was live then. previous_version is told where product and environment are both given.", c.deploymentStatus)
	add(s, "get_deployment_briefing", "A product at a glance: what is live where, whether its environments differ, its latest deployments and builds.", c.deploymentBriefing)
	add(s, "get_environment_status", "What is live in an environment, with the newest attempt where that failed or still runs. With at: what was live then.", c.environmentStatus)
	add(s, "get_environment_state", "What is live in an environment, one line a product. With at: what was live then.", c.environmentState)
	add(s, "get_deployments", "Deployments, newest first, narrowed by product, environment, status and time.", c.deployments)
	add(s, "get_deployment_history", "The deployments of a product to an environment, newest first.", c.deploymentHistory)
	add(s, "list_environments", "All environments.", c.environments)
	add(s, "list_api_keys", "The API keys of the account: name, scopes, status, expiry, last use; never a secret. Needs the scope admin.", c.apiKeys)
}

// add offers a tool that changes nothing.
func add[In, Out any](s *sdk.Server, name, description string, do func(context.Context, In) (Out, error)) {
	closed := false
	tool := &sdk.Tool{
		Name: name, Description: description,
		Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true, IdempotentHint: true, OpenWorldHint: &closed},
	}
	sdk.AddTool(s, tool, func(ctx context.Context, _ *sdk.CallToolRequest, in In) (*sdk.CallToolResult, Out, error) {
		out, err := do(ctx, in)
		return nil, out, err
	})
}

// What the API answers, as far as the tools show it.
type (
	matrixAnswer struct {
		Items []struct {
			Product string `json:"product_name"`
			Drift   bool   `json:"drift"`
			Cells   []cell `json:"cells"`
		} `json:"items"`
		NextCursor *string `json:"next_cursor"`
		AsOf       asOf    `json:"as_of"`
	}
	cell struct {
		Environment  string     `json:"environment_name"`
		Version      *string    `json:"version"`
		DeploymentID *string    `json:"deployment_id"`
		DeployedAt   *time.Time `json:"deployed_at"`
		DeployedBy   *string    `json:"deployed_by"`
		Status       *string    `json:"status"`
		LastAttempt  *attempt   `json:"last_attempt"`
	}
	listAnswer[T any] struct {
		Items      []T     `json:"items"`
		NextCursor *string `json:"next_cursor"`
		AsOf       asOf    `json:"as_of"`
	}
)

// What the tools answer with. The names are those of contract 20.
type (
	asOf struct {
		Position string     `json:"position" jsonschema:"place in the log that the answer holds up to"`
		Time     *time.Time `json:"time" jsonschema:"when that was received"`
	}
	attempt struct {
		DeploymentID string    `json:"deployment_id"`
		Version      string    `json:"version"`
		Status       string    `json:"status"`
		At           time.Time `json:"at"`
	}
	status struct {
		Product         string     `json:"product"`
		Environment     string     `json:"environment"`
		CurrentVersion  *string    `json:"current_version"`
		Status          *string    `json:"status"`
		DeployedAt      *time.Time `json:"deployed_at"`
		DeployedBy      *string    `json:"deployed_by"`
		DeploymentID    *string    `json:"deployment_id"`
		PreviousVersion *string    `json:"previous_version"`
		LastAttempt     *attempt   `json:"last_attempt"`
	}
	statuses struct {
		Items []status `json:"items"`
		More  bool     `json:"more" jsonschema:"there are more: narrow by product or environment"`
		AsOf  asOf     `json:"as_of"`
	}
	briefing struct {
		Product     string       `json:"product"`
		Drift       bool         `json:"drift" jsonschema:"environments hold different versions"`
		Live        []status     `json:"live"`
		Deployments []deployment `json:"deployments"`
		Builds      []build      `json:"builds"`
		AsOf        asOf         `json:"as_of"`
	}
	deployment struct {
		ID          string     `json:"id"`
		Product     string     `json:"product_name"`
		Environment string     `json:"environment_name"`
		Version     string     `json:"version"`
		Status      string     `json:"status"`
		DeployedAt  time.Time  `json:"deployed_at"`
		CompletedAt *time.Time `json:"completed_at"`
		DeployedBy  *string    `json:"deployed_by"`
		SHA         *string    `json:"scm_sha"`
		URL         *string    `json:"deploy_url"`
	}
	build struct {
		ID          string     `json:"id"`
		Product     string     `json:"product_name"`
		Version     string     `json:"version"`
		Status      string     `json:"status"`
		CompletedAt *time.Time `json:"completed_at"`
		SHA         *string    `json:"scm_sha"`
		URL         *string    `json:"build_url"`
	}
	deployments struct {
		Items []deployment `json:"items"`
		More  bool         `json:"more" jsonschema:"there are more: narrow by since and until"`
		AsOf  asOf         `json:"as_of"`
	}
	environmentState struct {
		Environment string         `json:"environment"`
		Services    []serviceState `json:"services"`
		More        bool           `json:"more"`
		AsOf        asOf           `json:"as_of"`
	}
	serviceState struct {
		Product    string     `json:"product"`
		Version    string     `json:"version"`
		Status     string     `json:"status"`
		DeployedAt *time.Time `json:"deployed_at"`
	}
	pastDeployment struct {
		Version    string    `json:"version"`
		Status     string    `json:"status"`
		DeployedAt time.Time `json:"deployed_at"`
		DeployedBy *string   `json:"deployed_by"`
	}
	history struct {
		Items []pastDeployment `json:"items"`
		AsOf  asOf             `json:"as_of"`
	}
	environment struct {
		ID        string    `json:"id"`
		Name      string    `json:"name"`
		Type      *string   `json:"type"`
		CreatedAt time.Time `json:"created_at"`
	}
	environments struct {
		Items []environment `json:"items"`
		More  bool          `json:"more"`
		AsOf  asOf          `json:"as_of"`
	}
	apiKey struct {
		ID         string     `json:"id"`
		KeyID      string     `json:"key_id"`
		Name       string     `json:"name"`
		Scopes     []string   `json:"scopes"`
		Mode       string     `json:"mode"`
		LastFour   string     `json:"last4"`
		Status     string     `json:"status"`
		CreatedAt  time.Time  `json:"created_at"`
		ExpiresAt  *time.Time `json:"expires_at"`
		LastUsedAt *time.Time `json:"last_used_at"`
	}
	apiKeys struct {
		Items []apiKey `json:"items"`
		More  bool     `json:"more"`
		AsOf  asOf     `json:"as_of"`
	}
)

// What the tools take.
type (
	stateArgs struct {
		Product     string `json:"product,omitempty" jsonschema:"exact name"`
		Environment string `json:"environment,omitempty" jsonschema:"exact name"`
		At          string `json:"at,omitempty" jsonschema:"a past moment, RFC 3339 with a zone"`
	}
	productArgs struct {
		Product string `json:"product" jsonschema:"exact name"`
	}
	environmentArgs struct {
		Environment string `json:"environment" jsonschema:"exact name"`
		At          string `json:"at,omitempty" jsonschema:"a past moment, RFC 3339 with a zone"`
	}
	deploymentsArgs struct {
		Product     string `json:"product,omitempty" jsonschema:"exact name"`
		Environment string `json:"environment,omitempty" jsonschema:"exact name"`
		Status      string `json:"status,omitempty" jsonschema:"pending, started, completed, failed, aborted or preflight_failed"`
		Since       string `json:"since,omitempty" jsonschema:"RFC 3339 with a zone, inclusive"`
		Until       string `json:"until,omitempty" jsonschema:"RFC 3339 with a zone, exclusive"`
		Limit       int    `json:"limit,omitempty" jsonschema:"at most 500, 100 if absent"`
	}
	historyArgs struct {
		Product     string `json:"product" jsonschema:"exact name"`
		Environment string `json:"environment" jsonschema:"exact name"`
		Limit       int    `json:"limit,omitempty" jsonschema:"at most 500, 100 if absent"`
	}
	noArgs struct{}
)

func (c *client) deploymentStatus(ctx context.Context, in stateArgs) (statuses, error) {
	rows, _, err := c.matrix(ctx, in)
	if err != nil || in.Product == "" || in.Environment == "" {
		return rows, err
	}
	for i := range rows.Items {
		if rows.Items[i].PreviousVersion, err = c.previous(ctx, &rows.Items[i]); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// matrix asks what is live, and whether environments differ in it. The matrix has
// a row for every product, so that of an environment alone most may be empty: they
// are left out, and looked behind.
func (c *client) matrix(ctx context.Context, in stateArgs) (rows statuses, drift bool, err error) {
	rows.Items, rows.More = []status{}, true
	ask := url.Values{"product": {in.Product}, "environment": {in.Environment}, "at": {in.At}, "limit": {strconv.Itoa(shownRows)}}
	if in.Product == "" && in.Environment != "" {
		ask.Set("limit", strconv.Itoa(pageRows))
	}
	for page := 0; rows.More && page < mostPages && len(rows.Items) < shownRows; page++ {
		var m matrixAnswer
		if err := c.get(ctx, "/matrix", ask, &m); err != nil {
			return rows, drift, err
		}
		for _, item := range m.Items {
			drift = drift || item.Drift
			for _, at := range item.Cells {
				if in.Product == "" && at.Version == nil && at.LastAttempt == nil {
					continue
				}
				rows.Items = append(rows.Items, status{
					Product: item.Product, Environment: at.Environment, CurrentVersion: at.Version, Status: at.Status,
					DeployedAt: at.DeployedAt, DeployedBy: at.DeployedBy, DeploymentID: at.DeploymentID, LastAttempt: at.LastAttempt,
				})
			}
		}
		rows.AsOf, rows.More = m.AsOf, m.NextCursor != nil
		if rows.More {
			ask.Set("cursor", *m.NextCursor)
		}
	}
	return rows, drift, nil
}

// previous asks what was live in a cell right before what is: the newest
// success before it of another version.
func (c *client) previous(ctx context.Context, s *status) (*string, error) {
	if s.CurrentVersion == nil || s.DeployedAt == nil {
		return nil, nil
	}
	found, err := c.list(ctx, deploymentsArgs{
		Product: s.Product, Environment: s.Environment, Status: "completed", Until: s.DeployedAt.Format(time.RFC3339Nano), Limit: shownRows,
	})
	if err != nil {
		return nil, err
	}
	for i := range found.Items {
		if v := found.Items[i].Version; v != *s.CurrentVersion {
			return &v, nil
		}
	}
	return nil, nil
}

func (c *client) deploymentBriefing(ctx context.Context, in productArgs) (briefing, error) {
	live, drift, err := c.matrix(ctx, stateArgs{Product: in.Product})
	if err != nil {
		return briefing{}, err
	}
	if len(live.Items) == 0 {
		return briefing{}, fmt.Errorf("no product %q has been deployed; names are exact and case-sensitive", in.Product)
	}
	recent, err := c.list(ctx, deploymentsArgs{Product: in.Product, Limit: briefingRows})
	if err != nil {
		return briefing{}, err
	}
	var builds listAnswer[build]
	err = c.get(ctx, "/builds/", url.Values{"product": {in.Product}, "limit": {strconv.Itoa(briefingRows)}}, &builds)
	if err != nil {
		return briefing{}, err
	}
	return briefing{
		Product: in.Product, Drift: drift, Live: live.Items, Deployments: recent.Items, Builds: listed(builds.Items), AsOf: live.AsOf,
	}, nil
}

func (c *client) environmentStatus(ctx context.Context, in environmentArgs) (statuses, error) {
	rows, _, err := c.matrix(ctx, stateArgs{Environment: in.Environment, At: in.At})
	return rows, err
}

func (c *client) environmentState(ctx context.Context, in environmentArgs) (environmentState, error) {
	rows, err := c.environmentStatus(ctx, in)
	state := environmentState{Environment: in.Environment, Services: []serviceState{}, More: rows.More, AsOf: rows.AsOf}
	for i := range rows.Items {
		if s := &rows.Items[i]; s.CurrentVersion != nil && s.Status != nil {
			state.Services = append(state.Services, serviceState{s.Product, *s.CurrentVersion, *s.Status, s.DeployedAt})
		}
	}
	return state, err
}

func (c *client) deployments(ctx context.Context, in deploymentsArgs) (deployments, error) {
	return c.list(ctx, in)
}

func (c *client) list(ctx context.Context, in deploymentsArgs) (deployments, error) {
	var found listAnswer[deployment]
	err := c.get(ctx, "/deployments/", url.Values{
		"product": {in.Product}, "environment": {in.Environment}, "status": {in.Status},
		"since": {in.Since}, "until": {in.Until}, "limit": {limit(in.Limit)},
	}, &found)
	return deployments{Items: listed(found.Items), More: found.NextCursor != nil, AsOf: found.AsOf}, err
}

func (c *client) deploymentHistory(ctx context.Context, in historyArgs) (history, error) {
	found, err := c.list(ctx, deploymentsArgs{Product: in.Product, Environment: in.Environment, Limit: in.Limit})
	h := history{Items: []pastDeployment{}, AsOf: found.AsOf}
	for i := range found.Items {
		d := &found.Items[i]
		h.Items = append(h.Items, pastDeployment{d.Version, d.Status, d.DeployedAt, d.DeployedBy})
	}
	return h, err
}

func (c *client) environments(ctx context.Context, _ noArgs) (environments, error) {
	var found listAnswer[environment]
	err := c.get(ctx, "/environments/", url.Values{"limit": {limit(0)}}, &found)
	return environments{Items: listed(found.Items), More: found.NextCursor != nil, AsOf: found.AsOf}, err
}

func (c *client) apiKeys(ctx context.Context, _ noArgs) (apiKeys, error) {
	var found listAnswer[apiKey]
	// Keys are always as new as the process is; they wait for no read model.
	err := c.get(anyPosition(ctx), "/api-keys/", url.Values{"limit": {limit(0)}}, &found)
	return apiKeys{Items: listed(found.Items), More: found.NextCursor != nil, AsOf: found.AsOf}, err
}

// limit leaves what is too much for the API to refuse: it says so best.
func limit(asked int) string {
	if asked == 0 {
		asked = shownRows
	}
	return strconv.Itoa(asked)
}

// listed makes no items an empty list, as the schemas of the tools promise.
func listed[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}
