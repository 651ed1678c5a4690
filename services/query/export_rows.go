package query

import (
	"time"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/readmodel"
)

// The rows of exports. The order of their fields is that of the columns, which
// is published: new ones go to the end.

type exportedDeployment struct {
	ID              string       `json:"id" parquet:"id"`
	ProductID       string       `json:"product_id" parquet:"product_id"`
	ProductName     string       `json:"product_name" parquet:"product_name"`
	VersionID       string       `json:"version_id" parquet:"version_id"`
	Version         string       `json:"version" parquet:"version"`
	EnvironmentID   string       `json:"environment_id" parquet:"environment_id"`
	EnvironmentName string       `json:"environment_name" parquet:"environment_name"`
	Status          string       `json:"status" parquet:"status"`
	DeployedAt      *time.Time   `json:"deployed_at" parquet:"deployed_at,optional,timestamp(millisecond)"`
	StartedAt       *time.Time   `json:"started_at" parquet:"started_at,optional,timestamp(millisecond)"`
	CompletedAt     *time.Time   `json:"completed_at" parquet:"completed_at,optional,timestamp(millisecond)"`
	CreatedAt       *time.Time   `json:"created_at" parquet:"created_at,optional,timestamp(millisecond)"`
	SourceSystem    httpapi.Text `json:"source_system" parquet:"source_system,optional"`
	BuildNumber     httpapi.Text `json:"build_number" parquet:"build_number,optional"`
	SCMSHA          httpapi.Text `json:"scm_sha" parquet:"scm_sha,optional"`
	SCMBranch       httpapi.Text `json:"scm_branch" parquet:"scm_branch,optional"`
	SCMRepository   httpapi.Text `json:"scm_repository" parquet:"scm_repository,optional"`
	DeployURL       httpapi.Text `json:"deploy_url" parquet:"deploy_url,optional"`
	InvokeID        httpapi.Text `json:"invoke_id" parquet:"invoke_id,optional"`
	DeployedBy      httpapi.Text `json:"deployed_by" parquet:"deployed_by,optional"`
	DeployedByName  httpapi.Text `json:"deployed_by_name" parquet:"deployed_by_name,optional"`
	DeployedByEmail httpapi.Text `json:"deployed_by_email" parquet:"deployed_by_email,optional"`
	SHAMismatch     bool         `json:"sha_mismatch" parquet:"sha_mismatch"`
	ExtraMetadata   jsonText     `json:"extra_metadata" parquet:"extra_metadata,optional"`
	CredentialID    httpapi.Text `json:"credential_id" parquet:"credential_id,optional"`
	Mode            httpapi.Text `json:"mode" parquet:"mode,optional"`
	Backfilled      bool         `json:"backfilled" parquet:"backfilled"`
	Position        string       `json:"position" parquet:"position"`
}

func exportedDeploymentOf(r *readmodel.RunRow) exportedDeployment {
	rec, a := &r.Record, &r.Record.Attributes
	return exportedDeployment{
		ID: rec.ID.String(), ProductID: rec.ProductID.String(), ProductName: rec.ProductName, VersionID: rec.VersionID.String(), Version: rec.Version,
		EnvironmentID: rec.EnvironmentID.String(), EnvironmentName: rec.EnvironmentName, Status: rec.Status.String(),
		DeployedAt: httpapi.Moment(rec.DeployedAt()), StartedAt: httpapi.Moment(rec.StartedAt), CompletedAt: httpapi.Moment(rec.CompletedAt), CreatedAt: httpapi.Moment(rec.CreatedAt),
		SourceSystem: httpapi.Text(a[event.SourceSystem]), BuildNumber: httpapi.Text(a[event.BuildNumber]),
		SCMSHA: httpapi.Text(a[event.SCMSHA]), SCMBranch: httpapi.Text(a[event.SCMBranch]), SCMRepository: httpapi.Text(a[event.SCMRepository]),
		DeployURL: httpapi.Text(a[event.URL]), InvokeID: httpapi.Text(a[event.InvokeID]),
		DeployedBy: httpapi.Text(a[event.By]), DeployedByName: httpapi.Text(a[event.ByName]), DeployedByEmail: httpapi.Text(a[event.ByEmail]),
		SHAMismatch: rec.SHAMismatch, ExtraMetadata: extraText(rec), CredentialID: httpapi.Text(r.Author.CredentialID),
		Mode: httpapi.Text(r.Author.Mode), Backfilled: r.Backfilled, Position: r.Position.String(),
	}
}

type exportedBuild struct {
	ID            string       `json:"id" parquet:"id"`
	ProductID     string       `json:"product_id" parquet:"product_id"`
	ProductName   string       `json:"product_name" parquet:"product_name"`
	VersionID     string       `json:"version_id" parquet:"version_id"`
	Version       string       `json:"version" parquet:"version"`
	Status        string       `json:"status" parquet:"status"`
	StartedAt     *time.Time   `json:"started_at" parquet:"started_at,optional,timestamp(millisecond)"`
	CompletedAt   *time.Time   `json:"completed_at" parquet:"completed_at,optional,timestamp(millisecond)"`
	CreatedAt     *time.Time   `json:"created_at" parquet:"created_at,optional,timestamp(millisecond)"`
	SourceSystem  httpapi.Text `json:"source_system" parquet:"source_system,optional"`
	BuildNumber   httpapi.Text `json:"build_number" parquet:"build_number,optional"`
	SCMSHA        httpapi.Text `json:"scm_sha" parquet:"scm_sha,optional"`
	SCMBranch     httpapi.Text `json:"scm_branch" parquet:"scm_branch,optional"`
	SCMRepository httpapi.Text `json:"scm_repository" parquet:"scm_repository,optional"`
	BuildURL      httpapi.Text `json:"build_url" parquet:"build_url,optional"`
	InvokeID      httpapi.Text `json:"invoke_id" parquet:"invoke_id,optional"`
	BuiltBy       httpapi.Text `json:"built_by" parquet:"built_by,optional"`
	BuiltByName   httpapi.Text `json:"built_by_name" parquet:"built_by_name,optional"`
	BuiltByEmail  httpapi.Text `json:"built_by_email" parquet:"built_by_email,optional"`
	ErrorMessage  httpapi.Text `json:"error_message" parquet:"error_message,optional"`
	ErrorCode     httpapi.Text `json:"error_code" parquet:"error_code,optional"`
	ExtraMetadata jsonText     `json:"extra_metadata" parquet:"extra_metadata,optional"`
	CredentialID  httpapi.Text `json:"credential_id" parquet:"credential_id,optional"`
	Mode          httpapi.Text `json:"mode" parquet:"mode,optional"`
	Backfilled    bool         `json:"backfilled" parquet:"backfilled"`
	Position      string       `json:"position" parquet:"position"`
}

func exportedBuildOf(r *readmodel.RunRow) exportedBuild {
	rec, a := &r.Record, &r.Record.Attributes
	return exportedBuild{
		ID: rec.ID.String(), ProductID: rec.ProductID.String(), ProductName: rec.ProductName, VersionID: rec.VersionID.String(), Version: rec.Version, Status: rec.Status.String(),
		StartedAt: httpapi.Moment(rec.StartedAt), CompletedAt: httpapi.Moment(rec.CompletedAt), CreatedAt: httpapi.Moment(rec.CreatedAt),
		SourceSystem: httpapi.Text(a[event.SourceSystem]), BuildNumber: httpapi.Text(a[event.BuildNumber]),
		SCMSHA: httpapi.Text(a[event.SCMSHA]), SCMBranch: httpapi.Text(a[event.SCMBranch]), SCMRepository: httpapi.Text(a[event.SCMRepository]),
		BuildURL: httpapi.Text(a[event.URL]), InvokeID: httpapi.Text(a[event.InvokeID]),
		BuiltBy: httpapi.Text(a[event.By]), BuiltByName: httpapi.Text(a[event.ByName]), BuiltByEmail: httpapi.Text(a[event.ByEmail]),
		ErrorMessage: httpapi.Text(a[event.ErrorMessage]), ErrorCode: httpapi.Text(a[event.ErrorCode]),
		ExtraMetadata: extraText(rec), CredentialID: httpapi.Text(r.Author.CredentialID),
		Mode: httpapi.Text(r.Author.Mode), Backfilled: r.Backfilled, Position: r.Position.String(),
	}
}

func extraText(r *event.Record) jsonText {
	if len(r.Extra) == 0 {
		return ""
	}
	return jsonText(httpapi.ExtraOf(r))
}

type exportedEvent struct {
	ID             string       `json:"id" parquet:"id"`
	Type           string       `json:"type" parquet:"type"`
	Position       string       `json:"position" parquet:"position"`
	ReceivedAt     *time.Time   `json:"received_at" parquet:"received_at,optional,timestamp(millisecond)"`
	EffectiveAt    *time.Time   `json:"effective_at" parquet:"effective_at,optional,timestamp(millisecond)"`
	Subject        string       `json:"subject" parquet:"subject"`
	CredentialID   httpapi.Text `json:"credential_id" parquet:"credential_id,optional"`
	CredentialName httpapi.Text `json:"credential_name" parquet:"credential_name,optional"`
	Actor          httpapi.Text `json:"actor" parquet:"actor,optional"`
	Mode           httpapi.Text `json:"mode" parquet:"mode,optional"`
	Backfilled     bool         `json:"backfilled" parquet:"backfilled"`
	Flag           httpapi.Text `json:"flag" parquet:"flag,optional"`
	Data           jsonText     `json:"data" parquet:"data,optional"`
}

func exportedEventOf(r *readmodel.EventRow) exportedEvent {
	return exportedEvent{
		ID: r.ID.String(), Type: string(r.Type), Position: r.Position.String(),
		ReceivedAt: httpapi.Moment(r.ReceivedAt), EffectiveAt: httpapi.Moment(r.EffectiveAt), Subject: r.Subject,
		CredentialID: httpapi.Text(r.Author.CredentialID), CredentialName: httpapi.Text(r.Author.CredentialName),
		Actor: httpapi.Text(r.Author.Actor), Mode: httpapi.Text(r.Author.Mode), Backfilled: r.Backfilled,
		Flag: httpapi.Text(r.Flag), Data: jsonText(r.Request),
	}
}

type exportedCell struct {
	ProductID       string       `json:"product_id" parquet:"product_id"`
	ProductName     string       `json:"product_name" parquet:"product_name"`
	EnvironmentID   string       `json:"environment_id" parquet:"environment_id"`
	EnvironmentName string       `json:"environment_name" parquet:"environment_name"`
	EnvironmentType httpapi.Text `json:"environment_type" parquet:"environment_type,optional"`
	Version         string       `json:"version" parquet:"version"`
	VersionID       string       `json:"version_id" parquet:"version_id"`
	DeploymentID    string       `json:"deployment_id" parquet:"deployment_id"`
	DeployedAt      *time.Time   `json:"deployed_at" parquet:"deployed_at,optional,timestamp(millisecond)"`
	DeployedBy      httpapi.Text `json:"deployed_by" parquet:"deployed_by,optional"`
	Status          string       `json:"status" parquet:"status"`
	SCMSHA          httpapi.Text `json:"scm_sha" parquet:"scm_sha,optional"`
	BuildNumber     httpapi.Text `json:"build_number" parquet:"build_number,optional"`
	DeployURL       httpapi.Text `json:"deploy_url" parquet:"deploy_url,optional"`
	Drift           bool         `json:"drift" parquet:"drift"`
	Position        string       `json:"position" parquet:"position"`
}

// exportedCellsOf gives the cells in which something is live since a place.
func exportedCellsOf(m *readmodel.Matrix, behind event.Offset) []exportedCell {
	columns := make(map[event.EnvironmentID]*readmodel.EnvironmentRow, len(m.Environments))
	for i := range m.Environments {
		columns[m.Environments[i].ID] = &m.Environments[i]
	}
	var out []exportedCell
	for i := range m.Items {
		item := &m.Items[i]
		for j := range item.Cells {
			c := &item.Cells[j]
			column := columns[c.Environment]
			if c.Live == nil || column == nil || c.Live.Position.Offset <= behind {
				continue
			}
			shown := matrixCellOf(c, column.Name)
			out = append(out, exportedCell{
				ProductID: item.Product.ID.String(), ProductName: item.Product.Name,
				EnvironmentID: shown.EnvironmentID, EnvironmentName: shown.EnvironmentName, EnvironmentType: httpapi.Text(column.Class.String()),
				Version: shown.Version, VersionID: shown.VersionID, DeploymentID: shown.DeploymentID, DeployedAt: shown.DeployedAt,
				DeployedBy: shown.DeployedBy, Status: shown.Status, SCMSHA: shown.SCMSHA, BuildNumber: shown.BuildNumber, DeployURL: shown.DeployURL,
				Drift: item.Drift, Position: c.Live.Position.String(),
			})
		}
	}
	return out
}
