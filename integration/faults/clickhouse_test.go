//go:build linux

package faults_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"
	"testing"
	"time"
)

func TestWritesGoOnWhileTheReadModelHangs(t *testing.T) {
	withoutReadModel(t, func(t *testing.T, srv *server) (restore func()) {
		engine := srv.engine(t)
		signal := func(s syscall.Signal) {
			if err := syscall.Kill(engine, s); err != nil {
				t.Fatal(err)
			}
		}
		signal(syscall.SIGSTOP)
		// Stopped, it would not even notice that its parent is gone.
		t.Cleanup(func() { _ = syscall.Kill(engine, syscall.SIGCONT) })
		return func() { signal(syscall.SIGCONT) }
	})
}

func TestWritesGoOnWhileTheReadModelIsDead(t *testing.T) {
	withoutReadModel(t, func(t *testing.T, srv *server) (restore func()) {
		// It is started again at once, so it is killed for as long as it is to be away.
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				if pid := childOf(srv.cmd.Process.Pid, engineArg); pid != 0 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		}()
		var ended bool
		restore = func() {
			if !ended {
				ended = true
				close(stop)
				<-stopped
			}
		}
		t.Cleanup(restore)
		return restore
	})
}

// withoutReadModel takes ClickHouse away under load and gives it back.
func withoutReadModel(t *testing.T, takeAway func(*testing.T, *server) (restore func())) {
	t.Helper()
	s := setup{dir: t.TempDir()}
	srv := start(t, s)
	k := srv.keys(t)
	l := newLedger()
	c := newClient(newTarget(srv.url), l, k.APIKey)
	r := newReader(srv.url, k.PAT)
	before := startLoad(t, "before", calm, c)
	eventually(t, "the load is under way", func() error {
		if l.count() < 200 {
			return errors.New("few events are acknowledged")
		}
		return nil
	})
	before.end()
	before.settle(t)
	r.sees(t, l)
	had := l.count()

	restore := takeAway(t, srv)
	during := startLoad(t, "during", calm, c)
	began := time.Now()
	var slowest time.Duration
	codes := map[string]int{}
	// Each kind of read is refused, in the documented form, and does not hang.
	for _, path := range []string{"/deployments/", "/matrix", "/products/"} {
		eventually(t, "GET "+path+" is refused", func() error {
			asked := time.Now()
			res, err := r.get(t.Context(), path, url.Values{})
			slowest = max(slowest, time.Since(asked))
			if err != nil {
				t.Fatalf("GET %s hangs or is cut off: %v", path, err)
			}
			if res.status == http.StatusOK {
				return errors.New("it is answered")
			}
			code, err := unavailable(res)
			if err != nil {
				t.Fatalf("GET %s: %v", path, err)
			}
			codes[code]++
			return nil
		})
	}
	eventually(t, "health tells of it", func() error {
		h, err := r.health(t.Context())
		if err != nil {
			return err
		}
		if h.Status != "degraded" || h.Parts["read_model"] != "unavailable" || h.Parts["log"] != "ok" {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
	eventually(t, "writes go on", func() error {
		if l.count() < had+500 {
			return fmt.Errorf("%d are acknowledged since", l.count()-had)
		}
		return nil
	})
	during.end()
	during.settle(t)
	away := time.Since(began)
	written := l.count() - had
	restore()

	deployments := r.sees(t, l)
	eventually(t, "health is well again", func() error {
		h, err := r.health(t.Context())
		if err == nil && h.Status != "ok" {
			err = fmt.Errorf("%+v", h)
		}
		return err
	})
	l.clean(t)
	if n := len(l.refusals); n > 0 {
		t.Errorf("writes were refused while only the read model was away: %v", l.refusals)
	}
	srv.interrupt(t)
	end := readLog(t, logOf(s.dir))
	end.sound(t)
	end.holds(t, l, l.snapshot())
	t.Logf("away for %s: %d events acknowledged meanwhile, reads refused as %v, the slowest after %s; then all %d deployments were read",
		away.Round(time.Millisecond), written, codes, slowest.Round(time.Millisecond), deployments)
}
