package tracking

import (
	"slices"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
)

// maxReleaseVersions bounds what every event of a release carries.
const maxReleaseVersions = 500

// release is where the last event of a release stands, which holds it whole.
type release struct {
	account string
	offset  event.Offset
}

// The actions on releases.
type (
	// CreateRelease makes a release. An empty Status is draft.
	CreateRelease struct {
		Name, Description, Status string
		Extra                     []byte
	}
	// UpdateRelease changes what people say of a release.
	UpdateRelease struct {
		ID                        ulid.ULID
		Name, Description, Status *string
		Extra                     []byte // nil: as it is; {}: none
	}
	// AddToRelease puts a version into a release, the only one of its product.
	AddToRelease struct {
		ID      ulid.ULID
		Version event.VersionID
	}
	// RemoveFromRelease takes a version out of a release.
	RemoveFromRelease struct {
		ID      ulid.ULID
		Version event.VersionID
	}
)

func (s *State) applyRelease(r event.Recorded, p *event.Release) {
	put(s, s.releases, p.ID, release{r.Account, r.Position.Offset})
}

func (s *State) releaseOffset(id ulid.ULID) []event.Offset {
	if r, ok := s.releases[id]; ok {
		return []event.Offset{r.offset}
	}
	return nil
}

func (a CreateRelease) past(*State) []event.Offset       { return nil }
func (a UpdateRelease) past(s *State) []event.Offset     { return s.releaseOffset(a.ID) }
func (a RemoveFromRelease) past(s *State) []event.Offset { return s.releaseOffset(a.ID) }

func (a AddToRelease) past(s *State) []event.Offset {
	out := s.releaseOffset(a.ID)
	for i := range s.incarnations + 1 { // the id does not say which product, hence which incarnation
		if v, ok := s.versions.of(versionKey{a.Version, i}); ok {
			out = append(out, v.offset)
		}
	}
	return out
}

func (a CreateRelease) decide(d *changing) error {
	r := &event.Release{
		ID: d.k.NewID(), Name: a.Name, Description: a.Description, Status: a.Status, Extra: given(a.Extra), CreatedAt: d.k.Now,
	}
	if r.Status == "" {
		r.Status = "draft"
	}
	d.emit(event.ReleaseCreated, r.ID.String(), r)
	return nil
}

func (a UpdateRelease) decide(d *changing) error {
	r, err := d.release(a.ID)
	if err != nil {
		return err
	}
	changed := replace(&r.Name, a.Name)
	changed = replace(&r.Description, a.Description) || changed
	changed = replace(&r.Status, a.Status) || changed
	if replaceExtra(&r.Extra, a.Extra) || changed {
		d.emit(event.ReleaseUpdated, r.ID.String(), r)
	}
	return nil
}

func (a AddToRelease) decide(d *changing) error {
	r, err := d.release(a.ID)
	if d.trial && fault.KindOf(err) == fault.NotFound { // it may be the version that is known here
		if _, _, known := d.version(a.Version); known != nil {
			return known
		}
	}
	if err != nil {
		return err
	}
	v, product, err := d.version(a.Version)
	if err != nil {
		return err
	}
	r.Versions = d.living(r.Versions)
	for _, had := range r.Versions {
		switch {
		case had.ID == a.Version:
			return nil
		case had.ProductID == v.ProductID:
			return fault.New(fault.Conflict, "PRODUCT_IN_RELEASE", "The release already has version %s of %s", had.Version, product.name)
		}
	}
	if len(r.Versions) >= maxReleaseVersions {
		return fault.New(fault.Conflict, "RELEASE_FULL", "A release has at most %d versions", maxReleaseVersions)
	}
	r.Versions = append(r.Versions, event.ReleaseVersion{
		ID: v.ID, ProductID: v.ProductID, Incarnation: v.Incarnation, ProductName: product.name, Version: v.Version, AddedAt: d.k.Now,
	})
	d.emit(event.ReleaseVersionAdded, r.ID.String(), r)
	return nil
}

func (a RemoveFromRelease) decide(d *changing) error {
	r, err := d.release(a.ID)
	if err != nil {
		return err
	}
	r.Versions = d.living(r.Versions)
	n := len(r.Versions)
	if r.Versions = slices.DeleteFunc(r.Versions, func(v event.ReleaseVersion) bool { return v.ID == a.Version }); len(r.Versions) == n {
		return notFound("version of the release")
	}
	d.emit(event.ReleaseVersionRemoved, r.ID.String(), r)
	return nil
}

// release gives a copy of a release of the caller's account, to be changed.
func (d *changing) release(id ulid.ULID) (*event.Release, error) {
	held, ok := d.s.releases[id]
	switch {
	case !ok:
		return nil, notFound("release")
	case held.account != d.c.Account:
		return nil, notOwner("release")
	}
	last := d.k.Past[held.offset]
	was, ok := last.Payload.(*event.Release)
	if !ok {
		return nil, missingPast("release", id.String())
	}
	d.already(last)
	r := *was
	r.Versions = slices.Clone(was.Versions)
	return &r, nil
}

// version gives a version of a living product of the caller's account.
func (d *changing) version(id event.VersionID) (*event.Version, *object, error) {
	foreign := false
	for i := range d.s.incarnations + 1 {
		held, ok := d.s.versions.of(versionKey{id, i})
		if !ok {
			continue
		}
		past := d.k.Past[held.offset]
		v, ok := past.Payload.(*event.Version)
		if !ok {
			return nil, nil, missingPast("version", id.String())
		}
		o := d.s.products.byID[uuid.UUID(v.ProductID)]
		if o == nil || o.deleted || o.incarnation != v.Incarnation {
			continue
		}
		if foreign = past.Account != d.c.Account; !foreign {
			return v, o, nil
		}
	}
	if foreign {
		return nil, nil, notOwner("version")
	}
	return nil, nil, notFound("version")
}

// living leaves out what was deleted since.
func (d *changing) living(versions []event.ReleaseVersion) []event.ReleaseVersion {
	return slices.DeleteFunc(versions, func(v event.ReleaseVersion) bool {
		o := d.s.products.byID[uuid.UUID(v.ProductID)]
		return o == nil || o.deleted || o.incarnation != v.Incarnation
	})
}
