package natslog

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
)

// MaxPartitions is into how many partitions a log may be divided: each is a stream
// that every process opens.
const MaxPartitions = 64

// partitionsKey is where, in its metadata, the stream of the first partition says
// how many there are. Every process learns it there. One that says nothing is of a
// log that is not divided.
const partitionsKey = "shipledger-partitions"

// Tracks says which partitions a log has.
type Tracks struct {
	// Partitions is into how many a log is divided that is made now, up to
	// MaxPartitions; 0: one. One that is there keeps its number: another one
	// is refused with a PartitionsError.
	Partitions int
	Replicas   int   // 0 means 1
	MaxBytes   int64 // what they may grow to together, each to an equal share; 0 means as far as the disk goes
	// Foreign says that they are somebody else's to make: they are waited for, and
	// whoever makes them says how many they are.
	Foreign bool
}

// A PartitionsError says that a log has another number of partitions than was
// asked for.
type PartitionsError struct{ Has, Asked int }

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("the log was made with %d partitions and cannot have %d: the number is fixed when a log is made, and what is exported of it is restored with the same", e.Has, e.Asked)
}

// OpenTracks opens the partitions of the log in the order of their numbers, and
// makes those that are missing unless they are foreign.
func OpenTracks(ctx context.Context, js jetstream.JetStream, cfg Tracks) ([]*Log, error) {
	if cfg.Partitions < 0 || cfg.Partitions > MaxPartitions {
		return nil, fmt.Errorf("a log has 1 to %d partitions, not %d", MaxPartitions, cfg.Partitions)
	}
	logs := make([]*Log, 1)
	n, err := cfg.openFirst(ctx, js, &logs[0])
	if err != nil {
		return nil, err
	}
	for i := 1; i < n; i++ {
		log, err := Open(ctx, js, cfg.track(i, n))
		if err != nil {
			return nil, err
		}
		logs = append(logs, log)
	}
	return logs, nil
}

func (cfg Tracks) track(i, n int) Config {
	c := Track(i, cfg.Replicas)
	c.Foreign = cfg.Foreign
	if cfg.MaxBytes > 0 {
		c.MaxBytes = max(1, cfg.MaxBytes/int64(n))
	}
	return c
}

// openFirst opens the first partition and gives how many there are. Of several
// processes that make a log at once the first one decides.
func (cfg Tracks) openFirst(ctx context.Context, js jetstream.JetStream, log **Log) (int, error) {
	for {
		n, err := max(cfg.Partitions, 1), error(nil)
		if !cfg.Foreign {
			if n, err = cfg.settled(ctx, js, n); err != nil {
				return 0, err
			}
		}
		first := cfg.track(0, n)
		first.metadata = map[string]string{partitionsKey: strconv.Itoa(n)}
		if *log, err = Open(ctx, js, first); err != nil {
			return 0, err
		}
		has, err := partitionsOf((*log).stream.CachedInfo())
		if err != nil || has == n || cfg.Foreign {
			return has, err
		}
	}
}

// settled gives the number of partitions that the log has, or else is to have.
func (cfg Tracks) settled(ctx context.Context, js jetstream.JetStream, n int) (int, error) {
	s, err := look(ctx, js, Track(0, 0).Stream)
	if err != nil {
		return 0, fmt.Errorf("look how many partitions the log has: %w", err)
	}
	if s == nil {
		return n, nil
	}
	has, err := partitionsOf(s.CachedInfo())
	if err == nil && cfg.Partitions > 0 && has != cfg.Partitions {
		err = &PartitionsError{Has: has, Asked: cfg.Partitions}
	}
	return has, err
}

func partitionsOf(info *jetstream.StreamInfo) (int, error) {
	text, ok := info.Config.Metadata[partitionsKey]
	if !ok {
		return 1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxPartitions {
		return 0, fmt.Errorf("stream %s says that the log has %q partitions, which is no number from 1 to %d", info.Config.Name, text, MaxPartitions)
	}
	return n, nil
}

// kept gives what a stream is told that is there already: its metadata stand, and
// what it lacks is added.
func kept(has, wanted map[string]string) map[string]string {
	if len(has) == 0 {
		return wanted
	}
	out := maps.Clone(wanted)
	if out == nil {
		return has
	}
	maps.Copy(out, has)
	return out
}
