package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

const (
	revokeProcesses = 3
	revokeWrites    = 100 // events a second beside the revocations
)

// Revoked is what revocations cost that hold in several processes.
type Revoked struct {
	Name       string  `json:"name"`
	Processes  int     `json:"processes"`
	Keys       int     `json:"keys"`
	P50        float64 `json:"p50_ms"`
	P90        float64 `json:"p90_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	Propagated int     `json:"propagated"` // answers that say that every process acts by it
	Violations int     `json:"violations"` // answers that let a revoked key in
}

// revocations measures how long it takes to revoke a key so that three
// processes refuse it, which share a NATS and nothing else. They have no read
// model: nobody needs one to refuse a key.
func (b *bench) revocations(ctx context.Context) (err error) {
	dir := filepath.Join(b.dir, "revoke")
	log, err := startLog(ctx, filepath.Join(dir, "nats"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.stop()) }()
	shared := make([]byte, 64)
	_, _ = rand.Read(shared) // never fails
	var processes []*ledger
	defer func() {
		for _, l := range processes {
			err = errors.Join(err, l.stop())
		}
	}()
	for i := range revokeProcesses {
		b.logf("process %d of %d of one ledger", i+1, revokeProcesses)
		l, err := startProcess(ctx, b.Binary, filepath.Join(dir, strconv.Itoa(i)),
			"SHIPLEDGER_NATS_URL=nats://"+log.addr, "SHIPLEDGER_CLICKHOUSE_DSN=clickhouse://127.0.0.1:1/absent", "SHIPLEDGER_METRICS_ADDR=",
			"SHIPLEDGER_PEPPER="+hex.EncodeToString(shared[:32]), "SHIPLEDGER_SESSION_KEY="+hex.EncodeToString(shared[32:]), "SHIPLEDGER_LOG_LEVEL=error")
		if err != nil {
			return err
		}
		processes = append(processes, l)
	}
	if err := processes[0].readCredentials(); err != nil { // the first made those of all
		return err
	}
	quiet, err := b.revoke(ctx, processes, "nothing else going on")
	if err != nil {
		return err
	}
	b.report.Revoked = append(b.report.Revoked, quiet)

	busy, cancel := context.WithCancel(ctx)
	defer cancel()
	written := make(chan error, 1)
	go func() {
		_, err := drive(busy, &processes[0].server, newEvents(processes[0].apiKey), load{connections: pacedOn, perSecond: revokeWrites, measured: startLimit, max: revokeWrites * 120})
		written <- err
	}()
	loaded, err := b.revoke(ctx, processes, fmt.Sprintf("beside %d events a second", revokeWrites))
	cancel()
	if writeErr := <-written; !errors.Is(writeErr, context.Canceled) {
		err = errors.Join(err, writeErr)
	}
	if err == nil {
		b.report.Revoked = append(b.report.Revoked, loaded)
	}
	return err
}

// revoke makes keys, uses each in every process, revokes it through the first,
// and asks all of them as soon as that is answered.
func (b *bench) revoke(ctx context.Context, processes []*ledger, name string) (Revoked, error) {
	out := Revoked{Name: name, Processes: len(processes), Keys: b.Revocations}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: len(processes)}}
	defer client.CloseIdleConnections()
	manage := processes[0]
	h := hdr.New(1, maxMicros, significant)
	for i := range b.Revocations {
		if i%50 == 0 {
			b.logf("revocations, %s: %d of %d", name, i, b.Revocations)
		}
		made, err := call(ctx, client, http.MethodPost, manage.addr, "/api-keys/", manage.adminPAT, fmt.Sprintf(`{"name":"bench %d","scope":"events:write","expires":"30d"}`, i))
		if err != nil {
			return out, err
		}
		var key struct {
			ID     string `json:"id"`
			Secret string `json:"secret"`
		}
		if err := json.Unmarshal(made.body, &key); err != nil || made.status != http.StatusCreated {
			return out, fmt.Errorf("make a key: answered %d: %.300s", made.status, made.body)
		}
		if n, err := letIn(ctx, client, processes, key.Secret); err != nil || n != len(processes) {
			return out, errors.Join(fmt.Errorf("a new key was let in by %d of %d processes", n, len(processes)), err)
		}
		began := time.Now()
		revoked, err := call(ctx, client, http.MethodDelete, manage.addr, "/api-keys/"+key.ID, manage.adminPAT, "")
		took := time.Since(began)
		if err != nil || revoked.status != http.StatusNoContent {
			return out, errors.Join(fmt.Errorf("revoke a key: answered %d: %.300s", revoked.status, revoked.body), err)
		}
		n, err := letIn(ctx, client, processes, key.Secret)
		if err != nil {
			return out, err
		}
		out.Violations += n
		if revoked.header.Get("X-Shipledger-Propagated") == "true" {
			out.Propagated++
		}
		if err := h.RecordValue(max(took.Microseconds(), 1)); err != nil {
			return out, err
		}
	}
	ms := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	out.P50, out.P90, out.P99, out.Max = ms(50), ms(90), ms(99), float64(h.Max())/1000
	return out, nil
}

// letIn asks every process at once, and tells how many let a key in. What they
// are sent is no event, so that a key that is let in is told so and stores nothing.
func letIn(ctx context.Context, client *http.Client, processes []*ledger, key string) (int, error) {
	var in atomic.Int64
	errs := make([]error, len(processes))
	var all sync.WaitGroup
	for i, l := range processes {
		all.Go(func() {
			a, err := call(ctx, client, http.MethodPost, l.addr, "/deployment-events/", key, `{}`)
			switch {
			case err != nil:
				errs[i] = err
			case a.status == http.StatusUnprocessableEntity:
				in.Add(1)
			case a.status != http.StatusUnauthorized:
				errs[i] = fmt.Errorf("a key was answered %d: %.300s", a.status, a.body)
			}
		})
	}
	all.Wait()
	return int(in.Load()), errors.Join(errs...)
}

type called struct {
	status int
	header http.Header
	body   []byte
}

func call(ctx context.Context, client *http.Client, method, addr, path, token, body string) (called, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return called{}, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		return called{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return called{res.StatusCode, res.Header, text}, err
}
