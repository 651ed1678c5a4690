package logarchive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/logarchive"
)

// ctx is for logs in memory, which never wait.
var ctx = context.Background()

func signer(t testing.TB, seed byte) *logarchive.Signer {
	t.Helper()
	s, err := logarchive.NewSigner(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill appends n frames of two events.
func fill(t testing.TB, log eventlog.Log, n int) {
	t.Helper()
	last, _ := log.Last(ctx)
	for i := last + 1; i <= last+uint64(n); i++ {
		body := fmt.Appendf(nil, `[{"id":"E%d","data":{"n":%d}},{"id":"F%d","data":{}}]`, i, i, i)
		f := eventlog.Frame{
			ID: fmt.Sprint("frame-", i), Subject: "track.00", ContentType: "application/json", Body: body,
			Headers: map[string]string{"Shipledger-Tally": fmt.Sprint(2 * i), "b": "é\n"},
		}
		if _, err := log.AppendFrame(ctx, f, i-1); err != nil {
			t.Fatal(err)
		}
	}
}

// logs gives a log of each stream with n frames in the second.
func logs(t testing.TB, n int) (c, t0 *memlog.Log) {
	t.Helper()
	c, t0 = memlog.New(), memlog.New()
	fill(t, c, 2)
	fill(t, t0, n)
	return c, t0
}

// framesOf gives all that a log holds.
func framesOf(t testing.TB, log eventlog.Reader) (out []eventlog.Recorded) {
	t.Helper()
	for r, err := range log.Read(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func archive(t testing.TB, s *logarchive.Signer, c, t0 eventlog.Reader, kept ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	sources := []logarchive.Source{{Stream: "c", Log: c}, {Stream: "t0", Log: t0, Kept: kept}}
	if _, err := logarchive.Write(ctx, &out, sources, logarchive.Options{Signer: s}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func scan(t testing.TB, file []byte, expect logarchive.Expect) logarchive.Result {
	t.Helper()
	r, err := logarchive.Scan(bytes.NewReader(file), expect, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func faults(r logarchive.Result) (out []string) {
	for _, f := range r.Faults {
		out = append(out, f.String())
	}
	return out
}

// into restores into logs that are there.
func into(logs map[string]eventlog.Log) func([]string) (map[string]eventlog.Log, error) {
	return func([]string) (map[string]eventlog.Log, error) { return logs, nil }
}

func reopen(file []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file)), nil }
}

func TestAnArchiveIsSoundAndSigned(t *testing.T) {
	c, t0 := logs(t, 9)
	s := signer(t, 1)
	got := scan(t, archive(t, s, c, t0), logarchive.Expect{Key: s.PublicKey()})
	if !got.OK() || !got.Trusted || cmp.Diff([]string{"c", "t0"}, got.Signed) != "" || got.Streams[1].Frames != 9 || got.Streams[1].Events != 18 {
		t.Errorf("%+v", got)
	}
}

func TestEveryFlippedBitIsFoundAndItsFrameNamed(t *testing.T) {
	c, t0 := logs(t, 4)
	s := signer(t, 1)
	var kept string
	{
		var tree logarchive.Tree
		for _, r := range framesOf(t, t0)[:2] {
			tree.Add(logarchive.Leaf("t0", &r), nil)
		}
		var err error
		if kept, err = s.Sign(logarchive.Checkpoint{Stream: "t0", Size: 2, Root: tree.Root()}); err != nil {
			t.Fatal(err)
		}
	}
	file := archive(t, s, c, t0, kept)
	expect := logarchive.Expect{Key: s.PublicKey()}
	if r := scan(t, file, expect); !r.OK() || r.Checked != 3 {
		t.Fatal(r)
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	names := []string{"archive", "frame c.1", "frame c.2", "frame t0.1", "frame t0.2", "t0", "frame t0.3", "frame t0.4", ""}
	at := 0
	for i, l := range lines[:len(lines)-1] {
		for j := range l {
			for bit := j % 4; bit < 8; bit += 4 { // all of them take four times as long, and were tried
				damaged := bytes.Clone(file)
				damaged[at+j] ^= 1 << bit
				got := faults(scan(t, damaged, expect))
				if len(got) == 0 {
					t.Fatalf("bit %d of byte %d of line %d (%q) is not found", bit, j, i+1, l[max(0, j-10):min(len(l), j+10)])
				}
				// A flipped newline joins a line with the next, which is then named.
				if j < len(l)-1 && !strings.Contains(got[0], names[i]) {
					t.Fatalf("bit %d of byte %d of line %d: %q does not name %s", bit, j, i+1, got, names[i])
				}
			}
		}
		at += len(l)
	}
}

func TestWhatIsMissingMovedOrTwiceIsNamed(t *testing.T) {
	c, t0 := logs(t, 6)
	s := signer(t, 1)
	lines := strings.SplitAfter(string(archive(t, s, c, t0)), "\n")
	// 0 header, 1-2 c, 3-8 t0.1-6, 9 end
	of := func(order ...int) []byte {
		var b strings.Builder
		for _, i := range order {
			b.WriteString(lines[i])
		}
		return []byte(b.String())
	}
	for _, row := range []struct {
		name string
		file []byte
		want []string
	}{
		{"one dropped", of(0, 1, 2, 3, 5, 6, 7, 8, 9), []string{"frame t0.2 (line 5): it is not here: frame 3 stands in its place"}},
		{"two dropped", of(0, 1, 2, 3, 6, 7, 8, 9), []string{"frame t0.2 (line 5): it is not here", "frame t0.3 (line 5): it is not here"}},
		{"two swapped", of(0, 1, 2, 3, 5, 4, 6, 7, 8, 9), []string{"frame t0.2 (line 5): it is not here: frame 3 stands in its place", "frame t0.2 (line 6): it stands behind frame 3"}},
		{"one twice", of(0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9), []string{"frame t0.2 (line 6): it stands behind frame 2"}},
		{"the first dropped", of(0, 1, 2, 4, 5, 6, 7, 8, 9), []string{"frame t0.1 (line 4): it is not here"}},
		{"the last dropped", of(0, 1, 2, 3, 4, 5, 6, 7, 9), []string{"frame t0.6 (line 9): it is not here"}},
		{"the last of another stream dropped", of(0, 1, 3, 4, 5, 6, 7, 8, 9), []string{"frame c.2 (line 9): it is not here"}},
		{"a stream moved", of(0, 3, 4, 5, 6, 7, 8, 1, 2, 9), []string{"frame c.1 (line 8): it stands behind another stream", "frame c.2"}},
		{"the end cut off", of(0, 1, 2, 3, 4, 5), []string{"frame t0.4 (line 7): the file ends here"}},
		{"the end cut off within a line", of(0, 1, 2, 3, 4, 5)[:len(of(0, 1, 2, 3, 4, 5))-9], []string{"frame t0.3 (line 6): the file ends here"}},
		{"something appended", append(of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), "x\n"...), []string{"something stands behind"}},
		{"nothing", nil, []string{"archive (line 1): the file ends here"}},
		{"another format", []byte(`{"format":"x/1","streams":[]}` + "\n"), []string{`its format is "x/1"`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := faults(scan(t, row.file, logarchive.Expect{Key: s.PublicKey()}))
			if len(got) < len(row.want) {
				t.Fatalf("got %q", got)
			}
			for i, want := range row.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
		})
	}
}

// Whoever makes checksums, sums and roots fit again cannot sign.
func TestAnArchiveMadeAnewBySomebodyElseIsFound(t *testing.T) {
	c, t0 := logs(t, 6)
	_, forged := logs(t, 5)
	f := eventlog.Frame{ID: "frame-6", Body: []byte(`[{"id":"E6","data":{"n":66}}]`)}
	if _, err := forged.AppendFrame(ctx, f, 5); err != nil {
		t.Fatal(err)
	}
	mine, theirs := signer(t, 1), signer(t, 2)
	expect := logarchive.Expect{Key: mine.PublicKey()}
	for name, file := range map[string][]byte{
		"signed by another key":    archive(t, theirs, c, forged),
		"under the old signatures": withCheckpoints(archive(t, nil, c, forged), archive(t, mine, c, t0)),
	} {
		if got := scan(t, file, expect); got.OK() {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// What is not signed at all is sound, but says so.
	if got := scan(t, archive(t, nil, c, forged), expect); !got.OK() || len(got.Signed) != 0 {
		t.Errorf("%+v", got)
	}
	older := checkpointOf(t, mine, t0)
	got := faults(scan(t, archive(t, nil, c, forged), logarchive.Expect{Key: mine.PublicKey(), Checkpoints: []string{older}}))
	if len(got) != 1 || !strings.Contains(got[0], "stream t0") || !strings.Contains(got[0], "frames 1 to 6 are not those that were signed") {
		t.Errorf("got %q", got)
	}
}

// withCheckpoints gives the last line of an archive the signatures of another.
func withCheckpoints(file, signed []byte) []byte {
	last := bytes.LastIndexByte(signed[:len(signed)-1], '\n') + 1
	from := bytes.LastIndexByte(file[:len(file)-1], '\n') + 1
	return append(bytes.Clone(file[:from]), signed[last:]...)
}

// checkpointOf gives the signed end of a log, as an archive of it has it.
func checkpointOf(t *testing.T, s *logarchive.Signer, log eventlog.Reader) string {
	t.Helper()
	ends, err := logarchive.Write(ctx, io.Discard, []logarchive.Source{{Stream: "t0", Log: log}}, logarchive.Options{Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	return ends[0].Checkpoint
}

func TestANewerArchiveContinuesAnOlderCheckpoint(t *testing.T) {
	c, t0 := logs(t, 5)
	s := signer(t, 1)
	older := checkpointOf(t, s, t0)
	fill(t, t0, 7)
	expect := logarchive.Expect{Key: s.PublicKey(), Checkpoints: []string{older}}
	if got := scan(t, archive(t, s, c, t0), expect); !got.OK() || got.Checked != 3 {
		t.Errorf("%+v", got)
	}
	_, short := logs(t, 3)
	got := faults(scan(t, archive(t, s, c, short), expect))
	if len(got) != 1 || !strings.Contains(got[0], "stream t0: it ends at frame 3, and the checkpoint that was given is of 5 frames") {
		t.Errorf("got %q", got)
	}
	forged := strings.Replace(older, "\n5\n", "\n4\n", 1)
	got = faults(scan(t, archive(t, s, c, t0), logarchive.Expect{Key: s.PublicKey(), Checkpoints: []string{forged}}))
	if len(got) != 1 || !strings.Contains(got[0], "signature") {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsRestoredIsWhatWasArchived(t *testing.T) {
	c, t0 := logs(t, 30)
	odd := [][]byte{nil, []byte("null"), []byte("not json"), []byte("{\n}"), []byte(" 1"), {0xff, 0}, []byte(`{"a":1,"a":2}`), []byte(`"é\u0000"`), []byte(`[1, 2]`)}
	for _, body := range odd {
		last, _ := t0.Last(ctx)
		if _, err := t0.AppendFrame(ctx, eventlog.Frame{ID: fmt.Sprint("odd", last), Body: body}, last); err != nil {
			t.Fatal(err)
		}
	}
	file := archive(t, signer(t, 1), c, t0)
	c2, t2 := memlog.New(), memlog.New()
	steps := 0
	_, err := logarchive.Restore(ctx, reopen(file), into(map[string]eventlog.Log{"c": c2, "t0": t2}), logarchive.Expect{}, func(uint64, uint64) { steps++ })
	if err != nil || steps != 41 {
		t.Fatal(steps, err)
	}
	for _, pair := range [][2]*memlog.Log{{c, c2}, {t0, t2}} {
		want, got := framesOf(t, pair[0]), framesOf(t, pair[1])
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	if again := archive(t, signer(t, 1), c2, t2); !bytes.Equal(file, again) {
		t.Error("the archive of what was restored is another")
	}
	if _, err := logarchive.Restore(ctx, reopen(file), into(map[string]eventlog.Log{"c": c2, "t0": t2}), logarchive.Expect{}, nil); !errors.Is(err, logarchive.ErrNotEmpty) {
		t.Errorf("into a log that is not empty: %v", err)
	}
}

func TestNothingIsRestoredOfAnArchiveThatIsNotSound(t *testing.T) {
	c, t0 := logs(t, 5)
	file := bytes.Replace(archive(t, signer(t, 1), c, t0), []byte(`"n":5`), []byte(`"n":6`), 1)
	c2, t2 := memlog.New(), memlog.New()
	_, err := logarchive.Restore(ctx, reopen(file), into(map[string]eventlog.Log{"c": c2, "t0": t2}), logarchive.Expect{}, nil)
	var faulty *logarchive.FaultyError
	if !errors.As(err, &faulty) || !strings.Contains(err.Error(), "frame t0.5") {
		t.Errorf("got %v", err)
	}
	if last, _ := c2.Last(ctx); last != 0 {
		t.Error("something was stored")
	}
}

// growing is a log to which frames are appended whenever one is read.
type growing struct {
	*memlog.Log
	t *testing.T
}

func (g growing) Read(ctx context.Context, after uint64) iter.Seq2[eventlog.Recorded, error] {
	fill(g.t, g.Log, 3)
	return g.Log.Read(ctx, after)
}

func TestAnArchiveEndsWhereTheLogEndedWhenItBegan(t *testing.T) {
	c, t0 := logs(t, 5)
	got := scan(t, archive(t, signer(t, 1), c, growing{t0, t}), logarchive.Expect{})
	if !got.OK() || got.Streams[1].Frames != 5 {
		t.Errorf("%+v", got)
	}
}

func TestAProofShowsThatAnEventStandsInTheSignedLog(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8, 13} {
		c, t0 := logs(t, n)
		s := signer(t, 1)
		file := archive(t, s, c, t0)
		for seq := 1; seq <= n; seq++ {
			for _, name := range []string{fmt.Sprintf("t0.%d.1", seq), fmt.Sprintf("t0.%d.0", seq)} {
				p, err := logarchive.Prove(reopen(file), name, logarchive.Expect{})
				if err != nil {
					t.Fatal(err)
				}
				r, at, err := p.Verify(s.PublicKey())
				if err != nil || r.Seq != uint64(seq) || at.Size != uint64(n) || p.Event != name {
					t.Fatalf("%s of %d: %v", name, n, err)
				}
				if _, _, err := p.Verify(signer(t, 2).PublicKey()); err == nil {
					t.Error("it holds under another key")
				}
				changed := p
				changed.Frame = bytes.Replace(p.Frame, []byte(`"data":{}`), []byte(`"data":1 `), 1)
				if _, _, err := changed.Verify(s.PublicKey()); err == nil {
					t.Error("it holds for a changed frame")
				}
				if len(p.Hashes) > 0 {
					changed = p
					changed.Hashes = append([]string{p.Hashes[len(p.Hashes)-1]}, p.Hashes[1:]...)
					if _, _, err := changed.Verify(s.PublicKey()); err == nil && len(p.Hashes) > 1 {
						t.Error("it holds with other hashes")
					}
				}
			}
		}
	}
	c, t0 := logs(t, 5)
	if _, err := logarchive.Prove(reopen(archive(t, signer(t, 1), c, t0)), "t0.9.0", logarchive.Expect{}); !errors.Is(err, logarchive.ErrNotInArchive) {
		t.Errorf("got %v", err)
	}
	if p, err := logarchive.Prove(reopen(archive(t, signer(t, 1), c, t0)), "F4", logarchive.Expect{}); err != nil || p.Event != "t0.4.1" {
		t.Errorf("by id: %v, %v", p.Event, err)
	}
}

// The tree equals the library's, which keeps all hashes.
func TestTheTreeIsThatOfTheLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 300).Draw(t, "frames")
		var tree logarchive.Tree
		var stored []tlog.Hash
		reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(indexes))
			for i, at := range indexes {
				out[i] = stored[at]
			}
			return out, nil
		})
		for i := range n {
			leaf := tlog.RecordHash(fmt.Append(nil, i))
			hashes, err := tlog.StoredHashesForRecordHash(i, leaf, reader)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, hashes...)
			tree.Add(leaf, func(at int64, h tlog.Hash) {
				if stored[at] != h {
					t.Fatalf("hash %d differs", at)
				}
			})
		}
		want, err := tlog.TreeHash(n, reader)
		if err != nil || tree.Root() != want || tree.Size() != uint64(n) {
			t.Fatalf("root of %d frames: %v", n, err)
		}
	})
}

func TestFilesArePackedByTheirName(t *testing.T) {
	c, t0 := logs(t, 200)
	sizes := map[string]int64{}
	for _, name := range []string{"log.jsonl", "log.jsonl.gz", "log.jsonl.zst"} {
		path := filepath.Join(t.TempDir(), name)
		f, err := logarchive.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(archive(t, signer(t, 1), c, t0)); err != nil {
			t.Fatal(err)
		}
		if err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info, err)
		}
		sizes[name] = info.Size()
		src, err := logarchive.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := logarchive.Scan(src, logarchive.Expect{}, nil)
		if err != nil || !r.OK() {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
	if sizes["log.jsonl.gz"] >= sizes["log.jsonl"] || sizes["log.jsonl.zst"] >= sizes["log.jsonl"] {
		t.Errorf("sizes %v", sizes)
	}
}

// FuzzScan: no input does harm, and whatever is found sound is an archive.
func FuzzScan(f *testing.F) {
	c, t0 := logs(f, 3)
	s := signer(f, 1)
	whole := archive(f, s, c, t0)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"format":"shipledger-log/1","streams":["t0"]}` + "\n" + `{"end":[]}` + "\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := logarchive.Scan(bytes.NewReader(file), logarchive.Expect{Key: s.PublicKey()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.OK() && len(r.Signed) > 0 && !bytes.Equal(file, whole) {
			t.Errorf("another file is sound and signed: %q", file)
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	s := signer(f, 1)
	text, err := s.Sign(logarchive.Checkpoint{Stream: "t0", Size: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("a/t0\n1\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := s.PublicKey().Open(text); err == nil && (c.Size != 3 || c.Stream != "t0") {
			t.Errorf("%+v", c)
		}
	})
}
