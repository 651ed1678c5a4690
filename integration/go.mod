module github.com/shipledger/shipledger/integration

go 1.26.0

require (
	github.com/shipledger/shipledger/pkg v0.0.0
	github.com/shipledger/shipledger/schemas v0.0.0
	github.com/shipledger/shipledger/services v0.0.0
)

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/nats-io/nats.go v1.55.0 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/oklog/ulid/v2 v2.1.2 // indirect
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	pgregory.net/rapid v1.3.0 // indirect
)

replace (
	github.com/shipledger/shipledger/pkg => ../pkg
	github.com/shipledger/shipledger/schemas => ../schemas
	github.com/shipledger/shipledger/services => ../services
)
