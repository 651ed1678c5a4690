package keyring

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shipledger/shipledger/pkg/credential"
)

const (
	pepperFile  = "pepper"
	pepperBytes = 32
)

// LoadPeppers gives the peppers of this process: those in value, else those in
// file, else those in the data directory, where they are made once. See
// credential.ParsePeppers for the form. Processes that share a log need the
// same peppers; losing them makes every credential worthless.
func LoadPeppers(value, file, dataDir string, entropy io.Reader) (*credential.Peppers, error) {
	if value != "" {
		p, err := credential.ParsePeppers(value)
		if err != nil {
			return nil, fmt.Errorf("read the pepper: %w", err)
		}
		return p, nil
	}
	if file != "" {
		return readPeppers(file)
	}
	if dataDir == "" {
		return nil, errors.New("there is no pepper: give one, a file that holds one, or a data directory to make one in")
	}
	file = filepath.Join(dataDir, pepperFile)
	p, err := readPeppers(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if err := makePepper(file, entropy); err != nil {
		return nil, fmt.Errorf("make the pepper: %w", err)
	}
	return readPeppers(file)
}

func readPeppers(file string) (*credential.Peppers, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the pepper: %w", err)
	}
	p, err := credential.ParsePeppers(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the pepper in %s: %w", file, err)
	}
	return p, nil
}

// makePepper makes the file, whole and durable, unless another process does so
// first: then that one's stays.
func makePepper(file string, entropy io.Reader) error {
	key := make([]byte, pepperBytes)
	if _, err := io.ReadFull(entropy, key); err != nil {
		return err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, pepperFile+".*.tmp") // mode 0600
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
