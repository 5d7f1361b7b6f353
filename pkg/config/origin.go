package config

import "fmt"

// Layer is where a setting can come from. A later one wins.
type Layer int

// The layers, in their order.
const (
	LayerDefault Layer = iota
	LayerSystem
	LayerUser
	LayerWorkspace
	LayerEnvironment
	LayerFlag
)

// Origin is where a value comes from.
type Origin struct {
	Layer Layer
	Name  string // the file, the variable or the flag
	Line  int    // of the file; 0 elsewhere
}

// String is the origin as errors and doctor show it: "default",
// "/home/u/.config/sesame/config.yaml:3", "SESAME_MODE", "--mode".
func (o Origin) String() string {
	switch {
	case o.Layer == LayerDefault:
		return "default"
	case o.Line > 0:
		return fmt.Sprintf("%s:%d", o.Name, o.Line)
	default:
		return o.Name
	}
}

// Of names a key as set there, for the beginning of an error: "FILE:3: amp.url",
// "SESAME_AMP_URL", "--amp-path".
func (o Origin) Of(key string) string {
	if o.Line > 0 {
		return o.String() + ": " + key
	}
	return o.String()
}
