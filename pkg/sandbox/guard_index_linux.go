package sandbox

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sesame-cli/sesame/pkg/config/inode"
)

// gitIndex is the index of a guarded repository, by which git finds the repositories inside of its worktree and asks them.
type gitIndex struct {
	File  string   // the index
	Dir   string   // the top of the worktree
	ID    fileID   // when the sandbox began
	Links []string // what it or .gitmodules named then, below Dir
	Hash  int      // bytes of an object's name
}

// cachedIndexSize in bytes is from where on what an index named is kept until it changes: reading it all takes longer than asking.
const cachedIndexSize = 256 << 10

// indexSettles is how old a change must be for the next one to show in the file's times, however coarse they are.
const indexSettles = 100 * time.Millisecond

// maxRepositories bounds what an index can make of a start.
const maxRepositories = 1000

// readIndex reads what the index of the worktree at dir names; config is that of its repository.
func (t *tree) readIndex(dir, gitDir, config string) gitIndex {
	x := gitIndex{File: filepath.Join(gitDir, "index"), Dir: dir, Hash: hashSize(config)}
	if x.ID = identify(x.File); x.ID == (fileID{}) {
		return x
	}
	if x.ID.Size >= cachedIndexSize {
		if t.knownIndexes == nil {
			t.knownIndexes = knownIndexes(t.policy.HomeState)
		}
		for _, known := range t.knownIndexes {
			if known.File == x.File && known.ID == x.ID && known.Hash == x.Hash {
				x.Links = known.Links
				return x
			}
		}
		t.sweep.newIndexes = true
	}
	named, _ := x.read() // what git cannot read, it does not follow
	x.Links = named.links
	return x
}

// indexesFile keeps, below Policy.HomeState, what large indexes named.
const indexesFile = "indexes"

func knownIndexes(state string) (known []gitIndex) {
	if data, err := os.ReadFile(filepath.Join(state, indexesFile)); state != "" && err == nil {
		_ = json.Unmarshal(data, &known) // then they are read again
	}
	return known
}

// keepIndexes keeps what large indexes name, but for those so young that a change might not show in their times.
func keepIndexes(state string, indexes []gitIndex) {
	large := slices.DeleteFunc(slices.Clone(indexes), func(x gitIndex) bool {
		return x.ID.Size < cachedIndexSize || time.Since(time.Unix(0, x.ID.Changed)) < indexSettles
	})
	if data, err := json.Marshal(large); err == nil {
		_ = os.WriteFile(filepath.Join(state, indexesFile), data, 0o600) // if not, they are read again
	}
}

// fileID changes with a file's content. That of none is zero.
type fileID struct {
	Inode         uint64
	Changed, Size int64 // in nanoseconds, in bytes
}

func identify(file string) (id fileID) {
	info, err := os.Stat(file)
	if err != nil {
		return id
	}
	id.Size = info.Size()
	id.Inode, id.Changed = inode.Of(info)
	return id
}

// hashSize is that of extensions.objectFormat in a repository's configuration.
func hashSize(config string) int {
	data, err := readSmall(config)
	if err != nil {
		return 20
	}
	for line := range strings.Lines(strings.ToLower(string(data))) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.HasSuffix(strings.TrimSpace(key), "objectformat") && strings.Contains(value, "sha256") {
			return 32
		}
	}
	return 20
}

// named is what an index says of other repositories.
type named struct {
	links  []string // gitlinks: submodules, and repositories that were added
	sparse []string // directories that are named as a whole
	// A gitlink has its name from another file in a way that is not followed here.
	nameless bool
}

// Modes of an index's entries (gitformat-index(5)).
const (
	modeType    = 0o170000
	modeGitlink = 0o160000
	modeTree    = 0o040000
)

var errIndex = errors.New("not an index")

// read reads the index, and the one that it shares entries with.
func (x gitIndex) read() (named, error) {
	var n named
	shared, err := n.readFile(x.File, x.Hash)
	if err == nil && shared != "" {
		_, err = n.readFile(filepath.Join(filepath.Dir(x.File), "sharedindex."+shared), x.Hash)
	}
	return n, err
}

// readFile reads gitformat-index(5), versions 2 to 4.
func (n *named) readFile(file string, hash int) (shared string, err error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(errIndex, err)
	}
	r := bufio.NewReaderSize(f, 64<<10)
	head, err := r.Peek(12)
	if err != nil || string(head[:4]) != "DIRC" {
		return "", errors.Join(errIndex, err)
	}
	version, count := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	if version < 2 || version > 4 {
		return "", errIndex
	}
	_, _ = r.Discard(12)
	var path []byte
	for range count {
		head, err := r.Peek(40 + hash + 4)
		if err != nil && len(head) < 40+hash+2 {
			return "", err
		}
		mode, flags := binary.BigEndian.Uint32(head[24:]), binary.BigEndian.Uint16(head[40+hash:])
		size := 40 + hash + 2
		if version >= 3 && flags&0x4000 != 0 {
			size += 2
		}
		_, _ = r.Discard(size)
		if version == 4 {
			strip, err := readOffset(r)
			if err != nil || strip > uint64(len(path)) {
				return "", errors.Join(errIndex, err)
			}
			path = path[:uint64(len(path))-strip]
		} else {
			path = path[:0]
		}
		before := len(path)
		for {
			part, err := r.ReadSlice(0)
			path = append(path, part...)
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return "", err
			}
		}
		path = path[:len(path)-1]
		if version < 4 { // the NUL was one of the one to eight that fill up to a multiple of eight
			_, _ = r.Discard(7 - (size+len(path)-before)%8)
		}
		switch mode & modeType {
		case modeGitlink:
			n.nameless = n.nameless || len(path) == 0
			n.links = append(n.links, string(path))
		case modeTree:
			n.sparse = append(n.sparse, string(path))
		}
	}
	// Extensions follow, each with a name and its length, and then a checksum.
	for {
		head, err := r.Peek(8 + hash)
		if err != nil {
			return "", nil //nolint:nilerr // the checksum is all that is left
		}
		if bytes.Equal(head[:4], []byte("link")) {
			return hex.EncodeToString(head[8 : 8+hash]), nil
		}
		if _, err := io.CopyN(io.Discard, r, 8+int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return "", nil //nolint:nilerr // no extension, but something git will not follow either
		}
	}
}

// readOffset reads git's number of variable length.
func readOffset(r *bufio.Reader) (uint64, error) {
	var n uint64
	for i := range 9 {
		c, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if i > 0 {
			n++
		}
		if n = n<<7 | uint64(c&0x7f); c&0x80 == 0 {
			return n, nil
		}
	}
	return 0, errIndex
}

// at is where git looks for what an index names; it does not mind what it would not have written itself.
func (x gitIndex) at(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(x.Dir, name)
}

// strangers are the paths below top that make git ask a repository which it did not ask before: those that an index names
// anew.
func (x gitIndex) strangers(top string) (paths []string) {
	if id := identify(x.File); id == (fileID{}) || id == x.ID {
		return nil
	}
	n, _ := x.read()
	if n.nameless {
		return []string{x.File} // git can make it anew from what was committed
	}
	for _, link := range n.links {
		if dir := x.at(link); dir != x.Dir && within(dir, top) && !slices.Contains(x.Links, link) {
			paths = append(paths, filepath.Join(dir, ".git"))
		}
	}
	for _, dir := range n.sparse { // they are not there, as a rule
		if dir = x.at(dir); dir == x.Dir || !within(dir, top) {
			continue
		}
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Base(path) == ".git" {
				paths = append(paths, path)
				return fs.SkipDir
			}
			return nil
		})
	}
	return paths
}
