package config

import (
	"maps"
	"runtime"
	"slices"
	"strings"
)

// Env is a process environment. It is handed in, never read from the process,
// so that every layer can be tested.
type Env map[string]string

// ParseEnv makes an Env of "NAME=value" lines. The first of two lines with the
// same name counts, as it does for os.Getenv.
func ParseEnv(environ []string) Env {
	env := make(Env, len(environ))
	for _, line := range environ {
		// On Windows names like "=C:" exist: the first byte is never the separator.
		i := strings.Index(line[min(1, len(line)):], "=")
		if i < 0 {
			continue
		}
		name, value := line[:i+1], line[i+2:]
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		if _, seen := env[name]; !seen {
			env[name] = value
		}
	}
	return env
}

// Get is the value of name, "" when it is not set.
func (e Env) Get(name string) string { return e[name] }

// List is the environment as "NAME=value" lines, sorted, for a process.
func (e Env) List() []string {
	list := make([]string, 0, len(e))
	for _, name := range slices.Sorted(maps.Keys(e)) {
		list = append(list, name+"="+e[name])
	}
	return list
}
