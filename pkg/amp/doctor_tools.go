package amp

import (
	"context"
	"os"
	"path/filepath"
	"runtime"

	"github.com/sesame-cli/sesame/pkg/config/check"
)

// CheckTools is a check for each program of the host that Amp's tools want. path is the value of PATH.
func CheckTools(path string) []check.Check {
	var checks []check.Check
	for _, tool := range []struct{ name, without, install string }{
		{"git", "Amp cannot see what changed, nor commit", "install git, such as by `sudo apt-get install git`"},
		{"rg", "Amp's search of files works only if sesame can fetch it", "install ripgrep, such as by `sudo apt-get install ripgrep`"},
	} {
		checks = append(checks, check.Check{
			ID: "tools." + tool.name, Group: "tools of this machine", Title: tool.name,
			Run: func(context.Context) check.Result {
				if found := lookIn(path, tool.name); found != "" {
					return check.Passed("%s", found)
				}
				return check.Warned("not in PATH: without it %s", tool.without).Hint(tool.install)
			},
		})
	}
	return checks
}

// lookIn finds a program in the directories of PATH, which is not this process's in tests.
func lookIn(path, name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode().Perm()&0o111 != 0) {
			return file
		}
	}
	return ""
}
