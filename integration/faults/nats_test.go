//go:build linux

package faults_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	natsd "github.com/nats-io/nats-server/v2/server"
)

// natsVariable makes this test binary a NATS server: it holds the options.
const natsVariable = "FAULTS_NATS"

// natsOptions is what a server is told, and tells once it is ready.
type natsOptions struct {
	Dir         string
	SyncAlways  bool
	Port        int // 0 takes free ones, which it keeps when it is started again
	MonitorPort int
	// Name tells the members of a cluster apart; Routes are where all of them
	// listen for each other, the one at Member this one.
	Name   string
	Routes []string
	Member int
}

// maybeRunNATS is NATS itself where this process was started as one: whole
// processes are killed here, so it must be one. It ends with its input.
func maybeRunNATS() {
	text, ok := os.LookupEnv(natsVariable)
	if !ok {
		return
	}
	if err := runNATS(text); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runNATS(text string) error {
	var o natsOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	options := &natsd.Options{
		ServerName: cmp.Or(o.Name, "faults"), Host: "127.0.0.1", Port: o.Port, HTTPHost: "127.0.0.1", HTTPPort: o.MonitorPort,
		JetStream: true, StoreDir: o.Dir, SyncAlways: o.SyncAlways, NoLog: true, NoSigs: true,
	}
	if len(o.Routes) > 0 {
		options.Cluster = natsd.ClusterOpts{Name: "faults", Host: "127.0.0.1", Port: portOf(o.Routes[o.Member])}
		options.Routes = natsd.RoutesFromStr("nats://" + strings.Join(o.Routes, ",nats://"))
	}
	s, err := natsd.NewServer(options)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return fmt.Errorf("not ready after %s", patience)
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	s.WaitForShutdown()
	return err
}

func portOf(address string) (port int) {
	_, _ = fmt.Sscanf(address, "127.0.0.1:%d", &port) // what it listens on was said so
	return port
}

// A natsServer is NATS as somebody else would run it.
type natsServer struct {
	*process
	natsOptions
	input io.Closer
}

func startNATS(t *testing.T, o natsOptions) *natsServer {
	t.Helper()
	if o.Port == 0 {
		o.Port, o.MonitorPort = portOf(freeAddress(t)), portOf(freeAddress(t))
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), natsVariable+"="+string(text))
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, out := spawn(t, cmd)
	defer out.Close()
	s := &natsServer{process: p, input: input}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.natsOptions)
	}
	if err != nil {
		t.Fatalf("NATS did not start: %v: %s", err, p.errors)
	}
	return s
}

// again starts NATS where it was, on what it left behind.
func (s *natsServer) again(t *testing.T) *natsServer {
	t.Helper()
	return startNATS(t, s.natsOptions)
}

// stop ends NATS in order.
func (s *natsServer) stop() {
	s.input.Close()
	<-s.exited
}

// env tells the product where NATS is.
func (s *natsServer) env(monitored bool) []string {
	env := []string{fmt.Sprintf("SHIPLEDGER_NATS_URL=nats://127.0.0.1:%d", s.Port)}
	if monitored {
		env = append(env, fmt.Sprintf("SHIPLEDGER_NATS_MONITOR_URL=http://127.0.0.1:%d", s.MonitorPort))
	}
	return env
}
