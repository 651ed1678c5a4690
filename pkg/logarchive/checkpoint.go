package logarchive

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Checkpoint is the root over the first frames of a stream.
type Checkpoint struct {
	Stream string
	Size   uint64 // frames
	Root   tlog.Hash
}

// A PublicKey checks the checkpoints of a ledger. Its text is a verifier key of
// golang.org/x/mod/sumdb/note.
type PublicKey struct {
	name string // of the ledger
	key  ed25519.PublicKey
}

// ParsePublicKey reads what PublicKey.String gave.
func ParsePublicKey(text string) (PublicKey, error) {
	text = strings.TrimSpace(text)
	if _, err := note.NewVerifier(text); err != nil {
		return PublicKey{}, fmt.Errorf("read the public key: %w", err)
	}
	parts := strings.SplitN(text, "+", 3)
	key, err := base64Encoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return PublicKey{}, errors.New("read the public key: it is not Ed25519")
	}
	return PublicKey{parts[0], key[1:]}, nil
}

// String writes the key as name+hash+key.
func (k PublicKey) String() string {
	if len(k.key) == 0 {
		return ""
	}
	return k.encoded(k.name)
}

// IsZero tells whether there is no key.
func (k PublicKey) IsZero() bool { return len(k.key) == 0 }

func (k PublicKey) encoded(name string) string {
	text, err := note.NewEd25519VerifierKey(name, k.key)
	if err != nil {
		panic(err) // only a key of another length fails
	}
	return text
}

// verifier checks the checkpoints of a stream: its name is their origin.
func (k PublicKey) verifier(stream string) note.Verifier {
	v, err := note.NewVerifier(k.encoded(k.name + "/" + stream))
	if err != nil {
		panic(err) // it was encoded right here
	}
	return v
}

// Open checks the signature of a checkpoint and reads it.
func (k PublicKey) Open(text string) (Checkpoint, error) {
	c, origin, err := parseCheckpoint(text)
	if err != nil {
		return c, err
	}
	if origin != k.name+"/"+c.Stream {
		return c, fmt.Errorf("the checkpoint is of %s, the key is of %s", origin, k.name)
	}
	n, err := note.Open([]byte(text), note.VerifierList(k.verifier(c.Stream)))
	if err == nil { // bits of its text that mean nothing must not differ either
		_, err = base64Encoding.Strict().DecodeString(n.Sigs[0].Base64)
	}
	if err != nil {
		return c, fmt.Errorf("the signature of the checkpoint of %s at %d is not good: %w", c.Stream, c.Size, err)
	}
	return c, nil
}

// parseCheckpoint reads a checkpoint without looking at its signature.
func parseCheckpoint(text string) (c Checkpoint, origin string, err error) {
	lines := strings.SplitN(text, "\n", 5)
	if len(lines) < 5 || lines[3] != "" {
		return c, "", errors.New("it is no checkpoint")
	}
	origin = lines[0]
	c.Stream = origin[strings.LastIndexByte(origin, '/')+1:]
	if c.Stream == "" || strings.Trim(c.Stream, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return c, "", errors.New("it is no checkpoint: it names no stream")
	}
	if c.Size, err = strconv.ParseUint(lines[1], 10, 62); err != nil || strconv.FormatUint(c.Size, 10) != lines[1] {
		return c, "", errors.New("it is no checkpoint: its size cannot be read")
	}
	if c.Root, err = parseHash(lines[2]); err != nil {
		return c, "", fmt.Errorf("it is no checkpoint: %w", err)
	}
	return c, origin, nil
}

// A Signer signs the checkpoints of a ledger.
type Signer struct {
	public PublicKey
	key    ed25519.PrivateKey
}

// NewSigner makes a signer of a seed of 32 secret bytes. The name of the ledger
// follows from it, so that two ledgers never have one.
func NewSigner(seed []byte) (*Signer, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("a key of checkpoints has %d bytes, not %d", ed25519.SeedSize, len(seed))
	}
	key := ed25519.NewKeyFromSeed(seed)
	public, _ := key.Public().(ed25519.PublicKey)
	sum := sha256.Sum256(public)
	return &Signer{PublicKey{"shipledger/" + hex.EncodeToString(sum[:6]), public}, key}, nil
}

// PublicKey gives the key that checks what s signs.
func (s *Signer) PublicKey() PublicKey { return s.public }

// Sign writes a checkpoint.
func (s *Signer) Sign(c Checkpoint) (string, error) {
	v := s.public.verifier(c.Stream)
	text := v.Name() + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + base64Encoding.EncodeToString(c.Root[:]) + "\n"
	signed, err := note.Sign(&note.Note{Text: text}, streamSigner{v.Name(), v.KeyHash(), s.key})
	if err != nil {
		return "", fmt.Errorf("sign the checkpoint of %s at %d: %w", c.Stream, c.Size, err)
	}
	return string(signed), nil
}

// streamSigner implements note.Signer.
type streamSigner struct {
	name string
	hash uint32
	key  ed25519.PrivateKey
}

func (s streamSigner) Name() string                    { return s.name }
func (s streamSigner) KeyHash() uint32                 { return s.hash }
func (s streamSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }
