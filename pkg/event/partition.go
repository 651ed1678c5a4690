package event

import "hash/crc32"

// PartitionOf gives the partition of a log of n that an account lives in: CRC-32
// (IEEE) of its name, modulo n. It never changes, as the number of a log's
// partitions does not: everything about an account stands in one stream, in one
// order. n must be positive.
func PartitionOf(account string, n int) int {
	if n == 1 {
		return 0
	}
	return int(crc32.ChecksumIEEE([]byte(account)) % uint32(n)) //nolint:gosec // below n
}
