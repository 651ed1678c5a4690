package event

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// Attribute names a text field that a run takes over from its events.
type Attribute uint8

// The attributes. URL and the By family have other wire names for deployments
// than for builds; see Attribute.Name.
const (
	SourceSystem Attribute = iota
	BuildNumber
	SCMSHA
	SCMBranch
	SCMRepository
	URL
	InvokeID
	By
	ByEmail
	ByName
	ErrorMessage
	ErrorCode
	attributeCount
)

// Attributes holds a value per Attribute; an empty one is absent.
type Attributes [attributeCount]string

var attributeNames = [...][attributeCount]string{
	Deployment: {
		SourceSystem: "source_system", BuildNumber: "build_number", SCMSHA: "scm_sha", SCMBranch: "scm_branch",
		SCMRepository: "scm_repository", URL: "deploy_url", InvokeID: "invoke_id",
		By: "deployed_by", ByEmail: "deployed_by_email", ByName: "deployed_by_name",
	},
	Build: {
		SourceSystem: "source_system", BuildNumber: "build_number", SCMSHA: "scm_sha", SCMBranch: "scm_branch",
		SCMRepository: "scm_repository", URL: "build_url", InvokeID: "invoke_id",
		By: "built_by", ByEmail: "built_by_email", ByName: "built_by_name",
		ErrorMessage: "error_message", ErrorCode: "error_code",
	},
}

// Name gives the attribute's name on the wire, empty where the kind has none.
func (a Attribute) Name(kind Kind) string { return attributeNames[kind][a] }

// A Stamp orders the values that a field was given: the highest status rank
// wins, then the later effective time, then the later place in the log
// (contract 11.8).
type Stamp struct {
	Rank      int
	Effective time.Time
	Offset    Offset
}

// After tells whether a value stamped s replaces one stamped t.
func (s Stamp) After(t Stamp) bool {
	if s.Rank != t.Rank {
		return s.Rank > t.Rank
	}
	if !s.Effective.Equal(t.Effective) {
		return s.Effective.After(t.Effective)
	}
	return s.Offset > t.Offset
}

// An Extra is one key of a run's extra_metadata: a JSON value and its stamp.
type Extra struct {
	Value []byte
	Stamp Stamp
}

// A Receipt remembers one accepted event of a run, so that the same bytes sent
// again add nothing and are answered with the same ids (contract 4.3).
type Receipt struct {
	Hash   uint64 // of credential, endpoint and body
	Event  ulid.ULID
	Offset Offset
}

// MaxReceipts is how many of its newest events a run remembers.
const MaxReceipts = 16

// A Record is a run, a deployment or a build, as it stands after an event. Each
// event of a run carries the whole record, so that a projection never needs a
// second event (architecture 6).
type Record struct {
	Kind    Kind
	ID      ulid.ULID
	Account string

	ProductID              ProductID
	ProductName            string
	ProductIncarnation     uint16
	EnvironmentID          EnvironmentID // zero for builds
	EnvironmentName        string
	EnvironmentIncarnation uint16
	VersionID              VersionID
	Version                string

	Status      Status
	Seen        StatusSet // every status reported, applied or not
	CreatedAt   time.Time // first receipt
	StartedAt   time.Time // earliest start; zero while unknown
	CompletedAt time.Time // effective time of the first terminal event; zero before

	Attributes      Attributes
	AttributeStamps [attributeCount]Stamp
	Extra           map[string]Extra
	SHAMismatch     bool // a deployment's commit is not the one its version was built from
	Receipts        []Receipt
}

// DeployedAt is the first start; without one, the effective time (contract 11.6).
func (r *Record) DeployedAt() time.Time {
	switch {
	case !r.StartedAt.IsZero():
		return r.StartedAt
	case !r.CompletedAt.IsZero():
		return r.CompletedAt
	default:
		return r.CreatedAt
	}
}

// Open tells whether the run can still end.
func (r *Record) Open() bool { return !r.Status.Terminal() }

// Run is the payload of deployment and build events.
type Run struct {
	Request     []byte   // the body as received, one JSON object; nil where no client sent one
	Asked       *Request // the same decoded, where it was; writing the event needs it
	AskedExtra  Object   // and the members of its extra_metadata, likewise
	EffectiveAt time.Time
	Hash        uint64 // of credential, endpoint and body; zero where a repeat need not be known
	Flag        string // what an operator may want to know: FlagSecondTerminal, FlagPreflightSkipped, or empty
	Refusal     *Refusal
	Record      Record
}

// Flags of a Run.
const (
	FlagSecondTerminal   = "second_terminal"   // another terminal status came after the first, which stays
	FlagPreflightSkipped = "preflight_skipped" // the caller asked to skip the rules, and was heard
)

// A Refusal says why a start became preflight_failed.
type Refusal struct {
	Rule     string    // name of the rule
	Code     string    // such as CONCURRENT_DEPLOYMENT
	Message  string    // for the user
	Conflict ulid.ULID // the deployment in the way, if one is
}

func (r *Run) schema() string { return r.Record.Kind.String() + "/1" }
