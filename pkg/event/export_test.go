package event

// DecodeFrameWith is DecodeFrame with upcasters of a test.
func DecodeFrameWith(u Upcasters, stream string, seq uint64, body []byte) ([]Recorded, error) {
	return u.decodeFrame(stream, seq, body)
}

func DecodeEachWith(u Upcasters, stream string, seq uint64, body []byte) ([]Recorded, map[int]error, error) {
	return u.decodeEach(stream, seq, body)
}
