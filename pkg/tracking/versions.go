package tracking

import (
	"encoding/hex"
	"iter"
	"maps"
	"strings"

	"github.com/shipledger/shipledger/pkg/event"
)

// versions are those of a partition. They stay for ever, and a collection of garbage
// follows every pointer that is alive, while those who ask wait for its processors. So a
// commit is held as bytes where it fits; maps without pointers are not looked into.
type versions struct {
	held    map[versionKey]heldVersion
	commits map[versionKey]string // those that do not fit
}

// heldVersion is a version without pointers.
type heldVersion struct {
	commit  [20]byte
	form    commitForm
	fixed   bool
	created int64
	offset  event.Offset
}

// commitForm tells how a commit is held. Up to 20 it is a text of so many bytes.
type commitForm uint8

const (
	hexCommit   commitForm = 40  // its 40 digits
	otherCommit commitForm = 255 // in versions.commits
)

func newVersions() versions {
	return versions{map[versionKey]heldVersion{}, map[versionKey]string{}}
}

func (vs *versions) len() int { return len(vs.held) }

func (vs *versions) of(k versionKey) (version, bool) {
	h, ok := vs.held[k]
	return vs.version(k, &h), ok
}

func (vs *versions) all() iter.Seq2[versionKey, version] {
	return func(yield func(versionKey, version) bool) {
		for k, h := range vs.held {
			if !yield(k, vs.version(k, &h)) {
				return
			}
		}
	}
}

func (vs *versions) version(k versionKey, h *heldVersion) version {
	v := version{fixed: h.fixed, created: h.created, offset: h.offset}
	switch h.form {
	case otherCommit:
		v.sha = vs.commits[k]
	case hexCommit:
		v.sha = hex.EncodeToString(h.commit[:])
	default:
		v.sha = string(h.commit[:h.form])
	}
	return v
}

func (vs *versions) clone() versions { return versions{maps.Clone(vs.held), maps.Clone(vs.commits)} }

// putVersion keeps nothing of v's memory but a commit that does not fit.
func (s *State) putVersion(k versionKey, v version) {
	h := heldVersion{fixed: v.fixed, created: v.created, offset: v.offset}
	h.commit, h.form = commitBytes(v.sha)
	if h.form == otherCommit {
		put(s, s.versions.commits, k, strings.Clone(v.sha))
	} else {
		remove(s, s.versions.commits, k)
	}
	put(s, s.versions.held, k, h)
}

func commitBytes(sha string) (out [20]byte, form commitForm) {
	if len(sha) <= len(out) {
		copy(out[:], sha)
		return out, commitForm(len(sha)) //nolint:gosec // 20 at most
	}
	if len(sha) != int(hexCommit) {
		return out, otherCommit
	}
	for i := range len(sha) {
		if c := sha[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') { // as it would come back
			return out, otherCommit
		}
	}
	_, _ = hex.Decode(out[:], []byte(sha)) // its digits are
	return out, hexCommit
}
