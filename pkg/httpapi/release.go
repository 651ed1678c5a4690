package httpapi

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/event"
)

// Release is a release as answers show it (contract 5, 19).
type Release struct {
	ID            string           `json:"id"`
	Name          string           `json:"name"`
	Description   Text             `json:"description"`
	Status        string           `json:"status"`
	ExtraMetadata jsontext.Value   `json:"extra_metadata"`
	CreatedAt     *time.Time       `json:"created_at"`
	Versions      []ReleaseVersion `json:"versions"`
}

// ReleaseVersion is a version in a release.
type ReleaseVersion struct {
	VersionID   string     `json:"version_id"`
	Version     string     `json:"version"`
	ProductID   string     `json:"product_id"`
	ProductName string     `json:"product_name"`
	AddedAt     *time.Time `json:"added_at"`
}

// ReleaseOf shows a release.
func ReleaseOf(r *event.Release) Release {
	out := Release{
		ID: r.ID.String(), Name: r.Name, Description: Text(r.Description), Status: r.Status,
		ExtraMetadata: objectOf(r.Extra), CreatedAt: Moment(r.CreatedAt), Versions: make([]ReleaseVersion, len(r.Versions)),
	}
	for i := range r.Versions {
		out.Versions[i] = ReleaseVersionOf(&r.Versions[i])
	}
	return out
}

// ReleaseVersionOf shows a version in a release.
func ReleaseVersionOf(v *event.ReleaseVersion) ReleaseVersion {
	return ReleaseVersion{v.ID.String(), v.Version, v.ProductID.String(), v.ProductName, Moment(v.AddedAt)}
}
