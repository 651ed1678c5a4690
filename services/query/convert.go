package query

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// runFields is what an item shows beside the answer that its event was given
// (contract 5.1).
type runFields struct {
	SCMSHA        httpapi.Text `json:"scm_sha"`
	SCMBranch     httpapi.Text `json:"scm_branch"`
	SCMRepository httpapi.Text `json:"scm_repository"`
	InvokeID      httpapi.Text `json:"invoke_id"`
	Mode          string       `json:"mode"`
	Backfilled    bool         `json:"backfilled"`
	CredentialID  httpapi.Text `json:"credential_id"`
	Position      string       `json:"position"`
}

func runFieldsOf(r *readmodel.RunRow) runFields {
	a := &r.Record.Attributes
	return runFields{
		SCMSHA: httpapi.Text(a[event.SCMSHA]), SCMBranch: httpapi.Text(a[event.SCMBranch]),
		SCMRepository: httpapi.Text(a[event.SCMRepository]), InvokeID: httpapi.Text(a[event.InvokeID]),
		Mode: string(r.Author.Mode), Backfilled: r.Backfilled,
		CredentialID: httpapi.Text(r.Author.CredentialID), Position: r.Position.String(),
	}
}

type deployment struct {
	httpapi.Deployment `json:",inline"`
	StartedAt          *time.Time   `json:"started_at"`
	BuildNumber        httpapi.Text `json:"build_number"`
	runFields          `json:",inline"`
}

func deploymentItem(r *readmodel.RunRow) deployment {
	return deployment{
		Deployment: httpapi.DeploymentOf(&r.Record, ""), StartedAt: httpapi.Moment(r.Record.StartedAt),
		BuildNumber: httpapi.Text(r.Record.Attributes[event.BuildNumber]), runFields: runFieldsOf(r),
	}
}

type deploymentDetail struct {
	deployment   `json:",inline"`
	Events       []eventRow `json:"events"`
	surroundings `json:",inline"`
}

type build struct {
	httpapi.Build `json:",inline"`
	SourceSystem  httpapi.Text   `json:"source_system"`
	BuiltBy       httpapi.Text   `json:"built_by"`
	BuiltByName   httpapi.Text   `json:"built_by_name"`
	BuiltByEmail  httpapi.Text   `json:"built_by_email"`
	ErrorMessage  httpapi.Text   `json:"error_message"`
	ErrorCode     httpapi.Text   `json:"error_code"`
	ExtraMetadata jsontext.Value `json:"extra_metadata"`
	runFields     `json:",inline"`
}

func buildItem(r *readmodel.RunRow) build {
	a := &r.Record.Attributes
	return build{
		Build: httpapi.BuildOf(&r.Record, ""), SourceSystem: httpapi.Text(a[event.SourceSystem]),
		BuiltBy: httpapi.Text(a[event.By]), BuiltByName: httpapi.Text(a[event.ByName]), BuiltByEmail: httpapi.Text(a[event.ByEmail]),
		ErrorMessage: httpapi.Text(a[event.ErrorMessage]), ErrorCode: httpapi.Text(a[event.ErrorCode]),
		ExtraMetadata: httpapi.ExtraOf(&r.Record), runFields: runFieldsOf(r),
	}
}

type buildDetail struct {
	build  `json:",inline"`
	Events []eventRow `json:"events"`
}

type eventRow struct {
	ID             string         `json:"id"`
	Type           string         `json:"type"`
	Position       string         `json:"position"`
	ReceivedAt     *time.Time     `json:"received_at"`
	EffectiveAt    *time.Time     `json:"effective_at"`
	Subject        string         `json:"subject"`
	CredentialID   httpapi.Text   `json:"credential_id"`
	CredentialName httpapi.Text   `json:"credential_name"`
	Actor          httpapi.Text   `json:"actor"`
	Mode           httpapi.Text   `json:"mode"`
	Backfilled     bool           `json:"backfilled"`
	Flag           httpapi.Text   `json:"flag"`
	Data           jsontext.Value `json:"data"`
}

func eventItem(r *readmodel.EventRow) eventRow {
	data := jsontext.Value(r.Request)
	if len(data) == 0 {
		data = jsontext.Value("null")
	}
	return eventRow{
		ID: r.ID.String(), Type: string(r.Type), Position: r.Position.String(),
		ReceivedAt: httpapi.Moment(r.ReceivedAt), EffectiveAt: httpapi.Moment(r.EffectiveAt), Subject: r.Subject,
		CredentialID: httpapi.Text(r.Author.CredentialID), CredentialName: httpapi.Text(r.Author.CredentialName),
		Actor: httpapi.Text(r.Author.Actor), Mode: httpapi.Text(r.Author.Mode), Backfilled: r.Backfilled,
		Flag: httpapi.Text(r.Flag), Data: data,
	}
}

func productItem(r *readmodel.ProductRow) httpapi.Product { return httpapi.ProductOf(&r.Product) }

func environmentItem(r *readmodel.EnvironmentRow) httpapi.Environment {
	return httpapi.EnvironmentOf(&r.Environment)
}

type version struct {
	ID          string       `json:"id"`
	ProductID   string       `json:"product_id"`
	ProductName string       `json:"product_name"`
	Version     string       `json:"version"`
	Status      httpapi.Text `json:"status"`
	SCMSHA      httpapi.Text `json:"scm_sha"`
	CreatedAt   *time.Time   `json:"created_at"`
	Builds      int          `json:"builds"`
}

func versionItem(r *readmodel.VersionRow) version {
	return version{
		ID: r.ID.String(), ProductID: r.ProductID.String(), ProductName: r.ProductName, Version: r.Version.Version,
		Status: httpapi.Text(r.BuildStatus.String()), SCMSHA: httpapi.Text(r.SHA),
		CreatedAt: httpapi.Moment(r.CreatedAt), Builds: r.Builds,
	}
}

type matrix struct {
	Environments             []matrixColumn `json:"environments"`
	httpapi.List[matrixItem] `json:",inline"`
}

type matrixColumn struct {
	ID   string       `json:"id"`
	Name string       `json:"name"`
	Type httpapi.Text `json:"type"`
}

func matrixColumnOf(r *readmodel.EnvironmentRow) matrixColumn {
	return matrixColumn{r.ID.String(), r.Name, httpapi.Text(r.Class.String())}
}

type matrixItem struct {
	ProductID   string       `json:"product_id"`
	ProductName string       `json:"product_name"`
	Drift       bool         `json:"drift"`
	Cells       []matrixCell `json:"cells"`
}

type matrixCell struct {
	EnvironmentID   string       `json:"environment_id"`
	EnvironmentName string       `json:"environment_name"`
	Version         string       `json:"version"`
	VersionID       string       `json:"version_id"`
	DeploymentID    string       `json:"deployment_id"`
	DeployedAt      *time.Time   `json:"deployed_at"`
	DeployedBy      httpapi.Text `json:"deployed_by"`
	Status          string       `json:"status"`
	SCMSHA          httpapi.Text `json:"scm_sha"`
	BuildNumber     httpapi.Text `json:"build_number"`
	DeployURL       httpapi.Text `json:"deploy_url"`
	LastAttempt     *lastAttempt `json:"last_attempt"`
}

type lastAttempt struct {
	DeploymentID string     `json:"deployment_id"`
	Version      string     `json:"version"`
	Status       string     `json:"status"`
	At           *time.Time `json:"at"`
}

// matrixCellOf shows a cell in which something is live.
func matrixCellOf(c *readmodel.MatrixCell, environment string) matrixCell {
	r := c.Live
	cell := matrixCell{
		EnvironmentID: c.Environment.String(), EnvironmentName: environment,
		Version: r.Version, VersionID: r.VersionID.String(), DeploymentID: r.ID.String(),
		DeployedAt: httpapi.Moment(r.At), DeployedBy: httpapi.Text(r.By), Status: r.Status.String(),
		SCMSHA: httpapi.Text(r.SHA), BuildNumber: httpapi.Text(r.BuildNumber), DeployURL: httpapi.Text(r.URL),
	}
	if a := c.LastAttempt; a != nil {
		cell.LastAttempt = &lastAttempt{a.ID.String(), a.Version, a.Status.String(), httpapi.Moment(a.At)}
	}
	return cell
}

// changedCell is what a stream of the matrix sends: a cell, and whose it is.
type changedCell struct {
	ProductID   string `json:"product_id"`
	ProductName string `json:"product_name"`
	matrixCell  `json:",inline"`
}
