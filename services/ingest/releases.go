package ingest

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/tracking"
)

// releaseWire is a body about a release, checked by its schema.
type releaseWire struct {
	Name          string         `json:"name"`
	Description   string         `json:"description"`
	Status        string         `json:"status"`
	ExtraMetadata jsontext.Value `json:"extra_metadata"`
}

func readRelease(body []byte) (tracking.Action, error) {
	w, err := wire[releaseWire](body)
	return tracking.CreateRelease{Name: w.Name, Description: w.Description, Status: w.Status, Extra: objectIn(w.ExtraMetadata)}, err
}

func readReleasePatch(_ *httpapi.Request, id string, body []byte) (tracking.Action, error) {
	of, err := releaseID(id)
	if err != nil {
		return nil, err
	}
	w, err := wire[releaseWire](body)
	return tracking.UpdateRelease{
		ID: of, Name: asked(w.Name), Description: asked(w.Description), Status: asked(w.Status), Extra: objectIn(w.ExtraMetadata),
	}, err
}

func releaseID(id string) (ulid.ULID, error) {
	of, err := ulid.ParseStrict(id)
	if err != nil {
		return of, httpapi.NotFound("release")
	}
	return of, nil
}

// addReleaseVersion answers 201 with the release as it then stands.
func (s *Service) addReleaseVersion(w http.ResponseWriter, r *httpapi.Request) error {
	body, err := s.body(r)
	if err != nil {
		return err
	}
	id, err := releaseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	named, err := wire[struct {
		VersionID string `json:"version_id"`
	}](body)
	if err != nil {
		return err
	}
	version, err := derivedID("version", named.VersionID)
	if err != nil {
		return err
	}
	d, err := s.change(w, r, tracking.AddToRelease{ID: id, Version: event.VersionID(version)}, body)
	if err != nil {
		return err
	}
	return r.JSON(http.StatusCreated, shown(d.Object))
}

func (s *Service) removeReleaseVersion(w http.ResponseWriter, r *httpapi.Request) error {
	id, err := releaseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	version, err := uuid.Parse(r.PathValue("version_id"))
	if err != nil {
		return httpapi.NotFound("version of the release")
	}
	if _, err := s.change(w, r, tracking.RemoveFromRelease{ID: id, Version: event.VersionID(version)}, nil); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
