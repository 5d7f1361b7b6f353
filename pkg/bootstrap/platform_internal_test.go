package bootstrap

import (
	"errors"
	"testing"
)

// TestRosetta asks for the build of the machine, and not for the one of this program.
func TestRosetta(t *testing.T) {
	tests := map[string]struct {
		goos, goarch string
		answer       uint32
		err          error
		want         Platform
	}{
		"translated":               {goos: "darwin", goarch: "amd64", answer: 1, want: DarwinARM64},
		"Intel":                    {goos: "darwin", goarch: "amd64", answer: 0, want: DarwinX64},
		"Intel, an old macOS":      {goos: "darwin", goarch: "amd64", answer: 1, err: errors.New("no such name"), want: DarwinX64},
		"Apple":                    {goos: "darwin", goarch: "arm64", answer: 0, want: DarwinARM64},
		"other systems do not ask": {goos: "windows", goarch: "amd64", answer: 1, want: WindowsX64},
	}
	for name, test := range tests {
		arch := processor(test.goos, test.goarch, func(name string) (uint32, error) {
			if name != "sysctl.proc_translated" {
				t.Errorf("asked for %s", name)
			}
			return test.answer, test.err
		})
		if got, err := DetectPlatform(test.goos, arch, t.TempDir()); got != test.want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}
