package httpapi

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
)

// Text is a string of an answer; null where it is empty.
type Text string

// MarshalJSONTo writes null for "".
func (t Text) MarshalJSONTo(enc *jsontext.Encoder) error {
	if t == "" {
		return enc.WriteToken(jsontext.Null)
	}
	return enc.WriteToken(jsontext.String(string(t)))
}

// Moment gives a time of an answer; nil, which is null, where it is zero.
func Moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// Deployment is the answer of contract 4.1.
type Deployment struct {
	ID              string         `json:"id"`
	DeploymentID    string         `json:"deployment_id"`
	EventID         string         `json:"event_id,omitzero"`
	ProductID       string         `json:"product_id"`
	VersionID       string         `json:"version_id"`
	EnvironmentID   string         `json:"environment_id"`
	ProductName     string         `json:"product_name"`
	Version         string         `json:"version"`
	EnvironmentName string         `json:"environment_name"`
	Status          string         `json:"status"`
	DeployedAt      *time.Time     `json:"deployed_at"`
	CompletedAt     *time.Time     `json:"completed_at"`
	CreatedAt       *time.Time     `json:"created_at"`
	SourceSystem    Text           `json:"source_system"`
	DeployedBy      Text           `json:"deployed_by"`
	DeployedByName  Text           `json:"deployed_by_name"`
	DeployedByEmail Text           `json:"deployed_by_email"`
	DeployURL       Text           `json:"deploy_url"`
	ExtraMetadata   jsontext.Value `json:"extra_metadata"`
	SoakTimeHours   *float64       `json:"soak_time_hours"`
	SHAMismatch     bool           `json:"sha_mismatch"`
}

// DeploymentOf shows a record.
func DeploymentOf(r *event.Record, eventID string) Deployment {
	id := r.ID.String()
	return Deployment{
		ID: id, DeploymentID: id, EventID: eventID,
		ProductID: r.ProductID.String(), VersionID: r.VersionID.String(), EnvironmentID: r.EnvironmentID.String(),
		ProductName: r.ProductName, Version: r.Version, EnvironmentName: r.EnvironmentName, Status: r.Status.String(),
		DeployedAt: Moment(r.DeployedAt()), CompletedAt: Moment(r.CompletedAt), CreatedAt: Moment(r.CreatedAt),
		SourceSystem: Text(r.Attributes[event.SourceSystem]),
		DeployedBy:   Text(r.Attributes[event.By]), DeployedByName: Text(r.Attributes[event.ByName]), DeployedByEmail: Text(r.Attributes[event.ByEmail]),
		DeployURL: Text(r.Attributes[event.URL]), ExtraMetadata: ExtraOf(r), SHAMismatch: r.SHAMismatch,
	}
}

// Build is the answer of contract 4.2.
type Build struct {
	ID          string     `json:"id"`
	BuildID     string     `json:"build_id"`
	EventID     string     `json:"event_id,omitzero"`
	ProductID   string     `json:"product_id"`
	VersionID   string     `json:"version_id"`
	ProductName string     `json:"product_name"`
	Version     string     `json:"version"`
	Status      string     `json:"status"`
	StartedAt   *time.Time `json:"started_at"`
	CompletedAt *time.Time `json:"completed_at"`
	CreatedAt   *time.Time `json:"created_at"`
	BuildNumber Text       `json:"build_number"`
	BuildURL    Text       `json:"build_url"`
}

// BuildOf shows a record.
func BuildOf(r *event.Record, eventID string) Build {
	id := r.ID.String()
	return Build{
		ID: id, BuildID: id, EventID: eventID, ProductID: r.ProductID.String(), VersionID: r.VersionID.String(),
		ProductName: r.ProductName, Version: r.Version, Status: r.Status.String(),
		StartedAt: Moment(r.StartedAt), CompletedAt: Moment(r.CompletedAt), CreatedAt: Moment(r.CreatedAt),
		BuildNumber: Text(r.Attributes[event.BuildNumber]), BuildURL: Text(r.Attributes[event.URL]),
	}
}

// ExtraOf writes a record's extra_metadata, with its members in order; null
// where it has none.
func ExtraOf(r *event.Record) jsontext.Value { return appendExtra(nil, r) }

// Product is the answer of contract 5.1. Descriptions and metadata are set by
// people; events give none.
type Product struct {
	ID            string         `json:"id"`
	Name          string         `json:"name"`
	Description   Text           `json:"description"`
	ExtraMetadata jsontext.Value `json:"extra_metadata"`
	CreatedAt     *time.Time     `json:"created_at"`
}

// ProductOf shows a product.
func ProductOf(p *event.Product) Product {
	return Product{p.ID.String(), p.Name, Text(p.Description), objectOf(p.Extra), Moment(p.CreatedAt)}
}

// Environment is the answer of contract 5.1.
type Environment struct {
	ID            string         `json:"id"`
	Name          string         `json:"name"`
	Type          Text           `json:"type"`
	Description   Text           `json:"description"`
	Metadata      jsontext.Value `json:"metadata"`
	ExtraMetadata jsontext.Value `json:"extra_metadata"` // the same under its other name
	// ConcurrencyLimit is how many deployments may be under way at a time, and
	// StaleAfter how many minutes a start blocks others (contract 22).
	ConcurrencyLimit int        `json:"concurrency_limit"`
	StaleAfter       int        `json:"stale_after"`
	CreatedAt        *time.Time `json:"created_at"`
}

// EnvironmentOf shows an environment.
func EnvironmentOf(e *event.Environment) Environment {
	out := Environment{
		ID: e.ID.String(), Name: e.Name, Type: Text(e.Class.String()), Description: Text(e.Description),
		Metadata: objectOf(e.Extra), ExtraMetadata: objectOf(e.Extra), ConcurrencyLimit: int(e.ConcurrencyLimit),
		StaleAfter: int(e.StaleAfter / time.Minute), CreatedAt: Moment(e.CreatedAt),
	}
	if out.ConcurrencyLimit == 0 {
		out.ConcurrencyLimit = event.DefaultConcurrencyLimit
	}
	if out.StaleAfter == 0 {
		out.StaleAfter = int(event.DefaultStaleAfter / time.Minute)
	}
	return out
}

// objectOf shows a JSON object; null where there is none.
func objectOf(extra []byte) jsontext.Value {
	if extra == nil {
		return jsontext.Value("null")
	}
	return extra
}
