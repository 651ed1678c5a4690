package accounts

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The cost of a password's hash: the first choice of OWASP, 19 MiB and two
// passes, so that a few log-ins at once do not starve a small machine. Each
// hash names its own cost, so that it can be raised later.
const (
	argonTime    = 2
	argonMemory  = 19 * 1024 // KiB
	argonThreads = 1
	argonKeyLen  = 32
	argonSaltLen = 16
)

// Bounds of what a recorded hash may cost, so that none stops the process.
const (
	maxArgonTime   = 16
	maxArgonMemory = 256 * 1024 // KiB
)

// verifications is how many passwords are hashed at a time. The others wait:
// each takes the memory above.
const verifications = 2

// hashPassword gives the argon2id hash of a password as a PHC string.
func hashPassword(password string, entropy io.Reader) (string, error) {
	salt := make([]byte, argonSaltLen)
	if _, err := io.ReadFull(entropy, salt); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKeyLen)
	return phc(argonMemory, argonTime, argonThreads, salt, key), nil
}

func phc(memory, time uint32, threads uint8, salt, key []byte) string {
	text := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, memory, time, threads, text.EncodeToString(salt), text.EncodeToString(key))
}

// nobodysHash is what a password is compared with when nobody has the address:
// it costs what a new hash costs, and matches nothing.
var nobodysHash = phc(argonMemory, argonTime, argonThreads, make([]byte, argonSaltLen), make([]byte, argonKeyLen))

var errNoHash = errors.New("no argon2id hash of a cost that is accepted here")

// matches tells whether a password has a hash.
func matches(password, hash string) (bool, error) {
	var version int
	var memory, time uint32
	var threads uint8
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return false, errNoHash
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, errNoHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil ||
		memory == 0 || memory > maxArgonMemory || time == 0 || time > maxArgonTime || threads == 0 {
		return false, errNoHash
	}
	text := base64.RawStdEncoding
	salt, saltErr := text.DecodeString(parts[4])
	key, keyErr := text.DecodeString(parts[5])
	if saltErr != nil || keyErr != nil || len(key) < argonKeyLen/2 || len(key) > 2*argonKeyLen {
		return false, errNoHash
	}
	return subtle.ConstantTimeCompare(argon2.IDKey([]byte(password), salt, time, memory, threads, uint32(len(key))), key) == 1, nil //nolint:gosec // bounded above
}

// hash hashes a new password when it is its turn.
func (v verifier) hash(ctx context.Context, password string, entropy io.Reader) (string, error) {
	select {
	case v <- struct{}{}:
		defer func() { <-v }()
	case <-ctx.Done():
		return "", busyVerifying(ctx, context.Cause(ctx))
	}
	return hashPassword(password, entropy)
}

// verifier compares and hashes passwords, a few at a time.
type verifier chan struct{}

// pick gives the first of hashes that a password has, or -1. Without a hash it
// takes as long as with one.
func (v verifier) pick(ctx context.Context, password string, hashes []string) (int, error) {
	select {
	case v <- struct{}{}:
		defer func() { <-v }()
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	}
	var faults error
	found, compared := -1, false
	for i, hash := range hashes {
		if hash == "" { // signs in elsewhere
			continue
		}
		ok, err := matches(password, hash)
		compared = compared || err == nil
		faults = errors.Join(faults, err)
		if ok {
			found = i
			break
		}
	}
	if !compared {
		_, err := matches(password, nobodysHash)
		faults = errors.Join(faults, err)
	}
	if found >= 0 {
		return found, nil
	}
	return -1, faults
}
