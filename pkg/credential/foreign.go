package credential

import "github.com/shipledger/shipledger/pkg/event"

// A Form is the shape of a credential that another system made (contract 3.2).
type Form struct {
	Kind Kind       // APIKey: its account's; PAT: its user's
	Mode event.Mode // what the form shows; Live where it shows none
}

// Lengths of what other systems make. Where a form promises none, a secret must
// at least be too long to be guessed.
const (
	foreignKeyRandom = 32
	foreignRandom    = 16
	foreignSum       = 4
	hexLen           = 48
)

// ParseForeign tells whether a value is a credential of a form that can be
// imported, and which. It knows forms only: the checksums of other systems are
// theirs, and what counts here is the digest of the whole value.
func ParseForeign(value string) (Form, bool) {
	if len(value) > maxTokenBytes {
		return Form{}, false
	}
	switch {
	case startsWith(value, "sk_"):
		return foreignKey(value)
	case startsWith(value, "pat_"):
		rest := value[len("pat_"):]
		return Form{PAT, event.Live}, len(rest) >= foreignRandom && wordEnd(rest) == len(rest)
	case startsWith(value, "vrt_live_"), startsWith(value, "vrt_test_"):
		mode := event.Mode(value[len("vrt_"):len("vrt_live")])
		from := len("vrt_live_")
		end := span(value, from, inBase62)
		if end-from < foreignRandom || !is(value, end, '_') {
			return Form{}, false
		}
		sum := end + 1
		return Form{APIKey, mode}, len(value)-sum == foreignSum && span(value, sum, inBase62) == len(value)
	case startsWith(value, "vf_tok_"):
		rest := value[len("vf_tok_"):]
		return Form{APIKey, event.Live}, len(rest) >= foreignRandom && wordEnd(rest) == len(rest)
	case startsWith(value, "vso_"):
		from := len("vso_")
		return Form{PAT, event.Live}, len(value)-from == hexLen && hexEnd(value, from) == len(value)
	}
	return Form{}, false
}

// foreignKey reads sk_{account}_{key_id}_{random}, its checksum of another
// length or missing.
func foreignKey(value string) (Form, bool) {
	account := span(value, len("sk_"), inSlug)
	if n := account - len("sk_"); n < 1 || n > maxAccount || !is(value, account, '_') {
		return Form{}, false
	}
	id := account + 1
	idEnd := span(value, id, inBase62)
	if n := idEnd - id; n < 1 || n > maxTokenID || !is(value, idEnd, '_') {
		return Form{}, false
	}
	random := idEnd + 1
	return Form{APIKey, ModeOf(APIKey, value[id:idEnd])}, len(value)-random >= foreignKeyRandom && span(value, random, inBase62) == len(value)
}

// wordEnd gives the end of the run of base62 characters, _ and - at the start of s.
func wordEnd(s string) int {
	i := 0
	for i < len(s) && (classes[s[i]]&inBase62 != 0 || s[i] == '_' || s[i] == '-') {
		i++
	}
	return i
}

// hexEnd gives the end of the run of lower-case hexadecimal digits at from.
func hexEnd(s string, from int) int {
	i := from
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'f') {
		i++
	}
	return i
}

// foreign is the part of a keyring that finds imported credentials. Their
// values name no record, so they are found by digest.
type foreign struct {
	byDigest map[foreignDigest]name
	versions map[int]int // pepper version → how many digests were made with it
}

type foreignDigest struct {
	pepper int
	digest Digest
}

func (f *foreign) add(r *Record, n name) {
	d := foreignDigest{r.Pepper, r.Digest}
	if _, ok := f.byDigest[d]; ok {
		return
	}
	if f.byDigest == nil {
		f.byDigest, f.versions = map[foreignDigest]name{}, map[int]int{}
	}
	f.byDigest[d] = n
	f.versions[d.pepper]++
}

func (f *foreign) remove(r *Record) {
	d := foreignDigest{r.Pepper, r.Digest}
	if _, ok := f.byDigest[d]; !ok {
		return
	}
	delete(f.byDigest, d)
	if f.versions[d.pepper]--; f.versions[d.pepper] == 0 {
		delete(f.versions, d.pepper)
	}
}

// imported gives the imported credential that has this value. Where nothing was
// imported, and for what has no such form, nothing is digested or looked up.
func (k *Keyring) imported(value string) (*entry, bool) {
	if len(k.foreign.byDigest) == 0 {
		return nil, false
	}
	if _, ok := ParseForeign(value); !ok {
		return nil, false
	}
	for version := range k.foreign.versions {
		p, held := k.peppers.byVersion[version]
		if !held {
			continue
		}
		m := p.digest(value)
		d := foreignDigest{version, m.sum}
		p.macs.Put(m)
		n, ok := k.foreign.byDigest[d]
		if !ok {
			continue
		}
		if e := k.byName[n]; e != nil && e.record != nil && e.record.Legacy && (foreignDigest{e.record.Pepper, e.record.Digest}) == d {
			return e, true
		}
		return nil, false
	}
	return nil, false
}

// Holder gives the record, of whatever account and state, whose whole secret
// value is.
func (k *Keyring) Holder(value string) (Held, bool) {
	if t, err := Parse(value); err == nil {
		e, ok := k.byName[name{t.Account, t.PublicID}]
		if ok && e.record != nil && k.peppers.matches(value, e.record.Pepper, &e.record.Digest) {
			return Held{*e.record, e.at}, true
		}
	}
	if e, ok := k.imported(value); ok {
		return Held{*e.record, e.at}, true
	}
	return Held{}, false
}

// otherwise answers for a token that was not found as a minted one: err, unless it
// is an imported credential.
func (k *Keyring) otherwise(token string, err error) (*entry, error) {
	if e, ok := k.imported(token); ok {
		return e, nil
	}
	if err == ErrInvalidFormat && !startsWith(token, "sk_") && !startsWith(token, "pat_") { //nolint:errorlint // Parse returns that very value
		if _, ok := ParseForeign(token); ok {
			return nil, ErrInvalidKey // well formed, and nobody's
		}
	}
	return nil, err
}
