package accounts

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/ratelimit"
)

// asClass is how somebody gives up the own budget of a credential.
const asClass = "default"

// limitsWire are the members of a body that limit one credential.
type limitsWire struct {
	AllowFrom jsontext.Value `json:"ip_allow"`
	Rate      jsontext.Value `json:"rate_limit"`
}

// rateAnswer is a rate as answers show it, and as bodies may write it.
type rateAnswer struct {
	Tokens int    `json:"tokens"`
	Per    string `json:"per"`
	Burst  int    `json:"burst"`
}

func rateToAPI(r credential.Rate) *rateAnswer {
	if r == (credential.Rate{}) {
		return nil
	}
	return &rateAnswer{r.Tokens, ratelimit.Rate(r).Time(), r.Burst}
}

func prefixesToAPI(all []netip.Prefix) []string {
	out := make([]string, len(all))
	for i, p := range all {
		out[i] = p.String()
	}
	return out
}

// prefixes gives the list that a body holds; nil where it holds none.
func (w *limitsWire) prefixes() (*[]netip.Prefix, error) {
	if absent(w.AllowFrom) {
		return nil, nil
	}
	var texts []string
	if err := json.Unmarshal(w.AllowFrom, &texts, lenient); err != nil {
		return nil, fault.New(fault.Unprocessable, "", "a list of addresses and networks")
	}
	all, err := credential.ParsePrefixes(texts)
	return &all, err
}

// rate gives the budget that a body holds; nil where it holds none.
func (w *limitsWire) rate() (*credential.Rate, error) {
	if absent(w.Rate) {
		return nil, nil
	}
	refuse := func(err error) (*credential.Rate, error) {
		return nil, fault.New(fault.Unprocessable, "", "%s", err)
	}
	var text string
	switch w.Rate.Kind() {
	case '"':
		if err := json.Unmarshal(w.Rate, &text, lenient); err != nil {
			return refuse(err)
		}
		if text == asClass {
			return &credential.Rate{}, nil
		}
	case '{':
		var o rateAnswer
		if err := json.Unmarshal(w.Rate, &o, lenient); err != nil {
			return refuse(errors.New(`write {"tokens": 60, "per": "1m", "burst": 100}, or 60/1m,burst=100`))
		}
		text = fmt.Sprintf("%d/%s", o.Tokens, o.Per)
		if o.Burst != 0 {
			text += fmt.Sprintf(",burst=%d", o.Burst)
		}
	default:
		return refuse(errors.New(`write {"tokens": 60, "per": "1m", "burst": 100}, or 60/1m,burst=100`))
	}
	rate, err := ratelimit.ParseRate(text)
	if err != nil {
		return refuse(err)
	}
	if rate.FillTime() > ratelimit.MaxFill {
		return refuse(fmt.Errorf("the burst must be there again within %v", ratelimit.MaxFill))
	}
	own := credential.Rate(rate)
	return &own, nil
}

func absent(v jsontext.Value) bool {
	return len(v) == 0 || v.Kind() == 'n' || string(v) == `""`
}
