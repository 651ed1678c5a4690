//go:build !race

package credential_test

const raceEnabled = false
