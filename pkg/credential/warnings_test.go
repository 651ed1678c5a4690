package credential_test

import (
	"slices"
	"testing"
	"time"

	"github.com/shipledger/shipledger/pkg/credential"
)

// warned gives the warnings of a credential that is looked at on these days
// after its creation.
func warned(r credential.Record, looks ...float64) (days []int) {
	for _, look := range looks {
		for {
			c, due := r.Warn(r.CreatedAt.Add(time.Duration(look * float64(24*time.Hour))))
			if !due {
				break
			}
			r = c.Record
			days = append(days, r.DaysLeft)
		}
	}
	return days
}

// Rows: VF-17, VF-18, VF-23
func TestEachWarningIsDueOnceAndAlsoLate(t *testing.T) {
	for name, c := range map[string]struct {
		life   float64
		change func(*credential.Record)
		looks  []float64
		want   []int
	}{
		"each on its day":                      {life: 90, looks: []float64{1, 75.9, 76, 76.1, 86.9, 87, 87.1, 89}, want: []int{14, 3}},
		"the day was missed":                   {life: 90, looks: []float64{70, 80, 89}, want: []int{14, 3}},
		"both days were missed":                {life: 90, looks: []float64{89.9}, want: []int{14, 3}},
		"too late":                             {life: 90, looks: []float64{90, 91}},
		"made for less than 14 days":           {life: 10, looks: []float64{0, 1, 6.9, 7, 8}, want: []int{3}},
		"made for less than 3 days":            {life: 2, looks: []float64{0, 1, 1.9}},
		"suspended":                            {life: 90, change: func(r *credential.Record) { r.Status = credential.Suspended }, looks: []float64{80, 88}, want: []int{14, 3}},
		"revoked":                              {life: 90, change: func(r *credential.Record) { r.Status = credential.Revoked }, looks: []float64{80, 88}},
		"without an end":                       {life: 90, change: func(r *credential.Record) { r.ExpiresAt = time.Time{} }, looks: []float64{80, 88}},
		"rotated with a grace of less than 14": {life: 90, change: func(r *credential.Record) { r.RotatedAt = r.CreatedAt.Add(83 * 24 * time.Hour) }, looks: []float64{83, 86, 87}, want: []int{3}},
	} {
		r := credential.Record{Status: credential.Active, CreatedAt: noon, ExpiresAt: noon.Add(time.Duration(c.life * float64(24*time.Hour)))}
		if c.change != nil {
			c.change(&r)
		}
		if got := warned(r, c.looks...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	r := credential.Record{Status: credential.Active, CreatedAt: noon, ExpiresAt: noon.AddDate(0, 0, 30)}
	for days, soon := range map[int]bool{15: false, 16: true, 29: true, 30: false} {
		if got := r.ExpiringSoon(noon.AddDate(0, 0, days)); got != soon {
			t.Errorf("expiring soon after %d days: %v", days, got)
		}
	}
}
