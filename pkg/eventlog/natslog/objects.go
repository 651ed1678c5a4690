package natslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Objects are files beside the log, which can be made again from it: they need
// not be as safe. An object is stored whole or not at all, and what is read is
// what was stored: the server keeps a SHA-256 of it.
type Objects struct{ store jetstream.ObjectStore }

// OpenObjects opens a bucket of objects, and creates it if it does not exist.
func OpenObjects(ctx context.Context, js jetstream.JetStream, bucket, description string, replicas int) (*Objects, error) {
	store, err := js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: bucket, Description: description, Replicas: max(replicas, 1)})
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", bucket, err)
	}
	return &Objects{store}, nil
}

// List gives the names of all objects.
func (o *Objects) List(ctx context.Context) ([]string, error) {
	infos, err := o.store.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	names := make([]string, len(infos))
	for i, info := range infos {
		names[i] = info.Name
	}
	return names, nil
}

// An object is read for so long at most, and for so much longer for each byte of it:
// a megabyte a second is less than any disk or network gives that a log could live on.
const (
	readObject  = 10 * time.Second
	readSlowest = time.Microsecond
)

// Open reads an object.
func (o *Objects) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	info, err := o.store.GetInfo(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read the object %s: %w", name, err)
	}
	// The driver would end after five seconds what has no deadline, to the last byte.
	ctx, cancel := context.WithTimeout(ctx, readObject+time.Duration(info.Size)*readSlowest) //nolint:gosec // far below the largest
	r, err := o.store.Get(ctx, name)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("read the object %s: %w", name, err)
	}
	return &openObject{r, cancel}, nil
}

// openObject lives until it is closed.
type openObject struct {
	jetstream.ObjectResult
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (o *openObject) Close() error {
	defer o.cancel()
	return o.ObjectResult.Close()
}

// Put stores an object. One of the same name is replaced.
func (o *Objects) Put(ctx context.Context, name string, content io.Reader) error {
	if _, err := o.store.Put(ctx, jetstream.ObjectMeta{Name: name}, content); err != nil {
		return fmt.Errorf("store the object %s: %w", name, err)
	}
	return nil
}

// Remove removes an object.
func (o *Objects) Remove(ctx context.Context, name string) error {
	if err := o.store.Delete(ctx, name); err != nil {
		return fmt.Errorf("remove the object %s: %w", name, err)
	}
	return nil
}
