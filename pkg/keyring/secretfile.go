package keyring

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shipledger/shipledger/pkg/credential"
)

// A secret is a key of this process: where it is made when nobody gives one, and
// how it is read. Processes that share a log need the same.
type secret[T any] struct {
	word  string // for people
	file  string // in the data directory
	parse func(text string) (T, error)
}

const secretBytes = 32

// LoadPeppers gives the peppers of this process: those in value, else those in
// file, else those in the data directory, where they are made once. See
// credential.ParsePeppers for the form. Losing them makes every credential
// worthless.
func LoadPeppers(value, file, dataDir string, entropy io.Reader) (*credential.Peppers, error) {
	return secret[*credential.Peppers]{"pepper", "pepper", credential.ParsePeppers}.load(value, file, dataDir, entropy)
}

// LoadSessionKeys gives the keys of web sessions, from the same sorts of places.
// Losing them ends every session.
func LoadSessionKeys(value, file, dataDir string, entropy io.Reader) (*credential.SessionKeys, error) {
	return secret[*credential.SessionKeys]{"session key", "session-key", credential.ParseSessionKeys}.load(value, file, dataDir, entropy)
}

// LoadLogSeed gives the secret that checkpoints of the log are signed with, from
// the same sorts of places. Whoever has it can sign another history; losing it
// starts a new series of checkpoints.
func LoadLogSeed(value, file, dataDir string, entropy io.Reader) ([]byte, error) {
	return secret[[]byte]{"log key", "log-key", parseSeed}.load(value, file, dataDir, entropy)
}

// parseSeed reads one secret in the form of makeSecret. Errors never show it.
func parseSeed(text string) ([]byte, error) {
	seed, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(text), "1:"))
	if err != nil || len(seed) != secretBytes {
		return nil, fmt.Errorf("it is not %d bytes in hex", secretBytes)
	}
	return seed, nil
}

func (s secret[T]) load(value, file, dataDir string, entropy io.Reader) (none T, _ error) {
	if value != "" {
		keys, err := s.parse(value)
		if err != nil {
			return none, fmt.Errorf("read the %s: %w", s.word, err)
		}
		return keys, nil
	}
	if file != "" {
		return s.read(file)
	}
	if dataDir == "" {
		return none, fmt.Errorf("there is no %s: give one, a file that holds one, or a data directory to make one in", s.word)
	}
	file = filepath.Join(dataDir, s.file)
	keys, err := s.read(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	if err := makeSecret(file, entropy); err != nil {
		return none, fmt.Errorf("make the %s: %w", s.word, err)
	}
	return s.read(file)
}

func (s secret[T]) read(file string) (none T, _ error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return none, fmt.Errorf("read the %s: %w", s.word, err)
	}
	keys, err := s.parse(string(text))
	if err != nil {
		return none, fmt.Errorf("read the %s in %s: %w", s.word, file, err)
	}
	return keys, nil
}

// makeSecret makes the file, whole and durable, unless another process does so
// first: then that one's stays.
func makeSecret(file string, entropy io.Reader) error {
	key := make([]byte, secretBytes)
	if _, err := io.ReadFull(entropy, key); err != nil {
		return err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(file)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.WriteString("1:" + hex.EncodeToString(key) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
