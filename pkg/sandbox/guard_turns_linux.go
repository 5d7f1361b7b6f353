package sandbox

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"slices"
)

// turn is the time of a sandbox, as the workspace's file system has it. Nobody looks into everything that a sandbox can write: the inside of
// git directories, its home. What it makes there a later one may move to where it matters, and only times tell then whose it is.
type turn struct{ since, until int64 }

// Turns are kept one after the other, each of two numbers. When there are many, the older half counts as one long turn.
const (
	turnSize = 16
	maxTurns = 4096
)

// noteTurn keeps when this turn was.
func (l *look) noteTurn(until int64) error {
	file := l.file(turnsFile)
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(turn{l.since, until}.encode())
	info, again := f.Stat()
	if err = errors.Join(err, again, f.Close()); err == nil && info.Size() > maxTurns*turnSize && l.mayKeep {
		err = l.shortenTurns()
	}
	return err
}

func (t turn) encode() []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(t.since)), uint64(t.until))
}

func readTurns(file string) (turns []turn, err error) {
	data, err := os.ReadFile(file)
	for ; len(data) >= turnSize; data = data[turnSize:] {
		turns = append(turns, turn{int64(binary.LittleEndian.Uint64(data)), int64(binary.LittleEndian.Uint64(data[8:]))})
	}
	return turns, err
}

func (l *look) shortenTurns() error {
	turns, err := readTurns(l.file(turnsFile))
	if err != nil {
		return err
	}
	half := len(turns) / 2
	long := turns[0]
	for _, t := range turns[:half] {
		long = turn{min(long.since, t.since), max(long.until, t.until)}
	}
	var data []byte
	for _, t := range append([]turn{long}, turns[half:]...) {
		data = append(data, t.encode()...)
	}
	return l.replace(turnsFile, data)
}

// byEarlierTurn tells whether a change is of the time of a turn before this one.
func (l *look) byEarlierTurn(when int64) bool {
	if l.turns == nil {
		file := l.file(turnsFile)
		if file == "" {
			return false
		}
		var err error
		if l.turns, err = readTurns(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.errs = append(l.errs, err)
		}
		l.turns = append(l.turns, turn{1, 0}) // no time at all: it was asked
	}
	return slices.ContainsFunc(l.turns, func(t turn) bool { return when >= t.since && when <= t.until })
}
