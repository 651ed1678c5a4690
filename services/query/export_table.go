package query

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// A table writes rows of one type, whose fields are the columns.
type table[T any] interface {
	write(rows []T) error
	// close writes what a complete table ends with.
	close() error
}

func newTable[T any](format string, w io.Writer) table[T] {
	switch format {
	case "csv":
		return &csvTable[T]{out: bufio.NewWriter(w)}
	case "parquet":
		return &parquetTable[T]{out: parquet.NewGenericWriter[T](w, parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}))}
	default:
		return &jsonTable[T]{out: bufio.NewWriter(w)}
	}
}

// jsonTable writes one object a line.
type jsonTable[T any] struct{ out *bufio.Writer }

func (t *jsonTable[T]) write(rows []T) error {
	for i := range rows {
		if err := json.MarshalWrite(t.out, &rows[i], jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)); err != nil {
			return fmt.Errorf("write a row: %w", err)
		}
		if err := t.out.WriteByte('\n'); err != nil {
			return err
		}
	}
	return t.out.Flush()
}

func (t *jsonTable[T]) close() error { return t.out.Flush() }

// csvTable writes RFC 4180, with a header. A text that a spreadsheet would take
// for a formula gets an apostrophe in front.
type csvTable[T any] struct {
	out   *bufio.Writer
	begun bool
}

func (t *csvTable[T]) write(rows []T) error {
	t.begin()
	for i := range rows {
		v := reflect.ValueOf(&rows[i]).Elem()
		for j := range v.NumField() {
			if j > 0 {
				_ = t.out.WriteByte(',') // what fails shows with Flush
			}
			t.cell(v.Field(j))
		}
		_, _ = t.out.WriteString("\r\n")
	}
	return t.out.Flush()
}

func (t *csvTable[T]) close() error {
	t.begin()
	return t.out.Flush()
}

func (t *csvTable[T]) begin() {
	if !t.begun {
		_, _ = t.out.WriteString(strings.Join(columnsOf[T](), ",") + "\r\n")
		t.begun = true
	}
}

func (t *csvTable[T]) cell(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		t.text(v.String())
	case reflect.Bool:
		_, _ = fmt.Fprint(t.out, v.Bool())
	default: // *time.Time, or a programmer has declared another column
		if at, _ := reflect.TypeAssert[*time.Time](v); at != nil {
			_, _ = t.out.WriteString(at.UTC().Format(time.RFC3339Nano))
		}
	}
}

func (t *csvTable[T]) text(s string) {
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		s = "'" + s
	}
	if strings.ContainsAny(s, "\",\r\n") {
		s = `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	_, _ = t.out.WriteString(s)
}

// rowGroup is how many rows a Parquet file holds together: they are in memory
// until the group is written.
const rowGroup = 20 * exportPage

type parquetTable[T any] struct {
	out  *parquet.GenericWriter[T]
	held int
}

func (t *parquetTable[T]) write(rows []T) error {
	if _, err := t.out.Write(rows); err != nil {
		return err
	}
	if t.held += len(rows); t.held < rowGroup {
		return nil
	}
	t.held = 0
	return t.out.Flush()
}

func (t *parquetTable[T]) close() error { return t.out.Close() }

// columnsOf gives the names of a row's columns.
func columnsOf[T any]() []string {
	t := reflect.TypeFor[T]()
	out := make([]string, t.NumField())
	for i := range out {
		out[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return out
}

// jsonText is a column that holds JSON: a value in NDJSON, text elsewhere.
type jsonText string

// MarshalJSONTo writes the value, null where there is none.
func (t jsonText) MarshalJSONTo(enc *jsontext.Encoder) error {
	if t == "" {
		return enc.WriteToken(jsontext.Null)
	}
	return enc.WriteValue(jsontext.Value(t))
}
