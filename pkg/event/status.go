package event

import (
	"maps"
	"strings"
)

// Kind tells the two kinds of run apart.
type Kind uint8

// The kinds of run.
const (
	Deployment Kind = iota + 1
	Build
)

// String gives the word that event types and schemas use.
func (k Kind) String() string {
	switch k {
	case Deployment:
		return "deployment"
	case Build:
		return "build"
	}
	return "unknown"
}

// Status is where a run stands (contract 9 and 11).
type Status uint8

// The canonical statuses. PreflightFailed is never sent by a client: it closes
// a start that a rule refused.
const (
	Pending Status = iota + 1
	Started
	Completed
	Failed
	Aborted
	PreflightFailed
)

var statusWords = [...]string{
	Pending: "pending", Started: "started", Completed: "completed",
	Failed: "failed", Aborted: "aborted", PreflightFailed: "preflight_failed",
}

var statusByWord = map[string]Status{
	"pending": Pending, "queued": Pending, "scheduled": Pending,
	"started": Started, "in_progress": Started, "init": Started, "deploying": Started, "building": Started,
	"success": Completed, "completed": Completed, "complete": Completed, "finished": Completed, "deployed": Completed, "built": Completed,
	"failed": Failed, "fail": Failed, "failure": Failed, "error": Failed,
	"aborted": Aborted, "abort": Aborted, "cancelled": Aborted, "canceled": Aborted, "cancel": Aborted, "skipped": Aborted,
}

// ParseStatus reads any word of contract 9, in any case and with spaces around
// it. It does not know preflight_failed, which no client may report.
func ParseStatus(word string) (Status, bool) {
	if s, ok := statusByWord[word]; ok { // the usual spelling, without an allocation
		return s, true
	}
	s, ok := statusByWord[strings.ToLower(strings.TrimSpace(word))]
	return s, ok
}

// StatusOf reads a canonical word, as events and rows hold it.
func StatusOf(word string) (Status, bool) {
	for s, w := range statusWords {
		if w == word && w != "" {
			return Status(s), true
		}
	}
	return 0, false
}

// StatusWords gives every word that ParseStatus accepts, for documents and tests.
func StatusWords() map[string]Status {
	return maps.Clone(statusByWord)
}

// String gives the canonical word.
func (s Status) String() string {
	if int(s) < len(statusWords) {
		return statusWords[s]
	}
	return ""
}

// Rank orders statuses along the life of a run: it never regresses
// (contract 11.2).
func (s Status) Rank() int {
	switch s {
	case Pending:
		return 1
	case Started:
		return 2
	case Completed, Failed, Aborted, PreflightFailed:
		return 3
	}
	return 0
}

// Terminal tells whether a run ends with s.
func (s Status) Terminal() bool { return s.Rank() == 3 }

// StatusSet is a set of statuses.
type StatusSet uint8

// With gives the set with s in it.
func (set StatusSet) With(s Status) StatusSet { return set | 1<<s }

// Has tells whether s is in the set.
func (set StatusSet) Has(s Status) bool { return set&(1<<s) != 0 }
