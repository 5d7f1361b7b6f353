package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every promise has tests, and those that it names are there.
func TestPromisesHaveTests(t *testing.T) {
	data, err := os.ReadFile("PROMISES.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range declared.FindAllSubmatch(source, -1) {
			there[string(found[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)(/[^`]*)?`")
	for _, name := range named.FindAllStringSubmatch(string(data), -1) {
		if !there[name[1]] {
			t.Errorf("there is no test %s", name[1])
		}
	}
	rows := 0
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(line, " | ")
		number, err := strconv.Atoi(strings.TrimPrefix(cells[0], "| "))
		if err != nil {
			continue
		}
		if rows++; number != rows || len(cells) != 6 || !named.MatchString(cells[4]) {
			t.Errorf("%d cells, or no test, or out of order: %s", len(cells), line)
		}
	}
	if rows != 28 {
		t.Errorf("%d promises", rows)
	}
}
