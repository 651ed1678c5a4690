package accounts

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"

	"github.com/shipledger/shipledger/pkg/credential"
	"github.com/shipledger/shipledger/pkg/event"
	"github.com/shipledger/shipledger/pkg/fault"
	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/outbound"
)

// OIDCConfig names the issuer that people may sign in through. Who they are
// follows from the e-mail address that it has verified: it must be that of a
// user, or of somebody who was invited. Nobody is made a user by signing in.
type OIDCConfig struct {
	Issuer       string
	ClientID     string
	ClientSecret string
	// Scopes are asked for beside openid. Default email and profile.
	Scopes []string
	// Domains are the e-mail domains that are let in; none: all.
	Domains []string
	// RedirectURL is where the issuer sends people back to; empty: to
	// /auth/oidc/callback of the address that they came to.
	RedirectURL string
	// Client asks the issuer; nil: one that calls the public internet only.
	Client *http.Client
}

const (
	oidcCookie  = "__oidc" // what one sign-in needs on its way back
	oidcLife    = 10 * time.Minute
	oidcTimeout = 10 * time.Second
)

// Why nobody is signed in.
var (
	errNoOIDC       = fault.New(fault.NotFound, "NOT_FOUND", "Signing in through an issuer is not set up here.")
	errOIDCState    = fault.New(fault.Invalid, "OIDC_STATE", "This sign-in was not begun in this browser, or too long ago. Begin again.")
	errOIDCRefused  = fault.New(fault.Forbidden, "OIDC_REFUSED", "The issuer did not sign you in.")
	errOIDCEmail    = fault.New(fault.Forbidden, "OIDC_EMAIL", "The issuer has not verified your e-mail address, or it is not of a domain that is let in.")
	errOIDCUser     = fault.New(fault.Forbidden, "OIDC_UNKNOWN_USER", "Nobody here has your e-mail address. Ask an admin to invite you.")
	errOIDCAccounts = fault.New(fault.Conflict, "OIDC_SEVERAL_ACCOUNTS", "Your e-mail address is known in several accounts. Begin with ?account= and the one that you mean.")
)

// issuerClient speaks to the issuer, whose documents are read when somebody
// first signs in: an issuer that is away must not keep this process from starting.
type issuerClient struct {
	cfg OIDCConfig
	now func() time.Time

	mu       sync.Mutex
	provider *oidc.Provider // nil until it was read
}

func newIssuerClient(cfg *OIDCConfig, now func() time.Time) *issuerClient {
	if cfg == nil || cfg.Issuer == "" {
		return nil
	}
	c := &issuerClient{cfg: *cfg, now: now}
	if len(c.cfg.Scopes) == 0 {
		c.cfg.Scopes = []string{"email", "profile"}
	}
	if c.cfg.Client == nil {
		c.cfg.Client = outbound.New(outbound.Config{})
	}
	return c
}

func (c *issuerClient) discover(ctx context.Context) (*oidc.Provider, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.provider != nil {
		return c.provider, nil
	}
	p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), c.cfg.Client), c.cfg.Issuer)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "", "The issuer does not answer. Try again later.").Because(err)
	}
	c.provider = p
	return p, nil
}

func (c *issuerClient) oauth(p *oidc.Provider, r *httpapi.Request) *oauth2.Config {
	back := c.cfg.RedirectURL
	if back == "" {
		back = r.Base() + "/auth/oidc/callback"
	}
	return &oauth2.Config{
		ClientID: c.cfg.ClientID, ClientSecret: c.cfg.ClientSecret, Endpoint: p.Endpoint(), RedirectURL: back,
		Scopes: append([]string{oidc.ScopeOpenID}, c.cfg.Scopes...),
	}
}

// oidcState is what a sign-in remembers in the browser, signed.
type oidcState struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE
	ReturnTo string `json:"r"`
	Account  string `json:"a,omitzero"`
	Expires  int64  `json:"e"`
}

// oidcLogin sends a browser to the issuer.
func (s *Service) oidcLogin(w http.ResponseWriter, r *httpapi.Request) error {
	if s.issuer == nil {
		return errNoOIDC
	}
	if err := s.attemptFrom(r); err != nil {
		return err
	}
	provider, err := s.issuer.discover(r.Context())
	if err != nil {
		return err
	}
	st := oidcState{
		ReturnTo: safeReturn(r.QueryString("return_to")), Account: r.QueryString("account"),
		Verifier: oauth2.GenerateVerifier(), Expires: s.now().Add(oidcLife).Unix(),
	}
	for _, into := range []*string{&st.State, &st.Nonce} {
		if *into, err = credential.Random(40, s.entropy); err != nil {
			return err
		}
	}
	sealed, err := s.seal(&st)
	if err != nil {
		return err
	}
	http.SetCookie(w, s.oidcCookie(r, sealed, int(oidcLife.Seconds())))
	return redirect(w, s.issuer.oauth(provider, r).AuthCodeURL(st.State, oidc.Nonce(st.Nonce), oauth2.S256ChallengeOption(st.Verifier)))
}

// oidcCallback signs in whom the issuer sends back.
func (s *Service) oidcCallback(w http.ResponseWriter, r *httpapi.Request) error {
	if s.issuer == nil {
		return errNoOIDC
	}
	if err := s.attemptFrom(r); err != nil {
		return err
	}
	st, err := s.open(r)
	if err != nil {
		return err
	}
	http.SetCookie(w, s.oidcCookie(r, "", -1)) // for one attempt
	if subtle.ConstantTimeCompare([]byte(st.State), []byte(r.QueryString("state"))) != 1 {
		return errOIDCState
	}
	if r.QueryString("error") != "" || r.QueryString("code") == "" {
		return errOIDCRefused
	}
	email, err := s.issuer.identify(r, &st)
	if err != nil {
		return err
	}
	user, err := s.whoSignsIn(r, email, st.Account)
	if err != nil {
		return err
	}
	session, _, err := s.start(r, user)
	if err != nil {
		return err
	}
	token, err := s.sessions.Sign(&session)
	if err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(r, token, int(s.life.Seconds())))
	return redirect(w, st.ReturnTo)
}

// identify exchanges the code for an id token, and gives the verified address in it.
func (c *issuerClient) identify(r *httpapi.Request, st *oidcState) (email string, _ error) {
	provider, err := c.discover(r.Context())
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(r.Context(), c.cfg.Client), oidcTimeout)
	defer cancel()
	grant, err := c.oauth(provider, r).Exchange(ctx, r.QueryString("code"), oauth2.VerifierOption(st.Verifier))
	if err != nil {
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok { // its text may hold what the issuer was sent
			return "", errOIDCRefused.Because(fmt.Errorf("the issuer answers the code with %s", refused.Response.Status))
		}
		return "", fault.New(fault.Unavailable, "", "The issuer does not answer. Try again later.").Because(errors.New("exchange the code: the issuer does not answer"))
	}
	raw, _ := grant.Extra("id_token").(string)
	verified, err := provider.Verifier(&oidc.Config{ClientID: c.cfg.ClientID, Now: c.now}).Verify(ctx, raw)
	if err != nil {
		return "", errOIDCRefused.Because(errors.New("the id token does not verify"))
	}
	if subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(st.Nonce)) != 1 {
		return "", errOIDCRefused
	}
	var claims struct {
		Email    string `json:"email"`
		Verified any    `json:"email_verified"` // some issuers write "true"
	}
	if err := verified.Claims(&claims); err != nil {
		return "", errOIDCRefused
	}
	_, domain, ok := strings.Cut(claims.Email, "@")
	inDomain := len(c.cfg.Domains) == 0 || slices.ContainsFunc(c.cfg.Domains, func(d string) bool { return strings.EqualFold(d, domain) })
	if !ok || !inDomain || claims.Verified != true && claims.Verified != "true" {
		return "", errOIDCEmail
	}
	return claims.Email, nil
}

// whoSignsIn gives the user of a verified address. One who was invited joins by it.
func (s *Service) whoSignsIn(r *httpapi.Request, email, account string) (*credential.User, error) {
	if err := s.ring.Healthy(); err != nil {
		return nil, err
	}
	users := s.ring.UsersByEmail(email)
	if account != "" {
		users = slices.DeleteFunc(users, func(u credential.HeldUser) bool { return u.Account != account })
	}
	switch {
	case len(users) == 0:
		return nil, errOIDCUser
	case len(users) > 1:
		return nil, errOIDCAccounts
	case !users[0].Invited:
		return &users[0].User, nil
	}
	joined := users[0].User
	_, err := s.inTurn(r.Context(), func(ctx context.Context, now time.Time, before uint64) (committed, error) {
		held, ok := s.ring.User(joined.ID)
		switch {
		case !ok:
			return committed{}, errOIDCUser
		case !held.Invited: // by another request meanwhile
			joined = held.User
			return committed{seq: held.At.Seq()}, nil
		}
		if held.Link.Purpose == credential.Invitation && !now.Before(held.Link.ExpiresAt) {
			return committed{}, errOIDCUser
		}
		change := held.Join("", "", now)
		joined = change.User
		by := event.Author{CredentialName: "OpenID Connect", Mode: event.Live, Actor: joined.ID}
		seq, err := s.appendNoted(ctx, fact{recordable: &joined, is: change.Type, alone: true}, by, noteOf(r), now, before)
		return committed{seq: seq}, err
	})
	return &joined, err
}

// seal writes a state with a signature that only processes of this ledger can make.
func (s *Service) seal(st *oidcState) (string, error) {
	body, err := json.Marshal(st)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(body)
	return text + "." + s.signature(text), nil
}

func (s *Service) signature(text string) string {
	sum, _ := s.peppers.Digest("oidc state\x00" + text)
	return hex.EncodeToString(sum[:])
}

// open reads the state that a browser brings back.
func (s *Service) open(r *httpapi.Request) (st oidcState, _ error) {
	cookies := r.CookiesNamed(oidcCookie)
	if len(cookies) != 1 {
		return st, errOIDCState
	}
	text, signature, _ := strings.Cut(cookies[0].Value, ".")
	if subtle.ConstantTimeCompare([]byte(signature), []byte(s.signature(text))) != 1 {
		return st, errOIDCState
	}
	body, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(body, &st) != nil || s.now().Unix() >= st.Expires {
		return oidcState{}, errOIDCState
	}
	return st, nil
}

func (s *Service) oidcCookie(r *httpapi.Request, value string, seconds int) *http.Cookie {
	c := s.cookie(r, value, seconds)
	c.Name = oidcCookie
	return c
}

// safeReturn gives the page to go back to: one of this server, or its first.
func safeReturn(to string) string {
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") ||
		u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return "/"
	}
	return u.String()
}

// redirect sends a browser on. Only pages that browsers open do so, never a
// route that somebody posts to (contract 1.3).
func redirect(w http.ResponseWriter, to string) error {
	noStore(w)
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
