package event

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"
)

// The types of events about releases. Each carries the whole release.
const (
	ReleaseCreated        Type = "release.created"
	ReleaseUpdated        Type = "release.updated"
	ReleaseVersionAdded   Type = "release.version_added"
	ReleaseVersionRemoved Type = "release.version_removed"
)

// A Release as it stands after an event: versions that people want to see out
// together. It blocks nothing (contract 19).
type Release struct {
	ID          ulid.ULID
	Name        string
	Description string
	Status      string // draft, in_progress, completed or cancelled
	Extra       []byte // a JSON object without white space; nil: none
	CreatedAt   time.Time
	Versions    []ReleaseVersion // one per product, in the order in which they were added
}

// A ReleaseVersion is a version in a release.
type ReleaseVersion struct {
	ID          VersionID
	ProductID   ProductID
	Incarnation uint16 // of the product
	ProductName string // when it was added
	Version     string
	AddedAt     time.Time
}

func (*Release) schema() string { return "release/1" }

type releaseWire struct {
	Name        string               `json:"name"`
	Description string               `json:"description,omitzero"`
	Status      string               `json:"status"`
	Extra       jsontext.Value       `json:"extra_metadata,omitzero"`
	CreatedAt   time.Time            `json:"created_at"`
	Versions    []releaseVersionWire `json:"versions,omitempty"`
}

type releaseVersionWire struct {
	ID          uuid.UUID `json:"id"`
	ProductID   uuid.UUID `json:"product_id"`
	Incarnation uint16    `json:"incarnation,omitzero"`
	ProductName string    `json:"product_name"`
	Version     string    `json:"version"`
	AddedAt     time.Time `json:"added_at"`
}

// AppendReleaseVersions writes the versions of a release as a JSON array.
func AppendReleaseVersions(dst []byte, versions []ReleaseVersion) []byte {
	b, _ := json.Marshal(toVersionWire(versions)) // plain strings and times
	return append(dst, b...)
}

// DecodeReleaseVersions reads what AppendReleaseVersions wrote.
func DecodeReleaseVersions(b []byte) ([]ReleaseVersion, error) {
	var wire []releaseVersionWire
	err := json.Unmarshal(b, &wire, decodeOptions)
	return fromVersionWire(wire), err
}

func toVersionWire(versions []ReleaseVersion) []releaseVersionWire {
	out := make([]releaseVersionWire, len(versions))
	for i, v := range versions {
		out[i] = releaseVersionWire{uuid.UUID(v.ID), uuid.UUID(v.ProductID), v.Incarnation, v.ProductName, v.Version, v.AddedAt.UTC()}
	}
	return out
}

func fromVersionWire(wire []releaseVersionWire) []ReleaseVersion {
	var out []ReleaseVersion
	for _, v := range wire {
		out = append(out, ReleaseVersion{VersionID(v.ID), ProductID(v.ProductID), v.Incarnation, v.ProductName, v.Version, v.AddedAt})
	}
	return out
}

func (w *writer) release(r *Release, e *Event) {
	b, _ := json.Marshal(releaseWire{r.Name, r.Description, r.Status, r.Extra, r.CreatedAt.UTC(), toVersionWire(r.Versions)}, jsontext.AllowInvalidUTF8(true))
	w.raw(`{"release":`)
	w.dst = append(w.dst, b...)
	w.bodyHash(e)
	w.raw(`}`)
}

func (e *envelope) release(r *Recorded) (*Release, error) {
	var d struct {
		Release  releaseWire `json:"release"`
		BodyHash hash        `json:"body_hash"`
	}
	if err := json.Unmarshal(e.Data, &d, decodeOptions); err != nil {
		return nil, err
	}
	id, err := ulid.ParseStrict(r.Subject)
	if err != nil {
		return nil, err
	}
	r.BodyHash = uint64(d.BodyHash)
	w := d.Release
	return &Release{
		ID: id, Name: w.Name, Description: w.Description, Status: w.Status, Extra: w.Extra, CreatedAt: w.CreatedAt,
		Versions: fromVersionWire(w.Versions),
	}, nil
}
