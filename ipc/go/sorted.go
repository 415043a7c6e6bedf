package peat

import (
	"cmp"
	"maps"
	"slices"
)

// sorted returns a map's values in the order of its keys.
func sorted[K cmp.Ordered, V any](values map[K]V) []V {
	ordered := make([]V, 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		ordered = append(ordered, values[key])
	}
	return ordered
}
