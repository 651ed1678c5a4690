package closedruns

// Memory gives the bytes that the files take in memory.
func (p *Parts) Memory() int {
	n := 0
	for _, f := range p.files {
		n += 8*len(f.firsts) + len(f.filter.Bytes())
	}
	return n
}

// Reads gives how many blocks were read.
func (p *Parts) Reads() (n int) {
	for _, f := range p.files {
		n += f.reads
	}
	return n
}
