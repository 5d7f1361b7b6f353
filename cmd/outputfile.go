package cmd

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/sesame-cli/sesame/pkg/config/fault"
)

// outputFile is the file of -O. Where it goes is settled before the turn: links that the turn makes, in a workspace
// that it may write, must not send the answer, whose text it chooses, to some other file of the user's.
type outputFile struct {
	dir  *os.Root // that the file is in, or nil
	name string
	open *os.File // a device or pipe, which is written as it is; else nil
}

// openOutput settles where the answer goes; nil for no file.
func openOutput(path string) (*outputFile, error) {
	if path == "" {
		return nil, nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return nil, fault.New(fault.Usage, "--output-file: %s is a directory", path)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, fault.New(fault.Usage, "--output-file: %w", err)
		}
		return &outputFile{open: f}, nil
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, fault.New(fault.Usage, "--output-file: %w", err)
	}
	return &outputFile{dir: dir, name: filepath.Base(path)}, nil
}

// write puts the text in the place of what was there, at once and whole.
func (o *outputFile) write(text string) error {
	if o.open != nil {
		_, err := io.WriteString(o.open, text)
		return err
	}
	temp := "." + o.name + "." + rand.Text()[:8]
	f, err := o.dir.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = o.dir.Rename(temp, o.name)
	}
	if err != nil {
		return errors.Join(err, o.dir.Remove(temp))
	}
	return nil
}

func (o *outputFile) close() {
	if o == nil {
		return
	}
	if o.open != nil {
		o.open.Close()
		return
	}
	o.dir.Close()
}
