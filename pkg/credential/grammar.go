package credential

import (
	"fmt"
	"hash/crc32"
	"io"
	"strconv"

	"github.com/shipledger/shipledger/pkg/event"
)

// Lengths of contract 3.1. What has no limit there is bounded here, so that
// nobody makes the server work on a token of megabytes.
const (
	mintedRandom   = 40 // 238 bits
	checksumLen    = 6
	maxAccount     = 40
	maxKeyDigits   = 10
	maxTokenID     = 40
	maxTokenBytes  = 256
	tokenIDLen     = 12 // 71 bits: unique on the server without a look-up
	lastLen        = 4
	base62Alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// A Token is a credential as it was presented, taken apart. Its strings are
// parts of the presented one.
type Token struct {
	Kind     Kind   // APIKey or PAT
	Account  string // of an API key; a PAT does not name its account
	PublicID string // k1, t1, … or the token id
}

// Parse takes a minted token apart and checks its checksum, without any
// look-up. It returns ErrInvalidFormat or ErrInvalidKey.
func Parse(token string) (Token, error) {
	p, ok := shapeOf(token)
	if !ok || p.end != len(token) || len(token) > maxTokenBytes {
		return Token{}, ErrInvalidFormat
	}
	body := len(token) - checksumLen
	if encodeChecksum(^update(^uint32(0), token[:body])) != [checksumLen]byte([]byte(token[body:])) {
		return Token{}, ErrInvalidKey
	}
	return Token{p.kind, token[p.account:p.accountEnd], token[p.id:p.idEnd]}, nil
}

// Mint makes a new secret: of an API key, or, with an empty account, of a PAT.
// The mode must be the one that the key id shows; a token id shows none.
// The secret is to be shown once and kept nowhere.
func Mint(kind Kind, account, id string, mode event.Mode, entropy io.Reader) (string, error) {
	switch {
	case kind == APIKey && !ValidAccount(account):
		return "", fmt.Errorf("mint: %q is no account", account)
	case kind == APIKey && (id == "" || keyIDEnd(id, 0) != len(id) || ModeOf(kind, id) != mode):
		return "", fmt.Errorf("mint: %q is no key id in %s mode", id, mode)
	case kind == PAT && (account != "" || span(id, 0, inBase62) != len(id) || id == "" || len(id) > maxTokenID):
		return "", fmt.Errorf("mint: %q is no token id", id)
	case kind != APIKey && kind != PAT:
		return "", fmt.Errorf("mint: a credential of kind %d is not minted", kind)
	}
	random, err := Random(mintedRandom, entropy)
	if err != nil {
		return "", err
	}
	token := kind.prefix()
	if kind == APIKey {
		token += account + "_"
	}
	token += id + "_" + random
	sum := encodeChecksum(^update(^uint32(0), token))
	return token + string(sum[:]), nil
}

// Random gives n base62 characters, each equally likely.
func Random(n int, entropy io.Reader) (string, error) {
	const fair = 256 - 256%len(base62Alphabet) // bytes from here on would favour the first characters
	out := make([]byte, 0, n)
	buf := make([]byte, n)
	for len(out) < n {
		if _, err := io.ReadFull(entropy, buf[:n-len(out)]); err != nil {
			return "", fmt.Errorf("read randomness: %w", err)
		}
		for _, b := range buf[:n-len(out)] {
			if int(b) < fair {
				out = append(out, base62Alphabet[int(b)%len(base62Alphabet)])
			}
		}
	}
	return string(out), nil
}

// NewTokenID gives the public id of a new PAT.
func NewTokenID(entropy io.Reader) (string, error) { return Random(tokenIDLen, entropy) }

// KeyID gives the public id of an account's n-th API key in a mode. Keys are
// counted from 1, and a number is never used again.
func KeyID(mode event.Mode, n int) string {
	if mode == event.Test {
		return "t" + strconv.Itoa(n)
	}
	return "k" + strconv.Itoa(n)
}

// ModeOf gives the mode that a key id shows; PATs are live unless their record
// says otherwise.
func ModeOf(kind Kind, id string) event.Mode {
	if kind == APIKey && id != "" && id[0] == 't' {
		return event.Test
	}
	return event.Live
}

// ValidAccount tells whether slug can name an account (contract 2).
func ValidAccount(slug string) bool {
	return slug != "" && len(slug) <= maxAccount && span(slug, 0, inSlug) == len(slug)
}

// LastFour gives the characters of a secret that lists show.
func LastFour(token string) string {
	if len(token) < lastLen {
		return ""
	}
	return token[len(token)-lastLen:]
}

// shape says where the parts of a token are. The secret is the run of base62
// characters from random to end, checksum included.
type shape struct {
	kind                                        Kind
	account, accountEnd, id, idEnd, random, end int
}

// shapeOf finds the token that s begins with. The run at its end is as long as
// it can be.
func shapeOf[T string | []byte](s T) (p shape, ok bool) {
	switch {
	case startsWith(s, "sk_"):
		p.kind, p.account = APIKey, 3
		p.accountEnd = span(s, p.account, inSlug)
		if n := p.accountEnd - p.account; n < 1 || n > maxAccount || !is(s, p.accountEnd, '_') {
			return p, false
		}
		p.id = p.accountEnd + 1
		p.idEnd = keyIDEnd(s, p.id)
	case startsWith(s, "pat_"):
		p.kind, p.id = PAT, 4
		p.idEnd = span(s, p.id, inBase62)
		if p.idEnd-p.id > maxTokenID {
			return p, false
		}
	default:
		return p, false
	}
	if p.idEnd == p.id || !is(s, p.idEnd, '_') {
		return p, false
	}
	p.random = p.idEnd + 1
	p.end = span(s, p.random, inBase62)
	return p, p.end-p.random >= mintedRandom+checksumLen
}

// keyIDEnd gives the end of the key id at from, or from if there is none.
func keyIDEnd[T string | []byte](s T, from int) int {
	if !is(s, from, 'k') && !is(s, from, 't') {
		return from
	}
	end := span(s, from+1, inDigits)
	if n := end - from - 1; n < 1 || n > maxKeyDigits || s[from+1] == '0' {
		return from
	}
	return end
}

func startsWith[T string | []byte](s T, prefix string) bool {
	return len(s) >= len(prefix) && string(s[:len(prefix)]) == prefix
}

func is[T string | []byte](s T, i int, c byte) bool { return i < len(s) && s[i] == c }

// span gives the end of the run of class characters that begins at from.
func span[T string | []byte](s T, from int, class uint8) int {
	i := from
	for i < len(s) && classes[s[i]]&class != 0 {
		i++
	}
	return i
}

const (
	inBase62 uint8 = 1 << iota
	inSlug
	inDigits
)

var classes = func() (c [256]uint8) {
	for b := range c {
		switch {
		case b >= '0' && b <= '9':
			c[b] = inBase62 | inSlug | inDigits
		case b >= 'a' && b <= 'z':
			c[b] = inBase62 | inSlug
		case b >= 'A' && b <= 'Z':
			c[b] = inBase62
		case b == '-':
			c[b] = inSlug
		}
	}
	return c
}()

// update feeds s to an IEEE CRC-32 that is kept inverted. The standard function
// takes a slice and lets it escape: that would be one allocation per check.
func update[T string | []byte](crc uint32, s T) uint32 {
	for i := range len(s) {
		crc = crc32.IEEETable[byte(crc)^s[i]] ^ crc>>8
	}
	return crc
}

func encodeChecksum(crc uint32) (out [checksumLen]byte) {
	for i := checksumLen - 1; i >= 0; i-- {
		out[i] = base62Alphabet[crc%62]
		crc /= 62
	}
	return out
}
