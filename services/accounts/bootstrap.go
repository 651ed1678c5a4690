package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/fault"
)

const (
	bootstrapFile  = "bootstrap-credentials.json"
	pendingFile    = bootstrapFile + ".pending"
	defaultAccount = "main"
	passwordLen    = 24 // 142 bits
	appendAttempts = 3
)

// BootstrapConfig says what the first start makes.
type BootstrapConfig struct {
	// DataDir is where the credentials are written, once.
	DataDir string
	// Account is the slug of the first account; its admins are the operators.
	Account string `default:"main" help:"Account to make on the first start."`
	// AdminEmail is what the first user signs in with.
	AdminEmail string `default:"admin@localhost" help:"E-mail address of the first admin."`
	// URL is where the server answers; it is only written down.
	URL string

	name   string       // of the account, for people; empty: the slug
	author event.Author // zero: the first start
}

// Bootstrapped says what a start found or made.
type Bootstrapped struct {
	Created bool   // this start made the first credentials, or finished making them
	File    string // where they are; empty if this process does not hold them
}

// credentials is the file that the operator gets, with the fields of
// architecture 9. The ids are those that routes take.
type credentials struct {
	Account       string `json:"account"`
	AdminEmail    string `json:"admin_email"`
	AdminPassword string `json:"admin_password"`
	APIKey        string `json:"api_key"`
	APIKeyID      string `json:"api_key_id"`
	PAT           string `json:"pat"`
	PATID         string `json:"pat_id"`
	AdminPAT      string `json:"admin_pat"`
	URL           string `json:"url"`
}

// plan is what the pending file holds: what is being made, and the very frames
// that make it, so that a later start repeats them byte by byte.
type plan struct {
	Credentials credentials      `json:"credentials"`
	Frames      []eventlog.Frame `json:"frames"`
}

// Bootstrap makes the first account, its admin and three credentials if the
// stream of credentials is empty, and leaves the secrets in a file in the data
// directory (mode 0600): they are nowhere else.
//
// It may die at any point and be called again, by any number of processes. The
// plan is durable before its first frame is stored, and a later start that
// finds a plan carries it out. The first frame must be the log's first, so of
// several processes one wins, and the others forget their plans.
func Bootstrap(ctx context.Context, cfg BootstrapConfig, log eventlog.Log, peppers *credential.Peppers, now func() time.Time, entropy io.Reader) (Bootstrapped, error) {
	done, err := bootstrap(ctx, cfg, log, peppers, now, entropy)
	if err != nil {
		return Bootstrapped{}, fmt.Errorf("make the first credentials: %w", err)
	}
	return done, nil
}

func bootstrap(ctx context.Context, cfg BootstrapConfig, log eventlog.Log, peppers *credential.Peppers, now func() time.Time, entropy io.Reader) (Bootstrapped, error) {
	if cfg.Account == "" {
		cfg.Account = defaultAccount
	}
	if cfg.AdminEmail == "" {
		cfg.AdminEmail = "admin@localhost"
	}
	final, pending := filepath.Join(cfg.DataDir, bootstrapFile), filepath.Join(cfg.DataDir, pendingFile)
	p, err := readPlan(pending)
	if errors.Is(err, fs.ErrNotExist) {
		last, err := log.Last(ctx)
		if err != nil {
			return Bootstrapped{}, err
		}
		if last > 0 {
			return found(final)
		}
		if p, err = newPlan(cfg, peppers, now(), entropy); err != nil {
			return Bootstrapped{}, err
		}
		if p, err = writePlan(pending, p); errors.Is(err, fs.ErrNotExist) { // another process has just carried out its own
			return found(final)
		} else if err != nil {
			return Bootstrapped{}, err
		}
	} else if err != nil {
		return Bootstrapped{}, err
	}
	if err := p.verify(peppers, now()); err != nil {
		return Bootstrapped{}, err
	}
	won, err := p.publish(ctx, log)
	if err != nil {
		return Bootstrapped{}, err
	}
	if !won {
		if err := remove(pending); err != nil {
			return Bootstrapped{}, err
		}
		return found(final)
	}
	if err := p.hand(final, pending); err != nil {
		return Bootstrapped{}, err
	}
	return Bootstrapped{Created: true, File: final}, nil
}

// found is the answer of a start that has nothing to make.
func found(final string) (Bootstrapped, error) {
	if _, err := os.Stat(final); errors.Is(err, fs.ErrNotExist) {
		return Bootstrapped{}, nil
	} else if err != nil {
		return Bootstrapped{}, err
	}
	return Bootstrapped{File: final}, nil
}

func newPlan(cfg BootstrapConfig, peppers *credential.Peppers, at time.Time, entropy io.Reader) (*plan, error) {
	if !credential.ValidAccount(cfg.Account) {
		return nil, fault.New(fault.Unprocessable, "", "account %q is not made of 1 to 40 of a-z, 0-9 and -", cfg.Account)
	}
	if cfg.name == "" {
		cfg.name = cfg.Account
	}
	if cfg.author == (event.Author{}) {
		cfg.author.CredentialName = "bootstrap"
	}
	b := &planner{plan: &plan{}, author: cfg.author, peppers: peppers, account: cfg.Account, at: at.UTC().Truncate(time.Millisecond), entropy: entropy}
	c := &b.plan.Credentials
	c.Account, c.AdminEmail, c.URL = cfg.Account, cfg.AdminEmail, cfg.URL

	account := credential.Account{ID: cfg.Account, Name: cfg.name, CreatedAt: b.at}
	b.add(&account, credential.AccountCreated)

	c.AdminPassword = b.random(passwordLen)
	user := credential.User{
		ID: b.id(), Account: cfg.Account, Email: cfg.AdminEmail, Role: credential.RoleAdmin,
		PasswordHash: b.hash(c.AdminPassword), CreatedAt: b.at,
	}
	b.add(&user, credential.UserJoined)

	c.APIKey, c.APIKeyID = b.mint(credential.Record{
		Kind: credential.APIKey, PublicID: credential.KeyID(event.Live, 1), Name: "first key",
		Scopes: credential.EventsWrite, CreatedBy: user.ID,
	})
	c.PAT, c.PATID = b.mint(credential.Record{
		Kind: credential.PAT, PublicID: b.tokenID(), Name: "first token",
		Scopes: credential.Read, CreatedBy: user.ID, UserID: user.ID,
	})
	admin, err := credential.ParseScopes(credential.PAT, []string{"admin"})
	b.fail(err)
	c.AdminPAT, _ = b.mint(credential.Record{
		Kind: credential.PAT, PublicID: b.tokenID(), Name: "first admin token",
		Scopes: admin, CreatedBy: user.ID, UserID: user.ID, FirstStart: true,
	})
	return b.plan, b.err
}

// planner makes a plan's parts. After the first failure it only goes through
// the motions, and err tells it.
type planner struct {
	plan    *plan
	peppers *credential.Peppers
	account string
	author  event.Author
	at      time.Time
	entropy io.Reader
	err     error
}

func (b *planner) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *planner) random(n int) string {
	s, err := credential.Random(n, b.entropy)
	b.fail(err)
	return s
}

func (b *planner) tokenID() string {
	s, err := credential.NewTokenID(b.entropy)
	b.fail(err)
	return s
}

func (b *planner) newULID() ulid.ULID {
	id, err := ulid.New(ulid.Timestamp(b.at), b.entropy)
	b.fail(err)
	return id
}

func (b *planner) id() string { return b.newULID().String() }

func (b *planner) hash(password string) string {
	phc, err := hashPassword(password, b.entropy)
	b.fail(err)
	return phc
}

// mint completes a record, plans its event, and gives the secret and its id.
func (b *planner) mint(r credential.Record) (secret, id string) {
	r.ID, r.Account, r.Mode, r.Status = b.id(), b.account, event.Live, credential.Active
	r.CreatedAt, r.ExpiresAt = b.at, b.at.AddDate(1, 0, 0)
	named := r.Account
	if r.Kind == credential.PAT {
		named = ""
	}
	secret, err := credential.Mint(r.Kind, named, r.PublicID, r.Mode, b.entropy)
	b.fail(err)
	r.Digest, r.Pepper = b.peppers.Digest(secret)
	r.LastFour = credential.LastFour(secret)
	b.add(&r, credential.Created)
	return secret, r.ID
}

type recordable interface {
	LogSubject() string
	Event(id ulid.ULID, t event.Type, at time.Time, by event.Author) (event.Event, error)
}

func (b *planner) add(r recordable, t event.Type) {
	e, err := r.Event(b.newULID(), t, b.at, b.author)
	b.fail(err)
	if b.err != nil {
		return
	}
	b.plan.Frames = append(b.plan.Frames, eventlog.Frame{
		ID: e.ID.String(), Subject: r.LogSubject(), ContentType: credential.ContentType,
		Body: event.AppendEvent(nil, &e, 0),
	})
}

// verify folds the plan and tries its secrets. It fails when the pepper is not
// the one that the plan was made with: published, its keys would open nothing.
func (p *plan) verify(peppers *credential.Peppers, now time.Time) error {
	keys := credential.NewKeyring(peppers)
	for i, f := range p.Frames {
		e, err := event.DecodeEvent(event.Position{Stream: event.CredentialStream, Offset: event.At(uint64(i+1), 0)}, f.Body)
		if err == nil {
			err = keys.Apply(e)
		}
		if err != nil {
			return err
		}
	}
	c := &p.Credentials
	for _, secret := range []string{c.APIKey, c.PAT, c.AdminPAT} {
		if _, err := keys.Verify(secret, now); err != nil {
			return fmt.Errorf("the planned credential %s does not verify; was the pepper changed in the middle of the first start?: %w",
				credential.Redact(secret), err)
		}
	}
	return nil
}

// publish stores what is not yet stored. It tells whether this plan, and not
// another process's, is the one that counts.
func (p *plan) publish(ctx context.Context, log eventlog.Log) (won bool, err error) {
	for i, f := range p.Frames {
		store := log.AppendToSubject
		if i == 0 {
			store = log.AppendFrame // as the log's first of all
		}
		err := stored(ctx, store, f)
		if !errors.Is(err, eventlog.ErrConflict) {
			if err != nil {
				return false, fmt.Errorf("store the event of %s: %w", f.Subject, err)
			}
			continue
		}
		// Either it stands there since an earlier attempt, or another does.
		ours, findErr := contains(ctx, log, f)
		switch {
		case findErr != nil:
			return false, findErr
		case ours:
		case i == 0:
			return false, nil
		default:
			return false, fmt.Errorf("store the event of %s: %w", f.Subject, err)
		}
	}
	return true, nil
}

// stored stores f where nothing was. No answer is settled by asking again.
func stored(ctx context.Context, store func(context.Context, eventlog.Frame, uint64) (uint64, error), f eventlog.Frame) (err error) {
	for range appendAttempts {
		if _, err = store(ctx, f, 0); !errors.Is(err, eventlog.ErrAmbiguous) {
			return err
		}
	}
	return err
}

func contains(ctx context.Context, log eventlog.Reader, f eventlog.Frame) (bool, error) {
	for r, err := range log.Read(ctx, 0) {
		if err != nil {
			return false, err
		}
		if r.Subject == f.Subject {
			return r.ID == f.ID, nil
		}
	}
	return false, nil
}

// hand gives the operator the credentials, whole or not at all, and only then
// forgets the plan.
func (p *plan) hand(final, pending string) error {
	text, err := json.MarshalIndent(p.Credentials, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := writeDurably(final, append(text, '\n'))
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := syncDir(filepath.Dir(final)); err != nil {
		return err
	}
	return remove(pending)
}

func readPlan(pending string) (*plan, error) {
	text, err := os.ReadFile(pending)
	if err != nil {
		return nil, err
	}
	p := &plan{}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("read %s: %w", pending, err)
	}
	return p, nil
}

// writePlan makes p durable and gives the plan that is to be carried out: that
// of another process in the same directory, if it came first.
func writePlan(pending string, p *plan) (*plan, error) {
	if err := os.MkdirAll(filepath.Dir(pending), 0o700); err != nil {
		return nil, err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	tmp, err := writeDurably(pending, text)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(tmp) }()
	err = os.Link(tmp, pending) // and not a rename, which would take the other one's place
	if errors.Is(err, fs.ErrExist) {
		return readPlan(pending)
	} else if err != nil {
		return nil, err
	}
	return p, syncDir(filepath.Dir(pending))
}

// writeDurably writes a file of mode 0600 beside path and gives its name.
func writeDurably(path string, content []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// remove removes a file that another process may have removed first.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
