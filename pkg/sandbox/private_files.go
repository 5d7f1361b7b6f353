package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeFiles makes the files of a policy in a directory that stands for PrivateDir.
func writeFiles(dir string, files []File) error {
	for _, f := range files {
		rel, err := filepath.Rel(PrivateDir, f.Path)
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("%s: not below %s", f.Path, PrivateDir)
		}
		path := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Data, 0o400); err != nil {
			return err
		}
	}
	return nil
}

// replaced are texts in which the paths of other tiers became those of this one.
func replaced(texts []string, paths *strings.Replacer) []string {
	out := make([]string, 0, len(texts))
	for _, text := range texts {
		out = append(out, paths.Replace(text))
	}
	return out
}
