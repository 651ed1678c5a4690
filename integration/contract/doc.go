// Package contract holds the running system to the wire contract, over HTTP and
// as a client sees it: one script per promise, run against the services on
// memory and against the embedded system with its real log and engine.
//
// Tests beside the code hold parts to what they are for; only here does a row of
// the acceptance table pass through all of them.
package contract
