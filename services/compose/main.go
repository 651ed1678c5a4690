package compose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"

	"github.com/shipledger/shipledger/pkg/httpapi"
	"github.com/shipledger/shipledger/pkg/lifecycle"
)

// Logging says what is logged, and how.
type Logging struct {
	LogLevel  string `default:"info" enum:"debug,info,warn,error" env:"SHIPLEDGER_LOG_LEVEL" help:"Least level that is logged: ${enum}."`
	LogFormat string `default:"text" enum:"text,json" env:"SHIPLEDGER_LOG_FORMAT" help:"Form of log lines: ${enum}."`
}

// Logger gives the logger, to standard error.
func (l Logging) Logger() *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.LogLevel)) // kong has checked it
	options := &slog.HandlerOptions{Level: level}
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// Main is the program of one service, whose parts come from open. It ends the
// process.
func Main(service, version string, open func(ctx context.Context, p *Process) ([]Part, error)) {
	Run(service, version, func(_ context.Context, cfg Config, logger *slog.Logger) (lifecycle.Service, error) {
		if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
		secrecy, err := cfg.Secrecy(logger)
		if err == nil {
			err = secrecy.checkInside()
		}
		if err != nil {
			return nil, err
		}
		return lifecycle.Func(func(ctx context.Context, ready func()) error {
			nc, err := DialNATS(cfg, service, secrecy)
			if err != nil {
				return err
			}
			defer nc.Close()
			system, err := wire(ctx, cfg, secrecy, nc, service, open, logger)
			if err != nil {
				return err
			}
			return system.Run(ctx, ready)
		}), nil
	})
}

func wire(ctx context.Context, cfg Config, secrecy Secrecy, nc *nats.Conn, service string, open func(ctx context.Context, p *Process) ([]Part, error), logger *slog.Logger) (lifecycle.Service, error) {
	opening, cancel := context.WithTimeout(ctx, OpenTimeout)
	defer cancel()
	p, err := Open(opening, cfg, secrecy, nc, service, []string{service}, logger)
	if err != nil {
		return nil, err
	}
	listens, _ := cfg.Places.Of(service)
	p.Address = listens
	parts, err := open(opening, p)
	if err != nil {
		return nil, err
	}
	return p.Serve(Door{Addr: listens, TLS: secrecy.Inside(), Leave: leave, Believed: cfg.FrontDoors, ForwardedProto: true, Listening: cfg.Listening}, parts...)
}

// Run is the program of one process: it reads the configuration, runs what open
// gives until it is told to stop, and ends the process.
func Run(name, version string, open func(ctx context.Context, cfg Config, logger *slog.Logger) (lifecycle.Service, error)) {
	var args struct {
		Config  `embed:""`
		Logging `embed:""`

		Version kong.VersionFlag `help:"Print the version."`
	}
	TuneMemory()
	k := kong.Parse(&args, kong.Name(filepath.Base(os.Args[0])), kong.Description("Shipledger: "+name+", as a process of its own."),
		kong.UsageOnError(), kong.Vars{"version": version})
	logger := args.Logger().With("service", name)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := args.Config
	cfg.Version = version
	var addr net.Addr
	cfg.Listening = func(a net.Addr) { addr = a }
	system, err := open(ctx, cfg, logger)
	k.FatalIfErrorf(err)
	err = system.Run(ctx, func() { fmt.Printf("%s listens on %s\n", name, addr) })
	k.FatalIfErrorf(err)
	logger.InfoContext(ctx, "stopped")
}

// DialNATS connects to the NATS that is named.
func DialNATS(cfg Config, name string, secrecy Secrecy) (*nats.Conn, error) {
	if cfg.NATSURL == "" {
		return nil, errors.New("a process of its own needs a NATS: set SHIPLEDGER_NATS_URL")
	}
	nc, err := nats.Connect(cfg.NATSURL, append(NATSOptions(name), secrecy.NATS(cfg.NATSURL)...)...)
	if errors.Is(err, nats.ErrSecureConnWanted) {
		return nil, fmt.Errorf("connect to NATS: SHIPLEDGER_TLS_CA is set, and it does not speak TLS: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return nc, nil
}

// NATSOptions are how every process keeps to its NATS.
func NATSOptions(name string) []nats.Option {
	return []nats.Option{
		nats.Name("shipledger " + name), nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond), nats.PingInterval(5 * time.Second),
		nats.ReconnectBufSize(-1), // what cannot be sent now is refused, not kept for later
	}
}

// Neighbours carries requests for the public API to the processes of the services
// that answer them, as the front door does.
func (p *Process) Neighbours() http.RoundTripper {
	n := neighbours{routes: httpapi.NewRoutes(p.Spec), services: map[string]http.RoundTripper{}}
	for _, name := range Services {
		_, at := p.Config.Places.Of(name)
		n.services[name] = httpapi.NewUpstream(at, p.Secrecy.Upstream()).Through(&http.Transport{MaxIdleConnsPerHost: neighbourConns})
	}
	return n
}

// neighbourConns is how many connections to a service are kept.
const neighbourConns = 64

type neighbours struct {
	routes   *httpapi.Routes
	services map[string]http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (n neighbours) RoundTrip(r *http.Request) (*http.Response, error) {
	service := n.services[n.routes.Service(r)]
	if service == nil {
		service = n.services[Query] // which says that there is nothing
	}
	return service.RoundTrip(r)
}
