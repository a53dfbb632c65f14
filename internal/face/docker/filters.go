package docker

import (
	"encoding/json"
	"slices"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// maxFilters bounds the filters parameter.
const maxFilters = 64 << 10

func (c *call) filters() (api.Filters, error) { return parseFilters(c.arg("filters")) }

// parseFilters reads both forms in use: {"label":["a"]} and {"label":{"a":true}}. Values are sorted; false ones are dropped.
func parseFilters(s string) (api.Filters, error) {
	if s == "" {
		return nil, nil
	}
	if len(s) > maxFilters {
		return nil, errdef.New(errdef.InvalidArgument, "invalid filter: longer than %d bytes", maxFilters)
	}
	if err := checkDepth([]byte(s), 3); err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &raw); err != nil {
		return nil, errdef.New(errdef.InvalidArgument, "invalid filter: %w", err)
	}
	f := make(api.Filters, len(raw))
	for key, v := range raw {
		var set map[string]bool
		var values []string
		if json.Unmarshal(v, &set) == nil {
			for s, on := range set {
				if on {
					values = append(values, s)
				}
			}
		} else if err := json.Unmarshal(v, &values); err != nil {
			return nil, errdef.New(errdef.InvalidArgument, "invalid filter %q: want a list of strings", key)
		}
		slices.Sort(values)
		if values = slices.Compact(values); len(values) > 0 {
			f[key] = values
		}
	}
	return f, nil
}
