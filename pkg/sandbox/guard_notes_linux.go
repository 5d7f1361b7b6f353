package sandbox

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Notes of the guard are lists of items with a NUL between them, which no path has in it; paths need not be text in any
// encoding. The first letter of an item says what it is.

type notes []string

func (n *notes) add(kind byte, text string) { *n = append(*n, string(kind)+text) }

func (n *notes) addNumbers(kind byte, numbers ...int64) {
	text := make([]byte, 0, 20*len(numbers))
	for i, v := range numbers {
		if i > 0 {
			text = append(text, ' ')
		}
		text = strconv.AppendInt(text, v, 10)
	}
	n.add(kind, string(text))
}

func number(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

func (n *notes) addKept(k kept) {
	n.add('K', k.Path)
	n.addNumbers('k', int64(k.In), number(k.More), number(k.Foreign))
	for _, f := range k.Files {
		n.add('F', f.Path)
		n.add('t', f.Text)
		n.addNumbers('f', int64(f.ID.Inode), f.ID.Changed, f.ID.Size, int64(f.Mode), int64(f.UID), int64(f.GID), f.Modified)
	}
}

func (n notes) encode() []byte { return []byte(strings.Join(n, "\x00")) }

// numbersIn are as many numbers as there are in an item, zero if they are not there.
func numbersIn(text string, numbers ...*int64) {
	for _, v := range numbers {
		var word string
		word, text, _ = strings.Cut(text, " ")
		*v, _ = strconv.ParseInt(word, 10, 64)
	}
}

// readNotes calls other for each item that is no part of something kept, and returns what is.
func readNotes(data []byte, other func(kind byte, text string)) (list []kept) {
	for _, item := range strings.Split(string(data), "\x00") {
		if item == "" {
			continue
		}
		kind, text := item[0], item[1:]
		var k *kept
		var f *keptFile
		if len(list) > 0 {
			if k = &list[len(list)-1]; len(k.Files) > 0 {
				f = &k.Files[len(k.Files)-1]
			}
		}
		switch {
		case kind == 'K':
			list = append(list, kept{Path: text})
		case kind == 'k' && k != nil:
			var in, more, foreign int64
			numbersIn(text, &in, &more, &foreign)
			k.In, k.More, k.Foreign = uint64(in), more != 0, foreign != 0
		case kind == 'F' && k != nil:
			k.Files = append(k.Files, keptFile{Path: text})
		case kind == 't' && f != nil:
			f.Text = text
		case kind == 'f' && f != nil:
			var inode, mode, uid, gid int64
			numbersIn(text, &inode, &f.ID.Changed, &f.ID.Size, &mode, &uid, &gid, &f.Modified)
			f.ID.Inode, f.Mode, f.UID, f.GID = uint64(inode), uint32(mode), int(uid), int(gid)
		default:
			other(kind, text)
		}
	}
	return list
}

// encode is a text that decodeSweep understands.
func (s *sweep) encode() ([]byte, error) {
	n := make(notes, 0, 3+len(s.absent)+len(s.indexes)+len(s.gits)+2*len(s.shut))
	n.add('T', s.top)
	n.addNumbers('S', s.since, s.until)
	for _, path := range s.gits { // before what is longer, see readPlaces
		n.add('G', path)
	}
	for _, path := range s.absent {
		n.add('A', path)
	}
	for _, path := range s.allowed {
		n.add('W', path)
	}
	for _, d := range s.dirs {
		n.add('D', d.Path)
		n.addNumbers('d', int64(d.Is.Inode), d.Is.Born)
	}
	for _, c := range s.shut {
		n.add('H', c.Path)
		n.addNumbers('h', int64(c.Is.Inode), c.Is.Born, c.Changed, number(c.Hides))
	}
	for _, x := range s.indexes {
		data, err := json.Marshal(x)
		if err != nil {
			return nil, err
		}
		n.add('X', string(data))
	}
	for _, k := range s.kept {
		n.addKept(k)
	}
	return n.encode(), nil
}

func decodeSweep(data []byte) (s sweep) {
	s.kept = readNotes(data, func(kind byte, text string) {
		switch kind {
		case 'T':
			s.top = text
		case 'S':
			numbersIn(text, &s.since, &s.until)
		case 'A':
			s.absent = append(s.absent, text)
		case 'G':
			s.gits = append(s.gits, text)
		case 'W':
			s.allowed = append(s.allowed, text)
		case 'D':
			s.dirs = append(s.dirs, birthAt{Path: text})
		case 'd':
			if len(s.dirs) > 0 {
				var inode int64
				d := &s.dirs[len(s.dirs)-1]
				numbersIn(text, &inode, &d.Is.Born)
				d.Is.Inode = uint64(inode)
			}
		case 'H':
			s.shut = append(s.shut, cover{Path: text})
		case 'h':
			if len(s.shut) > 0 {
				var inode, hides int64
				c := &s.shut[len(s.shut)-1]
				numbersIn(text, &inode, &c.Is.Born, &c.Changed, &hides)
				c.Is.Inode, c.Hides = uint64(inode), hides != 0
			}
		case 'X':
			var x gitIndex
			if json.Unmarshal([]byte(text), &x) == nil {
				s.indexes = append(s.indexes, x)
			}
		}
	})
	return s
}
