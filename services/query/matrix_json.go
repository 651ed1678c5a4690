package query

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/shipledger/shipledger/pkg/httpapi"
)

// append writes the item as marshal does, which a test holds it to. A matrix is
// thousands of cells: by reflection one takes 2.2 µs, which was a fifth of what a
// process does for it.
func (m *matrixItem) append(b []byte) []byte {
	b = appendText(append(b, `{"product_id":`...), m.ProductID)
	b = appendText(append(b, `,"product_name":`...), m.ProductName)
	b = append(b, `,"drift":`...)
	if m.Drift {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	b = append(b, `,"cells":[`...)
	for i := range m.Cells {
		if i > 0 {
			b = append(b, ',')
		}
		b = m.Cells[i].append(b)
	}
	return append(b, "]}"...)
}

func (c *matrixCell) append(b []byte) []byte {
	b = appendText(append(b, `{"environment_id":`...), c.EnvironmentID)
	b = appendText(append(b, `,"environment_name":`...), c.EnvironmentName)
	b = appendText(append(b, `,"version":`...), c.Version)
	b = appendText(append(b, `,"version_id":`...), c.VersionID)
	b = appendText(append(b, `,"deployment_id":`...), c.DeploymentID)
	b = appendMoment(append(b, `,"deployed_at":`...), c.DeployedAt)
	b = appendSome(append(b, `,"deployed_by":`...), c.DeployedBy)
	b = appendText(append(b, `,"status":`...), c.Status)
	b = appendSome(append(b, `,"scm_sha":`...), c.SCMSHA)
	b = appendSome(append(b, `,"build_number":`...), c.BuildNumber)
	b = appendSome(append(b, `,"deploy_url":`...), c.DeployURL)
	b = append(b, `,"last_attempt":`...)
	a := c.LastAttempt
	if a == nil {
		return append(b, "null}"...)
	}
	b = appendText(append(b, `{"deployment_id":`...), a.DeploymentID)
	b = appendText(append(b, `,"version":`...), a.Version)
	b = appendText(append(b, `,"status":`...), a.Status)
	b = appendMoment(append(b, `,"at":`...), a.At)
	return append(b, "}}"...)
}

func appendText(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // it replaces what is no UTF-8, and says so
	return b
}

// appendSome writes null for "".
func appendSome(b []byte, s httpapi.Text) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendText(b, string(s))
}

func appendMoment(b []byte, t *time.Time) []byte {
	if t == nil {
		return append(b, "null"...)
	}
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}
