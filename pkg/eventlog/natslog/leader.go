package natslog

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Streams here allow direct reads, which any replica answers from what it has.
// One that is behind does not know the newest frames yet, and says that they do
// not exist. So whoever must know it asks the leader, as streams without direct
// reads do; the client has no call for that.

// leaderRequest asks for one frame, by its sequence or as the last of a subject.
type leaderRequest struct {
	Seq         uint64 `json:"seq,omitzero"`
	LastSubject string `json:"last_by_subj,omitzero"`
}

type leaderAnswer struct {
	Error   *jetstream.APIError `json:"error"`
	Message struct {
		Subject string `json:"subject"`
		Seq     uint64 `json:"seq"`
		Header  []byte `json:"hdrs"`
		Data    []byte `json:"data"`
	} `json:"message"`
}

// ofLeader gives a frame as the leader has it, or jetstream.ErrMsgNotFound.
func (l *Log) ofLeader(ctx context.Context, ask leaderRequest) (*jetstream.RawStreamMsg, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	subject := jetstream.DefaultAPIPrefix + "STREAM.MSG.GET." + l.stream.CachedInfo().Config.Name
	res, err := l.js.Conn().RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, err
	}
	var a leaderAnswer
	if err := json.Unmarshal(res.Data, &a); err != nil {
		return nil, fmt.Errorf("read the leader's answer: %w", err)
	}
	switch {
	case a.Error != nil && a.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, jetstream.ErrMsgNotFound
	case a.Error != nil:
		return nil, a.Error
	}
	m := &jetstream.RawStreamMsg{Subject: a.Message.Subject, Sequence: a.Message.Seq, Data: a.Message.Data}
	if len(a.Message.Header) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(a.Message.Header); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// lastOf gives the last frame of a subject, or jetstream.ErrMsgNotFound.
func (l *Log) lastOf(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	if l.replicated {
		return l.ofLeader(ctx, leaderRequest{LastSubject: subject})
	}
	return l.stream.GetLastMsgForSubject(ctx, subject)
}
