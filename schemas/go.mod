module github.com/shipledger/shipledger/schemas

go 1.26.0
