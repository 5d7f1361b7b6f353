//go:build !darwin && !windows

package config

import (
	"fmt"
	"os"
	"runtime"
)

// keyringName asks for the session's D-Bus before the library does: without one it would
// start one, with all that belongs to it.
func keyringName(env Env) string {
	if runtime.GOOS != "linux" {
		return ""
	}
	switch env.Get("DBUS_SESSION_BUS_ADDRESS") {
	case "disabled:": // as D-Bus itself has it
		return ""
	case "", "autolaunch:":
		if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err != nil {
			return ""
		}
	}
	return "the keyring (Secret Service)"
}
