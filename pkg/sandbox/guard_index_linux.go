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

	"github.com/sesame-cli/sesame/pkg/config/fault"
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
			t.knownIndexes = knownIndexes(t.policy.guardDir())
		}
		for _, known := range t.knownIndexes {
			if known.File == x.File && known.ID == x.ID && known.Hash == x.Hash {
				x.Links = known.Links
				return x
			}
		}
		t.sweep.newIndexes = true
	}
	if t.indexes == nil {
		t.indexes = newIndexReader()
	}
	named, err := t.indexes.read(x) // what git cannot read, it does not follow
	if errors.Is(err, errEndless) {
		t.unknown = fault.New(fault.Usage, "what %s names is to be guarded and cannot all be read: %w", x.File, err).
			Hint("git did not make it like this: if you remove it, git reset makes it anew")
	}
	x.Links = named.links
	return x
}

// indexReader reads indexes, and no more than a workspace has in all: a sandbox can make an index of any size in a file that takes no
// room on the disk, and have many names for it.
type indexReader struct {
	bytes, names int64           // that may still be read
	entries      int             // and of directories
	walked       map[string]bool // directories that were looked through for repositories
}

func newIndexReader() *indexReader {
	return &indexReader{bytes: 4 << 30, names: 200_000, entries: 200_000, walked: map[string]bool{}}
}

// indexesFile keeps, in the guard's directory of a workspace, what large indexes named.
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
	modeFile    = 0o100000
	modeLink    = 0o120000
	modeGitlink = 0o160000
	modeTree    = 0o040000
)

var (
	errIndex = errors.New("not an index")
	// errEndless is for what git may read to its end, did not write, and is not read here.
	errEndless = errors.New("an index without end")
)

// Bounds of an index, beyond what git makes.
const (
	maxIndexedPath     = 64 << 10
	maxIndexExtensions = 100
)

// read reads an index, and the one that it shares entries with.
func (ir *indexReader) read(x gitIndex) (named, error) {
	var n named
	shared, err := ir.readFile(&n, x.File, x.Hash)
	if err == nil && shared != "" {
		_, err = ir.readFile(&n, filepath.Join(filepath.Dir(x.File), "sharedindex."+shared), x.Hash)
	}
	return n, err
}

// readFile reads gitformat-index(5), versions 2 to 4.
func (ir *indexReader) readFile(n *named, file string, hash int) (shared string, err error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(errIndex, err)
	}
	if ir.bytes -= info.Size(); ir.bytes < 0 {
		return "", errEndless
	}
	r := bufio.NewReaderSize(io.LimitReader(f, info.Size()), 64<<10)
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
			if len(path) > maxIndexedPath {
				return "", errEndless
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
		case modeFile, modeLink:
			continue
		case modeGitlink:
			n.nameless = n.nameless || len(path) == 0
			n.links = append(n.links, string(path))
		case modeTree:
			n.sparse = append(n.sparse, string(path))
		default: // as where nothing was written
			return "", errEndless
		}
		if ir.names--; ir.names < 0 {
			return "", errEndless
		}
	}
	// Extensions follow, each with a name and its length, and then a checksum.
	for range maxIndexExtensions {
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
	return "", errEndless
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
func (ir *indexReader) strangers(x gitIndex, top string) (paths []string) {
	if id := identify(x.File); id == (fileID{}) || id == x.ID {
		return nil
	}
	n, err := ir.read(x)
	tooMany := len(n.links) > maxRepositories && len(x.Links) <= maxRepositories // for the next start
	if n.nameless || tooMany || errors.Is(err, errEndless) || errors.Is(err, fs.ErrPermission) {
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
		if _, err := os.Lstat(dir); missing(err) {
			continue
		} else if !isReal(dir) { // over a link, which may lead out of the workspace
			return append(paths, x.File)
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if ir.entries--; ir.entries < 0 {
				return errEndless
			}
			switch {
			case err != nil && !missing(err):
				return err
			case err != nil:
				return nil
			case filepath.Base(path) == ".git":
				paths = append(paths, path)
				return fs.SkipDir
			case d.IsDir() && ir.walked[path]:
				return fs.SkipDir
			case d.IsDir():
				ir.walked[path] = true
			}
			return nil
		})
		if err != nil { // it is not known what is there
			return append(paths, x.File)
		}
	}
	return paths
}
