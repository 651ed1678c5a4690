package accounts_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/shipledger/shipledger/pkg/eventlog/memlog"
	"github.com/shipledger/shipledger/pkg/kv/memkv"
	"github.com/shipledger/shipledger/services/accounts"
)

const clientSecret = "the secret of this server"

var text64 = base64.RawURLEncoding

// issuer is an OpenID Connect provider: discovery, keys, and the code flow with
// PKCE. It signs in whoever it is told to.
type issuer struct {
	*httptest.Server

	key *rsa.PrivateKey

	mu     sync.Mutex
	claims map[string]any        // of the next id token, beside those of the protocol
	codes  map[string]url.Values // what a code was asked for with
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{
			"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": text64.EncodeToString(key.N.Bytes()), "e": text64.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("/token", i.token)
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// authorize is what a browser finds at the address that it is sent to: it gives
// the address that the issuer sends it back to.
func (i *issuer) authorize(t *testing.T, address string, claims map[string]any) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil || u.Path != "/authorize" || !strings.HasPrefix(address, i.URL) {
		t.Fatalf("sent to %q, %v", address, err)
	}
	q := u.Query()
	if q.Get("response_type") != "code" || q.Get("client_id") != "shipledger" || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("state")) < 32 || len(q.Get("nonce")) < 32 || q.Get("scope") != "openid email profile" {
		t.Errorf("asked for %v", q)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	code := rand.Text()
	i.codes[code], i.claims = q, claims
	return q.Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
}

func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	asked, ok := i.codes[r.FormValue("code")]
	delete(i.codes, r.FormValue("code"))
	challenge := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if secret, _ = url.QueryUnescape(secret); !ok || id != "shipledger" || secret != clientSecret || text64.EncodeToString(challenge[:]) != asked.Get("code_challenge") ||
		r.FormValue("redirect_uri") != asked.Get("redirect_uri") {
		w.WriteHeader(http.StatusBadRequest)
		writeJSON(w, map[string]string{"error": "invalid_grant"})
		return
	}
	claims := map[string]any{
		"iss": i.URL, "aud": "shipledger", "sub": "42", "iat": noon.Unix(), "exp": noon.Unix() + 300, "nonce": asked.Get("nonce"),
	}
	maps.Copy(claims, i.claims)
	body, _ := json.Marshal(claims)
	signed := text64.EncodeToString([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + text64.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	writeJSON(w, map[string]any{"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": signed + "." + text64.EncodeToString(signature)})
}

// browser keeps cookies between its visits.
type browser struct {
	p       *process
	cookies map[string]*http.Cookie
}

func (b *browser) visit(address string) visited {
	r := httptest.NewRequest(http.MethodGet, address, nil)
	r.Host = "ledger.example"
	for _, c := range b.cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	b.p.api.ServeHTTP(w, r)
	res := w.Result()
	_ = res.Body.Close()
	for _, c := range res.Cookies() {
		if b.cookies[c.Name] = c; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return visited{res.StatusCode, res.Header}
}

// visited is what a browser is answered.
type visited struct {
	status int
	header http.Header
}

// oidcProcess is a process that signs people in through an issuer.
func oidcProcess(t *testing.T, change ...func(*accounts.OIDCConfig)) (*issuer, *process) {
	t.Helper()
	i := newIssuer(t)
	cfg := &accounts.OIDCConfig{Issuer: i.URL, ClientID: "shipledger", ClientSecret: clientSecret, Client: i.Client()}
	for _, c := range change {
		c(cfg)
	}
	dir, log := t.TempDir(), memlog.New()
	mustStart(t, dir, log)
	p := newNode(t, log, memkv.New(), readFile(t, dir)["admin_pat"], func(c *accounts.Config) { c.OIDC, c.Attempts = cfg, nil })
	return i, p
}

func verified(email string) map[string]any {
	return map[string]any{"email": email, "email_verified": true}
}

func TestAVerifiedAddressSignsItsUserIn(t *testing.T) {
	i, p := oidcProcess(t)
	b := &browser{p, map[string]*http.Cookie{}}
	to := b.visit("/auth/oidc/login?return_to=" + url.QueryEscape("/matrix?product=a"))
	if c := b.cookies["__oidc"]; to.status != http.StatusSeeOther || c == nil || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 600 {
		t.Fatalf("%d, the cookie is %+v", to.status, c)
	}
	back := i.authorize(t, to.header.Get("Location"), verified("Ops@acme.example"))
	if !strings.HasPrefix(back, "http://ledger.example/auth/oidc/callback?") {
		t.Errorf("sent back to %s", back)
	}
	res := b.visit(back)
	if res.status != http.StatusSeeOther || res.header.Get("Location") != "/matrix?product=a" || res.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d to %s", res.status, res.header.Get("Location"))
	}
	c := b.cookies["__session"]
	if c == nil || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || b.cookies["__oidc"] != nil {
		t.Fatalf("the cookies are %v", b.cookies)
	}
	if id, err := p.ring.Verify(c.Value); err != nil || id.Role != "admin" {
		t.Errorf("the session is of %+v, %v", id, err)
	}
	if res := b.visit(back); res.status != http.StatusBadRequest {
		t.Errorf("the way back works twice: %d", res.status)
	}
	if log := p.logs.String(); strings.Contains(log, clientSecret) || strings.Contains(log, "code=") {
		t.Errorf("the log holds a secret: %s", log)
	}
}

func TestWhoIsNotSignedInThroughAnIssuer(t *testing.T) {
	i, p := oidcProcess(t, func(c *accounts.OIDCConfig) { c.Domains = []string{"acme.example"} })
	if got := p.send(http.MethodPost, "/users/", `{"email":"foreign@elsewhere.example","role":"qa"}`); got.status != http.StatusCreated {
		t.Fatalf("%+v", got)
	}
	for name, c := range map[string]struct {
		claims map[string]any
		want   int
	}{
		"an address that nobody has":       {verified("nobody@acme.example"), http.StatusForbidden},
		"an address of another domain":     {verified("foreign@elsewhere.example"), http.StatusForbidden},
		"an address that is not verified":  {map[string]any{"email": "ops@acme.example", "email_verified": false}, http.StatusForbidden},
		"an address of which nothing said": {map[string]any{"email": "ops@acme.example"}, http.StatusForbidden},
		"no address":                       {map[string]any{}, http.StatusForbidden},
		"a token of another sign-in":       {map[string]any{"email": "ops@acme.example", "email_verified": true, "nonce": "x"}, http.StatusForbidden},
		"a token for another server":       {map[string]any{"email": "ops@acme.example", "email_verified": true, "aud": "x"}, http.StatusForbidden},
		"a token of another issuer":        {map[string]any{"email": "ops@acme.example", "email_verified": true, "iss": "https://x"}, http.StatusForbidden},
		"a token that has expired":         {map[string]any{"email": "ops@acme.example", "email_verified": true, "exp": noon.Unix() - 1}, http.StatusForbidden},
		"words for true":                   {map[string]any{"email": "ops@acme.example", "email_verified": "true"}, http.StatusSeeOther},
	} {
		t.Run(name, func(t *testing.T) {
			b := &browser{p, map[string]*http.Cookie{}}
			res := b.visit(i.authorize(t, b.visit("/auth/oidc/login").header.Get("Location"), c.claims))
			if res.status != c.want || (b.cookies["__session"] != nil) != (c.want == http.StatusSeeOther) {
				t.Errorf("%d, %v", res.status, b.cookies)
			}
		})
	}
}

func TestASignInBelongsToItsBrowser(t *testing.T) {
	i, p := oidcProcess(t)
	one, two := &browser{p, map[string]*http.Cookie{}}, &browser{p, map[string]*http.Cookie{}}
	back := i.authorize(t, one.visit("/auth/oidc/login").header.Get("Location"), verified("ops@acme.example"))
	if res := two.visit(back); res.status != http.StatusBadRequest {
		t.Errorf("without the cookie: %d", res.status)
	}
	two.visit("/auth/oidc/login")
	if res := two.visit(back); res.status != http.StatusBadRequest || two.cookies["__session"] != nil {
		t.Errorf("with the state of another: %d", res.status)
	}
	forged := *one.cookies["__oidc"]
	body, signature, _ := strings.Cut(forged.Value, ".")
	forged.Value = body[:len(body)-2] + "AA." + signature
	two.cookies["__oidc"] = &forged
	if res := two.visit(back); res.status != http.StatusBadRequest {
		t.Errorf("with a forged cookie: %d", res.status)
	}
	if res := one.visit("/auth/oidc/callback?error=access_denied&state=x"); res.status != http.StatusBadRequest {
		t.Errorf("%d", res.status)
	}
	if res := one.visit(back); res.status != http.StatusBadRequest { // the attempt is over
		t.Errorf("%d", res.status)
	}
}

func TestAnInvitedUserJoinsThroughTheIssuer(t *testing.T) {
	i, p := oidcProcess(t)
	if got := p.send(http.MethodPost, "/users/", `{"email":"ann@acme.example","role":"qa"}`); got.status != http.StatusCreated {
		t.Fatalf("%+v", got)
	}
	for range 2 {
		b := &browser{p, map[string]*http.Cookie{}}
		res := b.visit(i.authorize(t, b.visit("/auth/oidc/login").header.Get("Location"), verified("ann@acme.example")))
		if res.status != http.StatusSeeOther {
			t.Fatalf("%d", res.status)
		}
		if id, err := p.ring.Verify(b.cookies["__session"].Value); err != nil || id.Role != "qa" {
			t.Errorf("%+v, %v", id, err)
		}
	}
}

func TestNobodyIsSentToAnotherServer(t *testing.T) {
	i, p := oidcProcess(t)
	for to, want := range map[string]string{
		"/manage/deployments?view=1": "/manage/deployments?view=1", "": "/", "https://evil.example": "/", "//evil.example": "/", `/\evil.example`: "/",
		`\/evil.example`: "/", "javascript:alert(1)": "/", "/\t/evil.example": "/", "evil.example": "/", "/%2f/evil.example": "/%2f/evil.example",
	} {
		b := &browser{p, map[string]*http.Cookie{}}
		login := b.visit("/auth/oidc/login?return_to=" + url.QueryEscape(to))
		if got := b.visit(i.authorize(t, login.header.Get("Location"), verified("ops@acme.example"))).header.Get("Location"); got != want {
			t.Errorf("%q: sent to %q, want %q", to, got, want)
		}
	}
}

func TestAnIssuerThatIsAwayIsAskedAgain(t *testing.T) {
	i, p := oidcProcess(t, func(c *accounts.OIDCConfig) {
		c.Client = &http.Client{Transport: http.NewFileTransport(http.Dir(t.TempDir()))}
	})
	b := &browser{p, map[string]*http.Cookie{}}
	if res := b.visit("/auth/oidc/login"); res.status != http.StatusServiceUnavailable {
		t.Errorf("%d", res.status)
	}
	i.Close()
	if res := b.visit("/auth/oidc/callback"); res.status != http.StatusBadRequest {
		t.Errorf("%d", res.status)
	}
}
