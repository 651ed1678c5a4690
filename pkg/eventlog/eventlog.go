// Package eventlog is the port to the append-only logs: one stream of frames
// per partition, and the stream of credentials.
//
// Adapters (memlog, natslog) are held by one suite, eventlogtest. The log is
// the truth of the system: it never forgets, and a full log refuses.
package eventlog

import (
	"context"
	"errors"
	"iter"
)

// A Frame is what is stored at once: one message. Body is a CloudEvents batch
// in a partition's stream and one CloudEvent in the stream of credentials.
type Frame struct {
	ID          string // unique; names the frame, not the events in it
	Subject     string // empty: the stream's default subject
	ContentType string
	// Headers are what the writer says of the frame; nil if nothing. Names that
	// begin with Nats- and Content-Type are not among them.
	Headers map[string]string
	Body    []byte
}

// Recorded is a frame at its place. Sequences begin at 1 and have no gaps.
type Recorded struct {
	Frame
	Seq uint64
}

// ErrConflict says that the log's end, or the subject's, is not where the
// caller decided. Nothing was stored by this call; after an ambiguous one the
// frame may stand in the log all the same, so look for its ID.
var ErrConflict = errors.New("the log has moved on")

// ErrRefused says that the log cannot take the frame and has not: it is full,
// or has no room on its disk. Trying again later may help.
var ErrRefused = errors.New("the log refuses to store")

// ErrUnreachable says that nobody took the frame: there is no connection, or no
// leader yet. It is not stored; trying again soon may help.
var ErrUnreachable = errors.New("the log cannot be reached")

// ErrAmbiguous says that no answer came: the frame may be stored or not.
// Appending the same frame again settles it.
var ErrAmbiguous = errors.New("the log did not answer")

// ErrGap says that the log has lost a frame: sequences are not consecutive.
var ErrGap = errors.New("the log has a gap")

// ErrNoFrame says that the log has no frame at a sequence.
var ErrNoFrame = errors.New("no such frame")

// An Appender stores frames. When a call returns nil the frame is durable: it
// survives the loss of the process and of the machine's power.
//
// Implementations must return ErrConflict, ErrRefused, ErrUnreachable or
// ErrAmbiguous, wrapped or not, for every failure, ErrAmbiguous when in doubt.
//
// Implementations must not keep the memory of a frame's body: whoever appends
// may write over it once the call has returned.
//
// Appending the same frame again with the same after is safe: it is stored
// once, and answered either with its sequence or with ErrConflict. How long an
// adapter can tell the first is its own matter (memlog for ever, natslog on one
// replica not at all); callers must treat both alike.
type Appender interface {
	// AppendFrame stores f if the stream's last sequence is still after.
	AppendFrame(ctx context.Context, f Frame, after uint64) (seq uint64, err error)
	// AppendToSubject stores f if the last sequence of f.Subject is still
	// after; 0 means that the subject must not exist yet.
	AppendToSubject(ctx context.Context, f Frame, after uint64) (seq uint64, err error)
}

// A Reader yields frames in order. An error ends the iteration; a gap is ErrGap.
type Reader interface {
	// Last gives the sequence of the last frame, 0 for an empty log.
	Last(ctx context.Context) (uint64, error)
	// Read yields the frames after a sequence until the log's end at the time
	// of the call.
	Read(ctx context.Context, after uint64) iter.Seq2[Recorded, error]
	// Follow yields the frames after a sequence for ever, waiting for new ones,
	// until ctx is done, which ends the iteration without an error.
	Follow(ctx context.Context, after uint64) iter.Seq2[Recorded, error]
	// At gives the frame at seq, or ErrNoFrame.
	At(ctx context.Context, seq uint64) (Recorded, error)
}

// A SubjectReader yields the frames of one subject, in order.
type SubjectReader interface {
	// ReadSubject yields the frames of a subject until its end at the time of the
	// call. An error ends the iteration.
	ReadSubject(ctx context.Context, subject string) iter.Seq2[Recorded, error]
}

// A Log is what adapters implement: one stream.
type Log interface {
	Appender
	Reader
	SubjectReader
}
