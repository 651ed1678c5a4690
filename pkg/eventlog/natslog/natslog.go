// Package natslog keeps a log in a NATS JetStream stream.
//
// The server must run with sync_interval: always, otherwise it answers before
// the disk has the frame. On one replica the server checks the expected
// sequence before it recognises a repeated message id, so a repeated frame is
// answered with eventlog.ErrConflict.
package natslog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/pkg/eventlog"
)

var _ eventlog.Log = (*Log)(nil)

const contentType = "Content-Type"

// What a reader asks for at a time. It asks again when half of these messages are
// left, so it holds twice the bytes at the most, 16 MiB. Bounded by bytes alone the
// library makes room for a million messages: 8 MB of pointers for each reader, which
// every garbage collection looks through.
const (
	pulledMessages = 4096
	pulledBytes    = 8 << 20
)

// Config says which stream a log is.
type Config struct {
	Stream   string // such as TRACK_00
	Subject  string // what the stream listens to; may end in >
	Replicas int    // 0 means 1
	MaxBytes int64  // what the stream may grow to; 0 means as far as the disk goes
	// Foreign says that the stream is somebody else's to make: it is waited for.
	Foreign bool

	metadata map[string]string // that it is made with
}

// Track is the stream of a partition.
func Track(partition, replicas int) Config {
	return Config{
		Stream: fmt.Sprintf("TRACK_%02d", partition), Subject: fmt.Sprintf("track.%02d", partition), Replicas: replicas,
	}
}

// Credentials is the stream of credentials, with a subject for each.
func Credentials(replicas int) Config {
	return Config{Stream: "CREDENTIALS", Subject: "cred.>", Replicas: replicas}
}

// Operations is the stream of what operators decide, with a subject for each
// matter.
func Operations(replicas int) Config {
	return Config{Stream: "OPS", Subject: "ops.>", Replicas: replicas}
}

// Checkpoints is the stream of signed roots of the others, with a subject for
// each of them.
func Checkpoints(replicas int) Config {
	return Config{Stream: "CHECKPOINTS", Subject: "checkpoint.>", Replicas: replicas}
}

// Log is an eventlog.Log on one stream.
type Log struct {
	js      jetstream.JetStream
	stream  jetstream.Stream
	subject string
	// replicated says that whoever answers a direct read may be behind.
	replicated bool
}

// askAgain is the time between two looks for a stream that somebody else makes.
const askAgain = 100 * time.Millisecond

// Open opens the stream, and creates it if it does not exist: kept in files,
// compressed, without any eviction. A full stream refuses. A foreign one is waited
// for until ctx is done.
func Open(ctx context.Context, js jetstream.JetStream, cfg Config) (*Log, error) {
	if cfg.Foreign {
		return await(ctx, js, cfg)
	}
	maxBytes := cfg.MaxBytes
	if maxBytes == 0 {
		maxBytes = -1
	}
	s, err := createOrUpdate(ctx, js, jetstream.StreamConfig{
		Metadata: cfg.metadata,
		Name:     cfg.Stream, Subjects: []string{cfg.Subject},
		Storage: jetstream.FileStorage, Compression: jetstream.S2Compression,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxBytes: maxBytes,
		DenyDelete: true, DenyPurge: true, AllowDirect: true,
		Replicas: max(cfg.Replicas, 1),
	})
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", cfg.Stream, err)
	}
	return newLog(js, s, cfg), nil
}

const (
	// lookAttempts and lookTimeout bound how often a stream is looked for, and how long
	// each time: around an election nobody says whether it is there.
	lookAttempts = 10
	lookTimeout  = 3 * time.Second
)

// look gives a stream; nil where there is none.
func look(ctx context.Context, js jetstream.JetStream, name string) (s jetstream.Stream, err error) {
	for range lookAttempts {
		attempt, cancel := context.WithTimeout(ctx, lookTimeout)
		s, err = js.Stream(attempt, name)
		cancel()
		switch {
		case err == nil:
			return s, nil
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(askAgain):
		}
	}
	return nil, err
}

// createOrUpdate makes the stream, or makes one that is there as cfg has it, but
// for its metadata, which stand.
func createOrUpdate(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	for {
		s, err := look(ctx, js, cfg.Name)
		if err != nil {
			return nil, err
		}
		if s != nil {
			cfg.Metadata = kept(s.CachedInfo().Config.Metadata, cfg.Metadata)
			return js.UpdateStream(ctx, cfg)
		}
		if s, err = js.CreateStream(ctx, cfg); !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return s, err
		}
	}
}

func newLog(js jetstream.JetStream, s jetstream.Stream, cfg Config) *Log {
	return &Log{
		js: js, stream: s, subject: strings.Replace(cfg.Subject, ">", "_", 1), replicated: s.CachedInfo().Config.Replicas > 1,
	}
}

func await(ctx context.Context, js jetstream.JetStream, cfg Config) (*Log, error) {
	for {
		s, err := js.Stream(ctx, cfg.Stream)
		if err == nil {
			return newLog(js, s, cfg), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for stream %s: %w", cfg.Stream, err)
		case <-time.After(askAgain):
		}
	}
}

// AppendFrame implements eventlog.Appender.
func (l *Log) AppendFrame(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	return l.publish(ctx, f, jetstream.WithExpectLastSequence(after))
}

// AppendToSubject implements eventlog.Appender.
func (l *Log) AppendToSubject(ctx context.Context, f eventlog.Frame, after uint64) (uint64, error) {
	return l.publish(ctx, f, jetstream.WithExpectLastSequencePerSubject(after))
}

func (l *Log) publish(ctx context.Context, f eventlog.Frame, expect jetstream.PublishOpt) (uint64, error) {
	msg := nats.NewMsg(f.Subject)
	if msg.Subject == "" {
		msg.Subject = l.subject
	}
	msg.Data = f.Body
	for name, value := range f.Headers {
		msg.Header[name] = []string{value}
	}
	msg.Header.Set(contentType, f.ContentType)
	ack, err := l.js.PublishMsg(ctx, msg, jetstream.WithMsgID(f.ID), expect, jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, fmt.Errorf("append frame %s: %w", f.ID, classify(err))
	}
	return ack.Sequence, nil
}

// duplicateInProcess answers a repeat whose first copy is not yet decided.
const duplicateInProcess = 10158

// classify tells refusals, which the server has spoken, from silence.
func classify(err error) error {
	var answer jetstream.JetStreamError
	if errors.As(err, &answer) && answer.APIError() != nil {
		switch answer.APIError().ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return fmt.Errorf("%w: %w", eventlog.ErrConflict, err)
		case duplicateInProcess:
			return fmt.Errorf("%w: %w", eventlog.ErrAmbiguous, err)
		}
		return fmt.Errorf("%w: %w", eventlog.ErrRefused, err)
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("%w: %w", eventlog.ErrRefused, err)
	}
	for _, unsent := range []error{
		jetstream.ErrNoStreamResponse, nats.ErrNoResponders, nats.ErrConnectionClosed,
		nats.ErrConnectionDraining, nats.ErrReconnectBufExceeded,
	} {
		if errors.Is(err, unsent) {
			return fmt.Errorf("%w: %w", eventlog.ErrUnreachable, err)
		}
	}
	return fmt.Errorf("%w: %w", eventlog.ErrAmbiguous, err)
}

// Last implements eventlog.Reader.
func (l *Log) Last(ctx context.Context) (uint64, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for the log's end: %w", err)
	}
	return info.State.LastSeq, nil
}

// Read implements eventlog.Reader.
func (l *Log) Read(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		last, err := l.Last(ctx)
		if err != nil {
			yield(eventlog.Recorded{}, err)
			return
		}
		if after >= last {
			return
		}
		l.consume(ctx, after, func(r eventlog.Recorded, err error) bool {
			return yield(r, err) && r.Seq < last
		})
	}
}

// Follow implements eventlog.Reader.
func (l *Log) Follow(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		l.consume(ctx, after, func(r eventlog.Recorded, err error) bool {
			if err != nil && ctx.Err() != nil {
				return false
			}
			return yield(r, err)
		})
	}
}

// consume yields frames after a sequence until yield is false or an error came.
// The consumer keeps no state in the server: any number may read at once.
func (l *Log) consume(ctx context.Context, after uint64, yield func(eventlog.Recorded, error) bool) {
	err := l.messages(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
	}, func(r eventlog.Recorded) (bool, error) {
		if r.Seq != after+1 {
			return false, fmt.Errorf("%w: %d follows", eventlog.ErrGap, r.Seq)
		}
		after++
		return yield(r, nil), nil
	})
	if err != nil {
		yield(eventlog.Recorded{}, fmt.Errorf("read the log after %d: %w", after, err))
	}
}

// messages hands out what a consumer gives until take does not want more.
func (l *Log) messages(ctx context.Context, cfg jetstream.OrderedConsumerConfig, take func(eventlog.Recorded) (bool, error)) error {
	c, err := l.stream.OrderedConsumer(ctx, cfg)
	if err != nil {
		return err
	}
	messages, err := c.Messages(jetstream.PullMaxMessagesWithBytesLimit(pulledMessages, pulledBytes))
	if err != nil {
		return err
	}
	defer l.forget(ctx, c)
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		more, err := take(recorded(meta.Sequence.Stream, m.Subject(), m.Headers(), m.Data()))
		if err != nil || !more {
			return err
		}
	}
}

// forgetTimeout is how long the server is asked to forget a consumer. Where it does not
// answer, it forgets it by itself, five minutes later.
const forgetTimeout = time.Second

// forget lets the server forget the consumer of a reader that has ended. Until then it
// stands beside the stream, and the reading for signed checkpoints makes one for every
// portion. What they cost is not settled: beside 0, 10, 100 and 500 of them a frame took
// 250, 280, 245 and 305 µs of processor time, in one run on a busy machine.
func (l *Log) forget(ctx context.Context, c jetstream.Consumer) {
	info := c.CachedInfo()
	if info == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTimeout)
	defer cancel()
	_ = l.stream.DeleteConsumer(ctx, info.Name) // nothing depends on it
}

// ReadSubject implements eventlog.SubjectReader. The server picks the frames, so
// that a long stream of many subjects is not read for one.
func (l *Log) ReadSubject(ctx context.Context, subject string) iter.Seq2[eventlog.Recorded, error] {
	return func(yield func(eventlog.Recorded, error) bool) {
		last, err := l.lastOf(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return
		}
		if err == nil {
			err = l.messages(ctx, jetstream.OrderedConsumerConfig{
				DeliverPolicy: jetstream.DeliverAllPolicy, FilterSubjects: []string{subject},
			}, func(r eventlog.Recorded) (bool, error) { return yield(r, nil) && r.Seq < last.Sequence, nil })
		}
		if err != nil {
			yield(eventlog.Recorded{}, fmt.Errorf("read the subject %s: %w", subject, err))
		}
	}
}

// At implements eventlog.Reader.
func (l *Log) At(ctx context.Context, seq uint64) (eventlog.Recorded, error) {
	m, err := l.stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) && l.replicated {
		m, err = l.ofLeader(ctx, leaderRequest{Seq: seq})
	}
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return eventlog.Recorded{}, fmt.Errorf("frame %d: %w", seq, eventlog.ErrNoFrame)
	}
	if err != nil {
		return eventlog.Recorded{}, fmt.Errorf("read frame %d: %w", seq, err)
	}
	return recorded(m.Sequence, m.Subject, m.Header, m.Data), nil
}

func recorded(seq uint64, subject string, h nats.Header, body []byte) eventlog.Recorded {
	return eventlog.Recorded{Seq: seq, Frame: eventlog.Frame{
		ID: h.Get(jetstream.MsgIDHeader), Subject: subject, ContentType: h.Get(contentType), Headers: headers(h), Body: body,
	}}
}

// headers gives those that are not the transport's.
func headers(h nats.Header) map[string]string {
	var out map[string]string
	for name, values := range h {
		if name == contentType || strings.HasPrefix(name, "Nats-") || len(values) == 0 {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = values[0]
	}
	return out
}
