//nolint:bodyclose // get closes them when the test ends
package outbound_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shipledger/shipledger/pkg/outbound"
)

func TestPublicAddressesAreThoseOfOthers(t *testing.T) {
	for _, text := range []string{"8.8.8.8", "1.1.1.1", "93.184.215.14", "::ffff:8.8.8.8", "2606:4700::1111", "2a00:1450:4001:80b::200e"} {
		if !outbound.Public(netip.MustParseAddr(text)) {
			t.Errorf("%s is public", text)
		}
	}
	for _, text := range []string{
		"127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fc00::1",
		"100.100.100.200", "100.64.0.1", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:1::", "2001:db8::1", "fec0::1",
	} {
		if outbound.Public(netip.MustParseAddr(text)) {
			t.Errorf("%s is not public", text)
		}
	}
	if outbound.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// server counts who comes.
func server(t *testing.T, tls bool, h http.HandlerFunc) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var came atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came.Add(1)
		h(w, r)
	}))
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, &came
}

func get(t *testing.T, c *http.Client, address string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err == nil {
		t.Cleanup(func() { _ = res.Body.Close() })
	}
	return res, err
}

func TestAPrivateAddressIsNeverConnectedTo(t *testing.T) {
	s, came := server(t, true, func(http.ResponseWriter, *http.Request) {})
	port := s.Listener.Addr().(*net.TCPAddr).Port
	resolver, _ := names(t, nil) // no name server of this machine is asked
	c := outbound.New(outbound.Config{Resolver: resolver})
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1", "169.254.169.254", "10.0.0.1"} {
		u := url.URL{Scheme: "https", Host: host + ":" + netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)).String()[len("0.0.0.0:"):]}
		_, err := get(t, c, u.String())
		var dns *net.DNSError
		if !errors.Is(err, outbound.ErrAddress) && !errors.As(err, &dns) { // 127.1 is no address here, but a name
			t.Errorf("%s: %v", host, err)
		}
	}
	if came.Load() > 0 {
		t.Errorf("the server was called %d times", came.Load())
	}
}

func TestWhatIsAllowedIsCalledEvenWithoutTLS(t *testing.T) {
	s, came := server(t, false, func(http.ResponseWriter, *http.Request) {})
	if _, err := get(t, outbound.New(outbound.Config{}), s.URL); !errors.Is(err, outbound.ErrUnencrypted) {
		t.Errorf("without leave: %v", err)
	}
	if _, err := get(t, outbound.New(outbound.Config{Allow: loopback}), s.URL); err != nil || came.Load() != 1 {
		t.Errorf("with leave: %v, called %d times", err, came.Load())
	}
}

// A name that is public when it is looked at and private when it is used: what
// counts is the address that is connected to.
func TestANameThatChangesItsMindGainsNothing(t *testing.T) {
	s, came := server(t, true, func(http.ResponseWriter, *http.Request) {})
	for _, answer := range [][]string{{"127.0.0.1"}, {"169.254.169.254", "127.0.0.1"}, {"10.0.0.7"}} {
		resolver, asked := names(t, answer)
		c := outbound.New(outbound.Config{Resolver: resolver})
		_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
		if _, err := get(t, c, "https://rebinding.example.org:"+port+"/"); !errors.Is(err, outbound.ErrAddress) {
			t.Errorf("%v: %v", answer, err)
		}
		if asked.Load() == 0 {
			t.Errorf("%v: the name was never looked up", answer)
		}
	}
	if came.Load() > 0 {
		t.Errorf("the server was called %d times", came.Load())
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	inner, came := server(t, false, func(http.ResponseWriter, *http.Request) {})
	s, _ := server(t, false, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inner.URL, http.StatusFound) })
	res, err := get(t, outbound.New(outbound.Config{Allow: loopback}), s.URL)
	if err != nil || res.StatusCode != http.StatusFound || came.Load() != 0 {
		t.Errorf("%v, %v, the target was called %d times", res, err, came.Load())
	}
}

func TestAnAnswerWithoutAnEndIsGivenUp(t *testing.T) {
	s, _ := server(t, false, func(w http.ResponseWriter, _ *http.Request) {
		for chunk := strings.Repeat(" ", 32<<10); ; {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	})
	res, err := get(t, outbound.New(outbound.Config{Allow: loopback}), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); !errors.Is(err, outbound.ErrTooLong) || n > outbound.MaxBody {
		t.Errorf("%d bytes, %v", n, err)
	}
	if outbound.New(outbound.Config{}).Timeout != outbound.Timeout {
		t.Error("a call may take as long as it likes")
	}
}

// names gives a resolver that answers every question with these IPv4 addresses.
func names(t *testing.T, addresses []string) (*net.Resolver, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	listener, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, from, err := listener.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil {
				continue
			}
			asked.Add(1)
			m.Response, m.Additionals = true, nil
			for _, q := range m.Questions {
				if q.Type != dnsmessage.TypeA {
					continue
				}
				for _, a := range addresses {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
					})
				}
			}
			answer, err := m.Pack()
			if err == nil {
				_, _ = listener.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", listener.LocalAddr().String())
	}}, &asked
}
