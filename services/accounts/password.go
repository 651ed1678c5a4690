package accounts

import (
	"encoding/base64"
	"fmt"
	"io"

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

// hashPassword gives the argon2id hash of a password as a PHC string.
func hashPassword(password string, entropy io.Reader) (string, error) {
	salt := make([]byte, argonSaltLen)
	if _, err := io.ReadFull(entropy, salt); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKeyLen)
	text := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, argonMemory, argonTime, argonThreads, text.EncodeToString(salt), text.EncodeToString(key)), nil
}
