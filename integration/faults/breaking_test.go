//go:build linux

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A breakage is one way in which a world breaks, and how it is mended.
type breakage struct {
	name string
	// inject breaks the world and returns once it is broken. mend makes it whole.
	inject func(w *world, r *rand.Rand) (mend func(), err error)
	alone  bool // it is not combined with another
	// known says why it is not broken unless it is asked for by name.
	known string
}

// engineBreaksParts is what the engine did in one round of four or so, found by
// this harness: the log has every event, but reads answer 500.
const engineBreaksParts = "not run: the pinned engine may commit a part with an empty marks file when its disk fills up in a merge; the tables must then be made anew"

// errImpossible is returned where a machine does not let a fault happen.
var errImpossible = errors.New("not possible on this machine")

func breakages() []breakage {
	all := []breakage{
		{name: "server killed", inject: func(w *world, r *rand.Rand) (func(), error) {
			i := r.IntN(servers)
			w.servers[i].kill()
			return func() { w.restart(i) }, nil
		}},
		{name: "both servers killed", inject: func(w *world, _ *rand.Rand) (func(), error) {
			for _, s := range w.servers {
				s.kill()
			}
			return func() {
				for i := range w.servers {
					w.restart(i)
				}
			}, nil
		}},
		{name: "server stopped", inject: func(w *world, r *rand.Rand) (func(), error) {
			return stopped(w.servers[r.IntN(servers)].cmd.Process.Pid)
		}},
		{name: "NATS killed", inject: func(w *world, _ *rand.Rand) (func(), error) {
			w.nats.kill()
			return func() { w.nats = w.nats.again(w.t) }, nil
		}},
		{name: "NATS stopped", inject: func(w *world, _ *rand.Rand) (func(), error) { return stopped(w.nats.cmd.Process.Pid) }},
		{name: "ClickHouse killed", inject: func(w *world, _ *rand.Rand) (func(), error) {
			return func() {}, syscall.Kill(w.engine(), syscall.SIGKILL) // it is started again by itself
		}},
		{name: "ClickHouse stopped", inject: func(w *world, _ *rand.Rand) (func(), error) { return stopped(w.engine()) }},
		{name: "disk of the log full", inject: func(w *world, _ *rand.Rand) (func(), error) {
			empty, err := full(w, w.natsDisk)
			// A NATS that somebody else runs remembers that a write failed until it is started again; ours is, by the product.
			return func() {
				empty()
				w.nats.kill()
				w.nats = w.nats.again(w.t)
			}, err
		}},
		{name: "disk of ClickHouse full", inject: func(w *world, _ *rand.Rand) (func(), error) { return full(w, w.chDisk) }, alone: true, known: engineBreaksParts},
		{name: "log at its limit", inject: atLimit},
		{name: "disk of the log slow", inject: slowDisk, alone: true},
		{name: "clock jumps", inject: func(w *world, r *rand.Rand) (func(), error) {
			w.offset.Store(int64(r.IntN(1200)-600) * int64(time.Second))
			return func() { w.offset.Store(int64(r.IntN(1200)-600) * int64(time.Second)) }, nil
		}},
		{name: "ClickHouse has too many parts", inject: altered("parts_to_throw_insert=1, parts_to_delay_insert=1", "parts_to_throw_insert, parts_to_delay_insert"), alone: true},
		{name: "ClickHouse read-only", inject: altered("table_readonly=1", "table_readonly"), alone: true},
		{name: "rebuild, and something killed in it", inject: rebuilt, alone: true},
	}
	for _, way := range []struct {
		name string
		of   func(*world, *rand.Rand) *cable
	}{
		{"clients and server", func(w *world, r *rand.Rand) *cable { return w.toServer[r.IntN(servers)] }},
		{"server and NATS", func(w *world, r *rand.Rand) *cable { return w.toNATS[r.IntN(servers)] }},
		{"server and ClickHouse", func(w *world, _ *rand.Rand) *cable { return w.toClickHouse }},
	} {
		spoiled := func(toxic func(*rand.Rand) (string, string)) func(*world, *rand.Rand) (func(), error) {
			return func(w *world, r *rand.Rand) (func(), error) {
				direction := []string{"upstream", "downstream"}[r.IntN(2)]
				name, attributes := toxic(r)
				return way.of(w, r).spoil(name, direction, attributes), nil
			}
		}
		all = append(
			all,
			breakage{name: "cut between " + way.name, inject: spoiled(func(*rand.Rand) (string, string) { return "reset_peer", `{"timeout":0}` })},
			breakage{name: "latency between " + way.name, inject: spoiled(func(r *rand.Rand) (string, string) {
				return "latency", fmt.Sprintf(`{"latency":%d,"jitter":%[1]d}`, 50+r.IntN(400))
			})},
			// Nothing passes, and nobody is told; the connection ends when that is over.
			breakage{name: "half-open between " + way.name, inject: spoiled(func(*rand.Rand) (string, string) { return "timeout", `{"timeout":0}` })},
		)
	}
	singles := all
	return append(all, breakage{name: "two at once", alone: true, inject: func(w *world, r *rand.Rand) (func(), error) {
		var mends []func()
		mend := func() {
			for i := len(mends); i > 0; i-- {
				mends[i-1]()
			}
		}
		// Cables last to be mended: toxiproxy waits for whom it writes to.
		for _, i := range twoOf(singles, r) {
			m, err := singles[i].inject(w, r)
			if err != nil {
				mend()
				return nil, err
			}
			mends = append(mends, m)
		}
		return mend, nil
	}})
}

// twoOf draws a fault of a cable and one of a process or disk, in this order.
func twoOf(all []breakage, r *rand.Rand) [2]int {
	var cables, others []int
	for i, b := range all {
		switch {
		case b.alone:
		case i >= len(all)-9:
			cables = append(cables, i)
		default:
			others = append(others, i)
		}
	}
	return [2]int{cables[r.IntN(len(cables))], others[r.IntN(len(others))]}
}

func stopped(pid int) (func(), error) {
	return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }, syscall.Kill(pid, syscall.SIGSTOP)
}

func full(w *world, d *disk) (func(), error) {
	if d.err != nil {
		return nil, fmt.Errorf("%w: a small file system cannot be mounted: %w", errImpossible, d.err)
	}
	return func() {
		if err := d.empty(); err != nil {
			w.t.Error(err)
		}
	}, d.fill()
}

// atLimit lets the stream grow no more.
func atLimit(w *world, _ *rand.Rand) (func(), error) {
	limit := func(bytes func(jetstream.StreamInfo) int64) error {
		return await(func() error {
			ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Second)
			defer cancel()
			s, err := w.js.Stream(ctx, "TRACK_00")
			if err != nil {
				return err
			}
			cfg := s.CachedInfo().Config
			cfg.MaxBytes = bytes(*s.CachedInfo())
			_, err = w.js.UpdateStream(ctx, cfg)
			return err
		})
	}
	return func() {
		if err := limit(func(jetstream.StreamInfo) int64 { return -1 }); err != nil {
			w.t.Error(err)
		}
	}, limit(func(s jetstream.StreamInfo) int64 { return int64(s.State.Bytes) + 1 })
}

// slowDisk delays every write of NATS to its disk. A file system that is slow by
// itself needs a device of its own.
func slowDisk(w *world, r *rand.Rand) (func(), error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, fmt.Errorf("%w: strace is not installed", errImpossible)
	}
	pid := w.nats.cmd.Process.Pid
	tracer, out := spawn(w.t, exec.Command(strace, "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_enter=%d", 50_000+r.IntN(450_000)), "-p", fmt.Sprint(pid)))
	attached := await(func() error {
		select {
		case <-tracer.exited:
			return nil
		default:
		}
		if !tracedThreads(pid) {
			return errors.New("it has not attached")
		}
		return nil
	})
	select {
	case <-tracer.exited:
		attached = fmt.Errorf("%w: strace may not attach: %s", errImpossible, tracer.errors)
	default:
	}
	return func() {
		_ = tracer.cmd.Process.Signal(os.Interrupt) // detaches
		<-tracer.exited
		out.Close()
	}, attached
}

// altered changes a setting of every table, as an operator might.
func altered(set, reset string) func(*world, *rand.Rand) (func(), error) {
	return func(w *world, _ *rand.Rand) (func(), error) {
		each := func(statement string) error {
			ctx := context.WithoutCancel(w.t.Context())
			rows, err := w.tables.Query(ctx, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'")
			if err != nil {
				return err
			}
			defer rows.Close()
			var names []string
			for rows.Next() {
				var name string
				if err := rows.Scan(&name); err != nil {
					return err
				}
				names = append(names, name)
			}
			for _, name := range names {
				if err := w.tables.Exec(ctx, fmt.Sprintf(statement, name)); err != nil {
					return err
				}
			}
			return rows.Err()
		}
		return func() {
			eventually(w.t, "the tables are as they were", func() error { return each("ALTER TABLE `%s` RESET SETTING " + reset) })
		}, each("ALTER TABLE `%s` MODIFY SETTING " + set)
	}
}

// rebuilt begins a rebuild of what the round has written, and kills something in
// the middle of it. It ends equal all the same.
func rebuilt(w *world, r *rand.Rand) (func(), error) {
	replays := newReplays(w.t, newTarget(w.targets()[0]), w.operator.AdminPAT)
	replays.body = fmt.Sprintf(`{"from":%q}`, w.began)
	id := replays.start()
	replays.body = "{}"
	pause(w.t.Context(), time.Duration(r.Int64N(int64(time.Second))))
	mend := func() {}
	victim := r.IntN(3)
	w.t.Logf("a rebuild, and %s killed in it", []string{"the server", "ClickHouse", "NATS"}[victim])
	switch victim {
	case 0:
		w.servers[0].kill()
		mend = func() { w.restart(0) }
	case 1:
		if err := syscall.Kill(w.engine(), syscall.SIGKILL); err != nil {
			return nil, err
		}
	case 2:
		w.nats.kill()
		mend = func() { w.nats = w.nats.again(w.t) }
	}
	w.after = func() { replays.isEqual(id) }
	return mend, nil
}
