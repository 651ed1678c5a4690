package event

import (
	"crypto/sha1" //nolint:gosec // what version 5 is made of (RFC 9562)
	"encoding/hex"
	"strings"

	"github.com/google/uuid"
)

// These ids are derived from the account and the natural key, so that a write is
// answered without a look-up (contract 2).
type (
	// ProductID identifies a product.
	ProductID uuid.UUID
	// EnvironmentID identifies an environment.
	EnvironmentID uuid.UUID
	// VersionID identifies a version of a product.
	VersionID uuid.UUID
)

var namespace = uuid.MustParse("fc13e1f8-fbfd-594c-b8c7-0760fb336038")

// derive is uuid.NewSHA1 of the parts joined by NUL, without what that
// allocates: an event needs it four times.
func derive(parts ...string) uuid.UUID {
	var stack [256]byte
	b := append(stack[:0], namespace[:]...)
	for i, p := range parts {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, p...)
	}
	return version5(b)
}

// version5 makes the id of a text that begins with its namespace.
func version5(text []byte) uuid.UUID {
	sum := sha1.Sum(text)
	id := uuid.UUID(sum[:16])
	id[6] = id[6]&0x0f | 5<<4 // version 5
	id[8] = id[8]&0x3f | 0x80 // RFC 9562
	return id
}

// ProductIDOf derives the id of an account's product from its first name.
func ProductIDOf(account, name string) ProductID {
	return ProductID(derive("product", account, name))
}

// EnvironmentIDOf derives the id of an account's environment from its first name.
func EnvironmentIDOf(account, name string) EnvironmentID {
	return EnvironmentID(derive("environment", account, name))
}

// VersionIDOf derives the id of a version of a product.
func VersionIDOf(account string, product ProductID, version string) VersionID {
	var stack [256]byte
	b := append(append(stack[:0], namespace[:]...), "version\x00"...)
	b = append(append(b, account...), 0)
	b = append(product.AppendTo(b), 0)
	return VersionID(version5(append(b, version...)))
}

func (id ProductID) String() string     { return uuid.UUID(id).String() }
func (id EnvironmentID) String() string { return uuid.UUID(id).String() }
func (id VersionID) String() string     { return uuid.UUID(id).String() }

// AppendTo appends what String gives.
func (id ProductID) AppendTo(dst []byte) []byte { return appendUUID(dst, id) }

// AppendTo appends what String gives.
func (id EnvironmentID) AppendTo(dst []byte) []byte { return appendUUID(dst, id) }

// AppendTo appends what String gives.
func (id VersionID) AppendTo(dst []byte) []byte { return appendUUID(dst, id) }

func appendUUID(dst []byte, id [16]byte) []byte {
	dst = append(hex.AppendEncode(dst, id[:4]), '-')
	dst = append(hex.AppendEncode(dst, id[4:6]), '-')
	dst = append(hex.AppendEncode(dst, id[6:8]), '-')
	dst = append(hex.AppendEncode(dst, id[8:10]), '-')
	return hex.AppendEncode(dst, id[10:])
}

// Class is what an environment is for. It drives the order of columns and what
// counts as earlier; the zero Class is "other" and takes no part (contract 10).
type Class uint8

// The classes, in column order.
const (
	Other Class = iota
	Development
	Testing
	Staging
	Production
)

var classWords = [...]string{Other: "", Development: "dev", Testing: "test", Staging: "staging", Production: "production"}

// String gives the word of the wire contract; "" for Other, which is null there.
func (c Class) String() string {
	if int(c) < len(classWords) {
		return classWords[c]
	}
	return ""
}

// ParseClass reads the word of String.
func ParseClass(word string) (Class, bool) {
	for c, w := range classWords {
		if w == word {
			return Class(c), true
		}
	}
	return Other, false
}

// Order gives the place of a class among columns: Other comes last.
func (c Class) Order() int {
	if c == Other {
		return int(Production) + 1
	}
	return int(c)
}

var classByToken = map[string]Class{
	"dev": Development, "development": Development, "local": Development, "sandbox": Development,
	"test": Testing, "qa": Testing, "integration": Testing,
	"staging": Staging, "uat": Staging, "preprod": Staging,
	"production": Production, "prod": Production, "live": Production,
}

// ClassOf infers an environment's class from its name: whole tokens split at
// - _ . /, leftmost match; pre-prod and non-prod are read before prod, and
// non-production names are Other (contract 10).
func ClassOf(name string) Class {
	tokens := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return r == '-' || r == '_' || r == '.' || r == '/'
	})
	for i, token := range tokens {
		if i+1 < len(tokens) && tokens[i+1] == "prod" {
			switch token {
			case "pre":
				return Staging
			case "non":
				return Other
			}
		}
		if token == "nonprod" {
			return Other
		}
		if c, ok := classByToken[token]; ok {
			return c
		}
	}
	return Other
}
