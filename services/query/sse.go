package query

import (
	"net/http"
	"strconv"
	"time"
)

const (
	// writeTimeout is how long a client may take to receive what is sent at once.
	// It is longer than a feed's patience, so that a client who was only slow is
	// still told why the stream ends.
	writeTimeout = 30 * time.Second
	// reconnect is what clients are asked to wait before they come back.
	reconnect = time.Second
)

// eventStream writes Server-Sent Events.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buffer  []byte
}

// openEventStream begins an answer that goes on until the client leaves. With
// the first flush it tells where the stream begins, so that a client who loses it
// at once can go on from there.
func openEventStream(w http.ResponseWriter, id string) *eventStream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy that gathers answers would hold events back
	s := &eventStream{w: w, control: http.NewResponseController(w)}
	_ = s.control.SetReadDeadline(time.Time{}) // it is not served by a connection where it cannot be set
	w.WriteHeader(http.StatusOK)
	s.buffer = append(s.buffer, "retry: "...)
	s.buffer = strconv.AppendInt(s.buffer, reconnect.Milliseconds(), 10)
	s.buffer = append(s.buffer, "\nid: "...)
	s.buffer = append(append(s.buffer, id...), "\n\n"...)
	return s
}

// add writes an event, which leaves with the next flush. The data holds no line
// break: it is JSON.
func (s *eventStream) add(id, name string, data []byte) {
	if id != "" {
		s.buffer = append(append(append(s.buffer, "id: "...), id...), '\n')
	}
	s.buffer = append(append(append(s.buffer, "event: "...), name...), "\ndata: "...)
	s.buffer = append(append(s.buffer, data...), "\n\n"...)
}

// beat writes what clients ignore: it shows both sides that the other is there.
func (s *eventStream) beat() error {
	s.buffer = append(s.buffer, ": still here\n\n"...)
	return s.flush()
}

// end says why the stream ends. It carries no id: the place to go on from is
// that of the last event.
func (s *eventStream) end(reason string) {
	s.add("", "end", []byte(`{"reason":"`+reason+`"}`))
	_ = s.flush() // it ends in any case
}

func (s *eventStream) flush() error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // as above
	_, err := s.w.Write(s.buffer)
	s.buffer = s.buffer[:0]
	if err != nil {
		return err
	}
	return s.control.Flush()
}
