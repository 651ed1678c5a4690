package chmodel

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go/proto"
)

func TestTextsAreSentAsTheDriverSendsStrings(t *testing.T) {
	var ours text
	var theirs proto.ColStr
	for range 2 { // also with memory that was used before
		ours.Reset()
		theirs.Reset()
		for _, n := range []int{0, 1, 127, 128, 5000, 3, 20_000} {
			s := strings.Repeat("ä", n)
			ours.Append(s)
			theirs.Append(s)
			ours.AppendBytes([]byte(s))
			theirs.AppendBytes([]byte(s))
			if ours.Rows() != theirs.Rows() {
				t.Fatalf("%d rows, not %d", ours.Rows(), theirs.Rows())
			}
		}
		var encoded, want proto.Buffer
		ours.EncodeColumn(&encoded)
		theirs.EncodeColumn(&want)
		var written bytes.Buffer
		w := proto.NewWriter(&written, new(proto.Buffer))
		ours.WriteColumn(w)
		if _, err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encoded.Buf, want.Buf) || !bytes.Equal(written.Bytes(), want.Buf) {
			t.Fatal("they are sent otherwise")
		}
	}
}
