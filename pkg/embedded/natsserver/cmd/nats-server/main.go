// Command nats-server is the NATS server of the version that this repository is
// tested with. It takes the flags of the official one.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	flags := flag.NewFlagSet("nats-server", flag.ExitOnError)
	options, err := server.ConfigureOptions(flags, os.Args[1:], server.PrintServerAndExit, flags.Usage, server.PrintTLSHelpAndDie)
	if err == nil {
		err = serve(options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nats-server:", err)
		os.Exit(1)
	}
}

func serve(options *server.Options) error {
	options.NoSigs = true // in a container it is process 1, which gets no default handlers
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	s.Start()
	for sig := range stop {
		if sig != syscall.SIGHUP {
			break
		}
		if err := s.Reload(); err != nil { // certificates among it
			fmt.Fprintln(os.Stderr, "nats-server: reload:", err)
		}
	}
	s.Shutdown() // hands leadership over first
	s.WaitForShutdown()
	return nil
}
