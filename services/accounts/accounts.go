// Package accounts owns keys, tokens, users and accounts: whatever decides who
// may do what. Its decisions are events in the stream of credentials, and every
// process folds that stream into a keyring of its own.
//
// So far it makes the first of them: see Bootstrap.
package accounts
