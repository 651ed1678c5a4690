// Package integration holds what is true of the whole system and of no part
// alone: the dependency rule, the acceptance table, the benchmark, and tests
// that run the real binary.
//
// It may import every other package and no package may import it, so that its
// tools never reach the product's module graph.
package integration
