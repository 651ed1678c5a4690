package accounts

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/httpapi"
)

// answer is a credential as answers show it (contract 3.5).
type answer struct {
	ID           string       `json:"id"`
	KeyID        string       `json:"key_id,omitzero"`
	TokenID      string       `json:"token_id,omitzero"`
	Name         string       `json:"name"`
	Description  httpapi.Text `json:"description"`
	Scopes       []string     `json:"scopes"`
	Mode         string       `json:"mode"`
	LastFour     string       `json:"last4"`
	CreatedAt    *time.Time   `json:"created_at"`
	CreatedBy    httpapi.Text `json:"created_by"`
	ExpiresAt    *time.Time   `json:"expires_at"`
	LastUsedAt   *time.Time   `json:"last_used_at"`
	LastUsedIP   httpapi.Text `json:"last_used_ip"`
	LastUsedWith httpapi.Text `json:"last_used_user_agent"`
	Status       string       `json:"status"`
	ExpiringSoon bool         `json:"expiring_soon"`
	Unused30d    bool         `json:"unused_30d"`
	Legacy       bool         `json:"legacy"`
	RotatedFrom  httpapi.Text `json:"rotated_from"`
	RotatedTo    httpapi.Text `json:"rotated_to"`
	GraceUntil   *time.Time   `json:"grace_until"`
	LeakedAt     *time.Time   `json:"leaked_at"` // when its secret was found elsewhere
	LeakURL      httpapi.Text `json:"leak_url"`
	AllowFrom    []string     `json:"ip_allow"`
	Rate         *rateAnswer  `json:"rate_limit"` // null: that of its class
	// Secret stands in the answer to the creation and in no other.
	Secret string `json:"secret,omitzero"`
}

func toAPI(r *credential.Record, now time.Time) answer {
	a := answer{
		ID: r.ID, Name: r.Name, Description: httpapi.Text(r.Description), Scopes: r.Scopes.Names(), Mode: string(r.Mode),
		LastFour: r.LastFour, CreatedAt: httpapi.Moment(r.CreatedAt), CreatedBy: httpapi.Text(r.CreatedBy), ExpiresAt: httpapi.Moment(r.ExpiresAt),
		Status: string(r.StatusAt(now)), ExpiringSoon: r.ExpiringSoon(now), Legacy: r.Legacy,
		RotatedFrom: httpapi.Text(r.RotatedFrom), RotatedTo: httpapi.Text(r.RotatedTo), GraceUntil: httpapi.Moment(r.GraceUntil),
		LeakedAt: httpapi.Moment(r.Leak.At), LeakURL: httpapi.Text(r.Leak.URL),
		AllowFrom: prefixesToAPI(r.AllowFrom), Rate: rateToAPI(r.Rate),
	}
	if r.Kind == credential.APIKey {
		a.KeyID = r.PublicID
	} else {
		a.TokenID = r.PublicID
	}
	return a
}

// orderWire is the body of a creation. Scope and scopes are two spellings of
// one thing, each a word or a list of words.
type orderWire struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Scope       jsontext.Value `json:"scope"`
	Scopes      jsontext.Value `json:"scopes"`
	Expires     string         `json:"expires"`
	Mode        string         `json:"mode"`
	Value       string         `json:"value"` // of an import
	limitsWire
}

// scopes gives the words asked for, and the field that they stand in.
func (w *orderWire) scopes() (field string, names []string) {
	for _, f := range []struct {
		name  string
		value jsontext.Value
	}{{"scopes", w.Scopes}, {"scope", w.Scope}} {
		var word string
		var list []string
		switch f.value.Kind() {
		case '"':
			if _ = json.Unmarshal(f.value, &word, lenient); word != "" {
				return f.name, []string{word}
			}
		case '[':
			if _ = json.Unmarshal(f.value, &list, lenient); len(list) > 0 {
				return f.name, list
			}
		}
	}
	return "scopes", nil
}

// lenient reads bodies as package httpapi checks them.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// said gives what somebody wrote beside a credential, a user or an account. A
// token that was put there is redacted: lists and exports show it (contract 21).
func said(text string) string { return string(credential.RedactIn([]byte(text))) }

func position(seq uint64) string {
	return event.Position{Stream: event.CredentialStream, Offset: event.At(seq, 0)}.String()
}
