package compose

// What tests of the memory limit look at.
var (
	Bounded  = bounded
	LimitFor = limitFor
)
