package logarchive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Create makes a file for an archive: packed if the name ends in .gz or .zst.
// The file appears under its name when it is whole, at Commit.
func Create(name string) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.part") // mode 0600: a backup
	if err != nil {
		return nil, fmt.Errorf("make the archive: %w", err)
	}
	out := &File{Writer: f, file: f, name: name}
	switch {
	case strings.HasSuffix(name, ".gz"):
		out.packer = gzip.NewWriter(f)
	case strings.HasSuffix(name, ".zst"):
		if out.packer, err = zstd.NewWriter(f, zstd.WithEncoderConcurrency(1)); err != nil {
			return nil, errors.Join(err, out.Discard())
		}
	}
	if out.packer != nil {
		out.Writer = out.packer
	}
	return out, nil
}

// File is an archive under construction.
type File struct {
	io.Writer

	file   *os.File
	packer io.WriteCloser
	name   string
}

// Commit makes the file durable and gives it its name. It replaces what was there.
func (f *File) Commit() error {
	var err error
	if f.packer != nil {
		err = f.packer.Close()
	}
	if err = errors.Join(err, f.file.Sync(), f.file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the archive: %w", err), os.Remove(f.file.Name()))
	}
	return os.Rename(f.file.Name(), f.name)
}

// Discard removes what was written.
func (f *File) Discard() error {
	return errors.Join(f.file.Close(), os.Remove(f.file.Name()))
}

// Open opens an archive for reading, unpacked.
func Open(name string) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	switch {
	case strings.HasSuffix(name, ".gz"):
		r, err := gzip.NewReader(f)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the archive: %w", err), f.Close())
		}
		return unpacked{r, f.Close}, nil
	case strings.HasSuffix(name, ".zst"):
		r, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the archive: %w", err), f.Close())
		}
		return unpacked{r, func() error { r.Close(); return f.Close() }}, nil
	}
	return f, nil
}

type unpacked struct {
	io.Reader

	close func() error
}

func (u unpacked) Close() error { return u.close() }
