//go:build race

package credential_test

// raceEnabled: the race detector makes pools drop what they hold at random.
const raceEnabled = true
