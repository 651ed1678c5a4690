package credential

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
)

// A Digest is all that is kept of a secret.
type Digest [sha256.Size]byte

// minPepperBytes is the output size of the hash: shorter keys weaken it.
const minPepperBytes = sha256.Size

// Peppers are the keys of the digests, by version. They live outside the event
// store, so that the store alone does not suffice to test a guessed secret.
// They are safe for concurrent use.
type Peppers struct {
	current   int
	byVersion map[int]*pepper
}

type pepper struct{ macs sync.Pool }

// mac is what one digest needs; pooled, because a keyed hash and the copy of
// the token would be allocated anew for every request.
type mac struct {
	keyed hash.Hash
	token []byte
	sum   Digest
}

// NewPeppers makes peppers of one key per version. The highest version digests
// new secrets; the others still verify what was made with them.
func NewPeppers(keys map[int][]byte) (*Peppers, error) {
	p := &Peppers{byVersion: map[int]*pepper{}}
	for version, key := range keys {
		if version < 1 {
			return nil, fmt.Errorf("pepper version %d: versions begin at 1", version)
		}
		if len(key) < minPepperBytes {
			return nil, fmt.Errorf("pepper version %d has %d bytes, at least %d are needed", version, len(key), minPepperBytes)
		}
		key := append([]byte(nil), key...)
		p.byVersion[version] = &pepper{sync.Pool{New: func() any { return &mac{keyed: hmac.New(sha256.New, key)} }}}
		p.current = max(p.current, version)
	}
	if p.current == 0 {
		return nil, errors.New("no pepper is given")
	}
	return p, nil
}

// ParsePeppers reads peppers as operators write them: base64 or hexadecimal,
// several ones apart by commas or white space, each behind its version and a
// colon; a lone one needs no version. Errors never show a value.
func ParsePeppers(text string) (*Peppers, error) {
	keys, err := parseKeys("pepper", text)
	if err != nil {
		return nil, err
	}
	return NewPeppers(keys)
}

// parseKeys reads keys by their versions; word is what they are called.
func parseKeys(word, text string) (map[int][]byte, error) {
	fields := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
	keys := map[int][]byte{}
	for _, field := range fields {
		version := 1
		if number, value, ok := strings.Cut(field, ":"); ok {
			n, err := strconv.Atoi(number)
			if err != nil {
				return nil, fmt.Errorf("the version of a %s is no number", word)
			}
			version, field = n, value
		}
		if _, twice := keys[version]; twice {
			return nil, fmt.Errorf("%s version %d is given twice", word, version)
		}
		key, err := decodeKey(field)
		if err != nil {
			return nil, fmt.Errorf("%s version %d: %w", word, version, err)
		}
		keys[version] = key
	}
	return keys, nil
}

// decodeKey tries hexadecimal first: as base64 the same text would read too.
func decodeKey(text string) ([]byte, error) {
	if key, err := hex.DecodeString(text); err == nil {
		return key, nil
	}
	text = strings.TrimRight(text, "=")
	if key, err := base64.RawStdEncoding.DecodeString(text); err == nil {
		return key, nil
	}
	if key, err := base64.RawURLEncoding.DecodeString(text); err == nil {
		return key, nil
	}
	return nil, errors.New("neither hexadecimal nor base64")
}

// Current gives the version that digests new secrets.
func (p *Peppers) Current() int { return p.current }

// Digest digests a secret under the current version.
func (p *Peppers) Digest(token string) (d Digest, version int) {
	m := p.byVersion[p.current].digest(token)
	d = m.sum
	p.byVersion[p.current].macs.Put(m)
	return d, p.current
}

// matches compares a secret with a digest of some version in constant time. A
// version that is not held matches nothing, in the same time.
func (p *Peppers) matches(token string, version int, want *Digest) bool {
	pep, held := p.byVersion[version]
	if !held {
		pep = p.byVersion[p.current]
	}
	m := pep.digest(token)
	same := subtle.ConstantTimeCompare(m.sum[:], want[:]) == 1
	pep.macs.Put(m)
	return same && held
}

// digest gives a mac that holds the digest and nothing of the token any more.
func (p *pepper) digest(token string) *mac {
	m := p.macs.Get().(*mac)
	m.token = append(m.token[:0], token...)
	m.keyed.Reset()
	m.keyed.Write(m.token)
	m.keyed.Sum(m.sum[:0])
	clear(m.token)
	return m
}
