package credential

import (
	"bytes"
	"strconv"
)

// hidden stands for the secret part. No character of it is base62, so that
// what was redacted never reads as a credential again.
const hidden = "..."

// Redact gives what a log may show of a presented token: kind, account, public
// id and the last four characters, and less of what is no token at all.
func Redact(token string) string {
	p, ok := shapeOf(token)
	switch {
	case ok && p.end == len(token):
		return token[:p.random] + hidden + LastFour(token)
	case startsWith(token, "sk_"):
		return "sk_" + hidden
	case startsWith(token, "pat_"):
		return "pat_" + hidden
	}
	return hidden
}

// RedactIn replaces, in a JSON document, every minted credential (by grammar
// and checksum) by its kind, public id and last four characters (contract 21).
// It returns body itself where there is none.
//
// A credential consists of characters that JSON never has to escape, so it
// stands in a document as it is; one that hides behind \u escapes is found too.
func RedactIn(body []byte) []byte {
	plain := body
	if bytes.Contains(body, []byte(`\u00`)) {
		plain = unescape(body)
	}
	out, n := redactOnce(plain)
	if n == 0 {
		return body
	}
	for n > 0 { // what is left beside a redacted one may be one again
		out, n = redactOnce(out)
	}
	return out
}

// redactOnce gives how many it replaced, and body itself if none.
func redactOnce(body []byte) (out []byte, n int) {
	done := 0
	for at := nextPrefix(body, 0); at >= 0; {
		p, end := mintedAt(body[at:])
		if end == 0 {
			at = nextPrefix(body, at+1)
			continue
		}
		token := body[at : at+end]
		out = append(out, body[done:at]...)
		out = append(out, p.kind.prefix()...)
		out = append(out, token[p.id:p.random]...)
		out = append(out, hidden...)
		out = append(out, token[end-lastLen:]...)
		done = at + end
		n++
		at = nextPrefix(body, done)
	}
	if n == 0 {
		return body, 0
	}
	return append(out, body[done:]...), n
}

// nextPrefix gives the next place from which a credential could begin, or -1.
func nextPrefix(body []byte, from int) int {
	for i := from; ; i++ {
		n := bytes.IndexByte(body[i:], '_')
		if n < 0 {
			return -1
		}
		i += n
		if k := i - 2; k >= from && body[k] == 's' && body[k+1] == 'k' {
			return k
		}
		if k := i - 3; k >= from && body[k] == 'p' && body[k+1] == 'a' && body[k+2] == 't' {
			return k
		}
	}
}

// mintedAt gives the minted credential that s begins with and its length, 0 if
// there is none. Text may follow it without a gap, so each end is tried.
func mintedAt(s []byte) (p shape, end int) {
	p, ok := shapeOf(s)
	if !ok {
		return p, 0
	}
	body := p.random + mintedRandom
	crc := update(^uint32(0), s[:body])
	for ; body+checksumLen <= min(p.end, maxTokenBytes); body++ {
		if encodeChecksum(^crc) == [checksumLen]byte(s[body:]) {
			return p, body + checksumLen
		}
		crc = update(crc, s[body:body+1])
	}
	return p, 0
}

// unescape writes out the \u escapes of characters that a credential may have.
func unescape(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' || i+1 == len(body) {
			out = append(out, body[i])
			continue
		}
		if body[i+1] == 'u' && i+6 <= len(body) {
			c, err := strconv.ParseUint(string(body[i+2:i+6]), 16, 8)
			if err == nil && (c == '_' || classes[c] != 0) {
				out = append(out, byte(c))
				i += 5
				continue
			}
		}
		out = append(out, body[i], body[i+1]) // as a pair, so that \\u stays what it is
		i++
	}
	return out
}
