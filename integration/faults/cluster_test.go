//go:build linux

package faults_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shipledger/shipledger/integration/separate"
	"github.com/shipledger/shipledger/pkg/eventlog"
	"github.com/shipledger/shipledger/pkg/eventlog/natslog"
)

const replicas = 3

var clusterFlag = flag.Int("cluster-rounds", 0, "how often a cluster of NATS loses its leader and a follower, and is restarted; 0: only a leader, once")

// A natsCluster is three servers that keep every stream three times.
type natsCluster struct {
	nodes [replicas]*natsServer
	js    jetstream.JetStream
}

func startCluster(t *testing.T) *natsCluster {
	t.Helper()
	var routes []string
	for range replicas {
		routes = append(routes, freeAddress(t))
	}
	c := &natsCluster{}
	for i := range c.nodes {
		c.nodes[i] = startNATS(t, natsOptions{Dir: t.TempDir(), SyncAlways: true, Name: fmt.Sprintf("n%d", i), Routes: routes, Member: i})
	}
	nc, err := nats.Connect(c.urls(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if c.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster has a leader", func() error {
		return c.ask(func(ctx context.Context) error { _, err := c.js.AccountInfo(ctx); return err })
	})
	return c
}

// freeAddress is one that nothing listens to at the moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	addr, err := separate.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func (c *natsCluster) urls() string {
	var urls []string
	for _, n := range c.nodes {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", n.Port))
	}
	return strings.Join(urls, ",")
}

// ask bounds one question: around an election some are never answered.
func (c *natsCluster) ask(question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return question(ctx)
}

// leader gives who leads a stream.
func (c *natsCluster) leader(t *testing.T, stream string) (node int) {
	t.Helper()
	eventually(t, stream+" has a leader", func() error {
		return c.ask(func(ctx context.Context) error {
			s, err := c.js.Stream(ctx, stream)
			if err != nil {
				return err
			}
			node = slices.IndexFunc(c.nodes[:], func(n *natsServer) bool { return n.Name == s.CachedInfo().Cluster.Leader })
			if node < 0 {
				return errors.New("nobody leads")
			}
			return nil
		})
	})
	return node
}

// streams gives every stream, those of buckets too, once all their replicas are current.
func (c *natsCluster) streams(t *testing.T) (names []string) {
	t.Helper()
	eventually(t, "every replica is current", func() error {
		return c.ask(func(ctx context.Context) error {
			names = nil
			list := c.js.ListStreams(ctx)
			for s := range list.Info() {
				names = append(names, s.Config.Name)
				if s.Config.Replicas != replicas || s.Cluster == nil || len(s.Cluster.Replicas) != replicas-1 || s.Cluster.Leader == "" {
					return fmt.Errorf("%s: %d replicas: %+v", s.Config.Name, s.Config.Replicas, s.Cluster)
				}
				for _, r := range s.Cluster.Replicas {
					if !r.Current || r.Offline || r.Lag > 100 {
						return fmt.Errorf("%s: %+v", s.Config.Name, *r)
					}
				}
			}
			return list.Err()
		})
	})
	return names
}

// Issue 7: a NATS cluster loses its leader, a follower, and is restarted node by
// node, while two processes write.
func TestAClusterThatLosesItsNodesLosesNoEvent(t *testing.T) {
	c := startCluster(t)
	env := []string{
		"SHIPLEDGER_NATS_URL=" + c.urls(), fmt.Sprintf("SHIPLEDGER_NATS_MONITOR_URL=http://127.0.0.1:%d", c.nodes[0].MonitorPort),
		fmt.Sprintf("SHIPLEDGER_NATS_REPLICAS=%d", replicas), "SHIPLEDGER_PEPPER=" + strings.Repeat("5e", 32),
	}
	first := start(t, setup{dir: t.TempDir(), env: env})
	second := start(t, setup{dir: t.TempDir(), env: env, logOnly: true})
	k := first.keys(t)
	l := newLedger()
	clients := []*client{newClient(newTarget(first.url), l, k.APIKey), newClient(newTarget(second.url), l, k.APIKey)}
	t.Logf("three replicas each: %s", strings.Join(c.streams(t), " "))
	work := startLoad(t, "cluster", calm, clients...)
	goesOn := func() (silence time.Duration) {
		began, had := time.Now(), l.count()
		eventually(t, "events are acknowledged", func() error {
			n := l.count()
			if n > had && silence == 0 {
				silence = time.Since(began)
			}
			if n < had+200 {
				return errors.New("few are")
			}
			return nil
		})
		return silence
	}
	goesOn()
	refused := func() func() int {
		before := l.refusedBy("LOG_UNAVAILABLE")
		return func() int { return l.refusedBy("LOG_UNAVAILABLE") - before }
	}
	lose := func(what string, node int) {
		t.Helper()
		refusals := refused()
		c.nodes[node].kill()
		silence := goesOn()
		c.nodes[node] = c.nodes[node].again(t)
		c.streams(t)
		t.Logf("%s killed: acknowledged again after %s, %d answers 503", what, silence.Round(time.Millisecond), refusals())
	}
	for range max(*clusterFlag, 1) {
		lose("leader", c.leader(t, "TRACK_00"))
		if *clusterFlag == 0 {
			break
		}
		lose("follower", (c.leader(t, "TRACK_00")+1)%replicas)
		refusals := refused()
		for i := range c.nodes {
			c.nodes[i].stop()
			c.nodes[i] = c.nodes[i].again(t)
			c.streams(t)
			goesOn()
		}
		n := refusals()
		t.Logf("rolling restart: %d answers 503", n)
		if n > 0 {
			t.Errorf("%d writes failed while the nodes were restarted one after another:\n%s\n%s", n, first.errors, second.errors)
		}
	}
	// A key that is revoked in one process is dead in the other: the bucket of
	// nodes lives in the cluster too.
	m := newManager(t, first, k.AdminPAT)
	eventually(t, "a revocation is known to have reached the other process", func() error {
		key := m.create("revoked")
		header := m.must(http.StatusNoContent, http.MethodDelete, "/api-keys/"+key.ID, "", nil)
		if header.Get("X-Shipledger-Propagated") != "true" {
			return errors.New("it is not")
		}
		if in, err := newManager(t, second, k.AdminPAT).letIn(key.Secret); err != nil || in {
			t.Fatalf("the other process lets in a revoked key: %v", err)
		}
		return nil
	})
	work.end()
	work.settle(t)
	deployments := newReader(first.url, k.PAT).sees(t, l)
	l.clean(t)
	first.interrupt(t)
	second.interrupt(t)
	log, err := natslog.Open(t.Context(), c.js, natslog.Track(0, replicas))
	if err != nil {
		t.Fatal(err)
	}
	var end history
	if err := end.read(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	end.sound(t)
	end.holds(t, l, l.snapshot())
	t.Logf("%d events acknowledged by two processes, all in the log once, in %d frames; %d deployments read; refused: %v",
		l.count(), len(end.frames), deployments, l.refusals)
}

// Any replica answers a direct read, and one that is behind says that the newest
// frame does not exist.
func TestAReplicaThatIsBehindIsNotBelieved(t *testing.T) {
	c := startCluster(t)
	var log *natslog.Log
	eventually(t, "the stream is made", func() error {
		return c.ask(func(ctx context.Context) (err error) {
			log, err = natslog.Open(ctx, c.js, natslog.Credentials(replicas))
			return err
		})
	})
	const subject = "cred.a.b"
	var last uint64
	for n := range 300 {
		after := last
		eventually(t, "the frame is stored", func() (err error) {
			last, err = log.AppendToSubject(t.Context(), eventlog.Frame{ID: fmt.Sprint(n), Subject: subject, Body: []byte("{}")}, after)
			if errors.Is(err, eventlog.ErrConflict) { // one before got through, but not its answer: nobody else writes
				last, err = after+1, nil
			}
			return err
		})
		// A busy cluster may elect another leader, and not answer meanwhile. What it
		// answers must hold.
		eventually(t, "the frame is read", func() error {
			_, err := log.At(t.Context(), last)
			if errors.Is(err, eventlog.ErrNoFrame) {
				t.Fatalf("frame %d is stored and is said not to exist: %v", last, err)
			}
			return err
		})
		if n%100 > 0 {
			continue
		}
		read := 0
		eventually(t, "the subject is read", func() error {
			read = 0
			for _, err := range log.ReadSubject(t.Context(), subject) {
				if err != nil {
					return err
				}
				read++
			}
			return nil
		})
		if read != n+1 {
			t.Fatalf("of %d frames %d are read", n+1, read)
		}
	}
	eventually(t, "it is asked for a frame that nobody wrote", func() error {
		_, err := log.At(t.Context(), last+1)
		if err == nil {
			t.Fatal("a frame is read that nobody wrote")
		}
		if errors.Is(err, eventlog.ErrNoFrame) {
			err = nil
		}
		return err
	})
}
