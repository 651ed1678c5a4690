// Package leaks runs gitleaks, as others run it, with the rule file that
// Shipledger publishes. It exists apart because the tool has to be built first.
package leaks
