package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shipledger/shipledger/integration/separate"
)

const (
	startLimit = 60 * time.Second
	stopLimit  = 20 * time.Second
	tick       = time.Second / 100 // of /proc, on every Linux that Go runs on
)

// server is a process of ours that answers requests.
type server struct {
	addr     string
	metrics  string       // where its metrics are; empty: nowhere
	accepted atomic.Int64 // requests answered with 200
	cmd      *exec.Cmd
	input    io.Closer // ends the process where it is closed; nil: an interrupt does
	output   *bytes.Buffer
	ended    chan struct{}
}

// DecoderArg starts this binary as the decode-only handler.
const DecoderArg = "decode-only-handler"

// ServeDecoder answers on a port of its own, which it prints, until input ends.
func ServeDecoder(input io.Reader, output io.Writer) error {
	return serve(input, output, decodeOnly)
}

func decodeOnly(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ProductName     string            `json:"product_name"`
		Version         string            `json:"version"`
		EnvironmentName string            `json:"environment_name"`
		Status          string            `json:"status"`
		SCMRepository   string            `json:"scm_repository"`
		SCMSHA          string            `json:"scm_sha"`
		SourceSystem    string            `json:"source_system"`
		BuildNumber     string            `json:"build_number"`
		InvokeID        string            `json:"invoke_id"`
		DeployURL       string            `json:"deploy_url"`
		DeployedBy      string            `json:"deployed_by"`
		DeployedByEmail string            `json:"deployed_by_email"`
		DeployedByName  string            `json:"deployed_by_name"`
		CompletedAt     time.Time         `json:"completed_at"`
		ExtraMetadata   map[string]string `json:"extra_metadata"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.InvokeID == "" {
		http.Error(w, "not an event", http.StatusUnprocessableEntity)
	}
}

func startDecoder(ctx context.Context) (*server, error) { return startSelf(ctx, DecoderArg) }

// startSelf starts this binary as something else, which prints where it listens.
func startSelf(ctx context.Context, args ...string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this binary: %w", err)
	}
	s := &server{cmd: exec.CommandContext(ctx, self, args...)}
	if s.input, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the %s: %w", args[0], err), s.stop())
	}
	s.addr = strings.TrimSpace(addr)
	return s, nil
}

func (s *server) start() error {
	s.output = &bytes.Buffer{}
	s.cmd.Stderr = s.output
	s.cmd.WaitDelay = stopLimit
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.cmd.Path, err)
	}
	s.ended = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // how it ended stands in ProcessState
		close(s.ended)
	}()
	return nil
}

// stop ends this process and no other, and waits for it.
func (s *server) stop() error {
	if s.input != nil {
		_ = s.input.Close()
	} else {
		_ = s.cmd.Process.Signal(os.Interrupt) // fails if it has ended already
	}
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return fmt.Errorf("%s did not stop within %s and was killed", s.cmd.Path, stopLimit)
	}
	if !s.cmd.ProcessState.Success() {
		return fmt.Errorf("%s ended with %s: %s", s.cmd.Path, s.cmd.ProcessState, s.output)
	}
	return nil
}

// used is processor time. It is zero where there is no /proc.
type used struct{ process, children time.Duration }

func (u used) minus(v used) used { return used{u.process - v.process, u.children - v.children} }

func (s *server) cpu() used { return cpuOf(s.cmd.Process.Pid) }

func cpuOf(pid int) used { return cpuWith(pid, childrenOf(pid)) }

// cpuWith is cpuOf where the processes below are known: to look for them takes 5 ms and
// leaves 0.4 MB of garbage, which between short questions is much.
func cpuWith(pid int, children []int) used {
	out := used{process: processTime(pid)}
	for _, child := range children {
		out.children += processTime(child)
	}
	return out
}

func (s *server) children() []int { return childrenOf(s.cmd.Process.Pid) }

// signalChildren sends a signal to every process that s started.
func (s *server) signalChildren(signal syscall.Signal) error {
	var errs []error
	for _, pid := range s.children() {
		errs = append(errs, syscall.Kill(pid, signal))
	}
	return errors.Join(errs...)
}

// childrenOf gives the processes below one, at any depth.
func childrenOf(pid int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list) // threads come and go
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				pids = append(append(pids, n), childrenOf(n)...)
			}
		}
	}
	return pids
}

func processTime(pid int) time.Duration { return statTime(fmt.Sprintf("/proc/%d/stat", pid)) }

// mergeTime gives what the threads of ClickHouse that merge parts have taken. They live as
// long as the process.
func mergeTime(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, thread := range threads {
			if name, _ := os.ReadFile(thread + "/comm"); string(name) == "MergeMutate\n" { // threads come and go
				sum += statTime(thread + "/stat")
			}
		}
	}
	return sum
}

// statTime reads the time of a process or thread, 0 of one that is gone.
func statTime(file string) time.Duration {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; after it, user and system time are fields 12 and 13.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

// ledger is a running shipledger.
type ledger struct {
	server
	data                  string
	apiKey, pat, adminPAT string
}

func startLedger(ctx context.Context, binary, data string) (*ledger, error) {
	l, err := startProcess(ctx, binary, data)
	if err != nil {
		return nil, err
	}
	if err := l.readCredentials(); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

// startProcess starts one process of a ledger, which need not be the first.
func startProcess(ctx context.Context, binary, data string, env ...string) (*ledger, error) {
	return startProcessWithin(ctx, startLimit, binary, data, env...)
}

func startProcessWithin(ctx context.Context, limit time.Duration, binary, data string, env ...string) (*ledger, error) {
	addr, err := separate.FreeAddr()
	if err != nil {
		return nil, err
	}
	l := &ledger{data: data, server: server{addr: addr}}
	l.cmd = exec.CommandContext(ctx, binary, "up", "--data", data, "--addr", addr)
	// What is measured is what an event costs, not how many are allowed.
	l.cmd.Env = append(append(os.Environ(), "SHIPLEDGER_RATE_LIMIT=off", "SHIPLEDGER_LOG_LEVEL=warn"), env...)
	if err := l.start(); err != nil {
		return nil, err
	}
	if err := l.untilReady(ctx, limit); err != nil {
		return nil, errors.Join(err, l.stop())
	}
	return l, nil
}

func (l *ledger) untilReady(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if status, _, err := l.get(ctx, "/health", ""); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", l.cmd.Path, ctx.Err(), l.output)
		case <-l.ended:
			return fmt.Errorf("%s ended with %s: %s", l.cmd.Path, l.cmd.ProcessState, l.output)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *ledger) readCredentials() error {
	text, err := os.ReadFile(filepath.Join(l.data, "bootstrap-credentials.json"))
	if err != nil {
		return fmt.Errorf("read the first credentials: %w", err)
	}
	var first struct {
		APIKey   string `json:"api_key"`
		PAT      string `json:"pat"`
		AdminPAT string `json:"admin_pat"`
	}
	if err := json.Unmarshal(text, &first); err != nil {
		return fmt.Errorf("read the first credentials: %w", err)
	}
	l.apiKey, l.pat, l.adminPAT = first.APIKey, first.PAT, first.AdminPAT
	return nil
}

func (l *ledger) get(ctx context.Context, path, token string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.addr+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// settle waits until all that is accepted can be read, and gives how long that took.
func (l *ledger) settle(ctx context.Context, events *events) (time.Duration, error) {
	return l.settleAs(ctx, l.pat, events)
}

// settleAs is settle for the account of events, which pat reads.
func (l *ledger) settleAs(ctx context.Context, pat string, events *events) (time.Duration, error) {
	c, err := dial(ctx, l.addr)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	request, run := events.request()
	position, err := l.post(c, events, request, run)
	if err != nil {
		return 0, err
	}
	return l.waitFor(ctx, pat, position)
}

// post gives the position of one more event.
func (l *ledger) post(c *connection, events *events, request, run []byte) (position string, err error) {
	events.next(run)
	status, header, err := c.roundTrip(request)
	if err != nil {
		return "", fmt.Errorf("post an event: %w", err)
	}
	_, rest, ok := bytes.Cut(header, []byte("\r\nX-Shipledger-Position: "))
	if status != http.StatusOK || !ok {
		return "", fmt.Errorf("post an event: answered %d: %q", status, header)
	}
	l.accepted.Add(1)
	value, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(value), nil
}

// waitFor reads with pat until an answer is as new as position.
func (l *ledger) waitFor(ctx context.Context, pat, position string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	began := time.Now()
	for {
		status, body, err := l.get(ctx, "/deployments/?limit=1&min_position="+url.QueryEscape(position), pat)
		switch {
		case err != nil:
			return 0, fmt.Errorf("wait for %s to be readable: %w", position, err)
		case status == http.StatusOK:
			return time.Since(began), nil
		case status != http.StatusServiceUnavailable:
			return 0, fmt.Errorf("wait for %s to be readable: answered %d: %s", position, status, body)
		}
	}
}

// untilReadable posts one event after the other and reads each as soon as it is
// accepted.
func (l *ledger) untilReadable(ctx context.Context, events *events, n int) (Times, error) {
	c, err := dial(ctx, l.addr)
	if err != nil {
		return Times{}, fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	request, run := events.request()
	h := hdr.New(1, maxMicros, significant)
	for range n {
		position, err := l.post(c, events, request, run)
		if err != nil {
			return Times{}, err
		}
		took, err := l.waitFor(ctx, l.pat, position)
		if err != nil {
			return Times{}, err
		}
		if err := h.RecordValue(took.Microseconds()); err != nil {
			return Times{}, err
		}
	}
	return times(h), nil
}

const batchSize = 1000

// postBatches sends as many batches as the time allows, or until limit events.
func (l *ledger) postBatches(ctx context.Context, events *events, connections int, d time.Duration, limit int) (accepted int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	until := time.Now().Add(d)
	var sum atomic.Int64
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for time.Now().Before(until) && int(sum.Load()) < limit && ctx.Err() == nil {
				n, err := l.postBatch(ctx, client, events.lines(batchSize))
				if err != nil {
					cancel(fmt.Errorf("post a batch: %w", err))
					return
				}
				sum.Add(int64(n))
			}
		})
	}
	wg.Wait()
	l.accepted.Add(sum.Load())
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return int(sum.Load()), nil
}

func (l *ledger) postBatch(ctx context.Context, client *http.Client, lines []byte) (accepted int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.addr+"/events/batch", bytes.NewReader(lines))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+l.apiKey)
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	// Each item of the answer has its status; reading it as JSON would cost more than sending it.
	accepted = bytes.Count(body, []byte(`"status":200`))
	if res.StatusCode != http.StatusOK || accepted != batchSize {
		return 0, fmt.Errorf("answered %d, %d of %d accepted: %.300s", res.StatusCode, accepted, batchSize, body)
	}
	return accepted, nil
}

// size is how many bytes are kept of each kind.
type size struct{ log, readModel int64 }

func (l *ledger) stored() size {
	return size{folder(filepath.Join(l.data, "nats")), folder(filepath.Join(l.data, "clickhouse"))}
}

// folder adds up files; what vanishes meanwhile, as merged parts do, counts nothing.
func folder(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // it vanished
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
