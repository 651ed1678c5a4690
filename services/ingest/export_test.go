package ingest

// InParallel is what reads a batch.
var InParallel = inParallel

// Queued tells how many requests stand in the queue, those aside that are being
// decided.
func (c *Committer) Queued() int { return len(c.queue) }
