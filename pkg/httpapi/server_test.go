package httpapi_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

func TestAConnectionThatSaidNothingDoesNotHoldUpTheStop(t *testing.T) {
	address := make(chan net.Addr, 1)
	server := &httpapi.Server{
		// Less than the 5 s after which http.Server itself gives such a connection up.
		Addr: "127.0.0.1:0", Grace: 4 * time.Second, Listening: func(a net.Addr) { address <- a },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }),
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, func() {}) }()
	at := (<-address).String()
	spare, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer spare.Close()
	response, err := http.Get("http://" + at) // the server has taken the spare one by the time it answers this
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
