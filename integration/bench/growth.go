package bench

import (
	"fmt"
	"math"
	"strings"
)

// printGrowth shows how the cost of a question grows with the events there are,
// where the same questions were asked on several sizes: the exponent e of
// cost ~ events^e between the smallest and the largest. 0: it does not grow; 1: it
// grows as the events do.
func (r *Report) printGrowth(b *strings.Builder) {
	var sizes []*Reads
	for i := range r.Reads {
		if of := &r.Reads[i]; of.Products == r.Reads[0].Products && of.Environments == r.Reads[0].Environments && of.Events > 0 {
			sizes = append(sizes, of)
		}
	}
	if len(sizes) < 2 || sizes[0].Events >= sizes[len(sizes)-1].Events {
		return
	}
	b.WriteString("\nHow it grows: p50 in ms and rows read at each size, and the exponent from the smallest to the largest\n")
	fmt.Fprintf(b, "  %-12s %-40s", "account", "question")
	for _, s := range sizes {
		fmt.Fprintf(b, " %10d", s.Events)
	}
	b.WriteString("   exponent │")
	for _, s := range sizes {
		fmt.Fprintf(b, " %10d", s.Events)
	}
	b.WriteString("   exponent\n")
	growing := func(name, account string, of func(*Reads) (first, second float64), format string) {
		var first, second []float64
		for _, s := range sizes {
			f, n := of(s)
			first, second = append(first, f), append(second, n)
		}
		fmt.Fprintf(b, "  %-12s %-40s", account, name)
		for i, costs := range [][]float64{first, second} {
			if i == 1 {
				b.WriteString(" │")
			}
			for _, cost := range costs {
				fmt.Fprintf(b, format, cost)
			}
			fmt.Fprintf(b, "   %8.2f", exponent(sizes, costs))
		}
		b.WriteString("\n")
	}
	for _, q := range sizes[0].Questions {
		growing(q.Name, q.Account, func(s *Reads) (float64, float64) {
			for _, other := range s.Questions {
				if other.Name == q.Name && other.Account == q.Account {
					return other.P50, other.RowsRead
				}
			}
			return math.NaN(), math.NaN()
		}, " %10.1f")
	}
	growing("megabytes on disk, and held by the engine", "", func(s *Reads) (float64, float64) { return float64(s.Bytes) / 1e6, s.EngineMB }, " %10.0f")
	growing("rows in the tables, and their parts", "", func(s *Reads) (float64, float64) { return float64(s.Rows), float64(s.Parts) }, " %10.0f")
}

// exponent is e of cost ~ events^e, from the first to the last of sizes.
func exponent(sizes []*Reads, costs []float64) float64 {
	last := len(sizes) - 1
	return math.Log(costs[last]/costs[0]) / math.Log(float64(sizes[last].Events)/float64(sizes[0].Events))
}
