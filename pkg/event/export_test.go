package event

// DecodeFrameWith is DecodeFrame with upcasters of a test.
func DecodeFrameWith(u Upcasters, stream string, seq uint64, body []byte) ([]Recorded, error) {
	return u.decodeFrame(nil, stream, seq, body, copied)
}

func DecodeEachWith(u Upcasters, stream string, seq uint64, body []byte) ([]Recorded, map[int]error, error) {
	return u.decodeEach(nil, stream, seq, body)
}

// ReadFrame reads a frame with the library alone.
func ReadFrame(stream string, seq uint64, body []byte) ([]Recorded, error) {
	return shipped.readFrame(stream, seq, body)
}

// ScanFrame reads a frame in one pass, or not at all.
func ScanFrame(stream string, seq uint64, body []byte) ([]Recorded, bool) {
	return shipped.scanFrame(nil, stream, seq, body, copied)
}

// ScanRun tells whether an event of a run, as AppendEvent writes it, is read
// without the library.
func ScanRun(body []byte) bool {
	s := scanner{body: body[len(eventBegin):], text: string(body[len(eventBegin):])}
	var e envelope
	if !s.envelope(&e) || runKind(e.DataSchema) == 0 {
		return false
	}
	return s.run(&Run{}, &recordWire{}, &Scanned{}, &Recorded{}, runKind(e.DataSchema)) && s.word("}") && s.at == len(s.text)
}
