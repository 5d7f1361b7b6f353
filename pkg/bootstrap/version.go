package bootstrap

import (
	"cmp"
	"strconv"
	"strings"
)

// Latest is the word for the newest version that the sources have.
const Latest = "latest"

// maxVersionLen bounds what becomes the name of a directory.
const maxVersionLen = 64

// ValidVersion reports whether v has the form of an Amp version,
// `0.0.<unix seconds>-g<hash>`: three numbers and an optional word. Nothing
// that passes can leave the directory it is joined to.
func ValidVersion(v string) bool {
	_, _, ok := splitVersion(v)
	return ok
}

// CompareVersions orders versions by their numbers, oldest first; what is no
// version comes before everything. It returns -1, 0 or 1.
func CompareVersions(a, b string) int {
	na, wa, oka := splitVersion(a)
	nb, wb, okb := splitVersion(b)
	if !oka || !okb {
		return cmp.Compare(order(oka), order(okb))
	}
	for i := range na {
		if c := cmp.Compare(na[i], nb[i]); c != 0 {
			return c
		}
	}
	// Two builds of one second: any order will do as long as it is always the same.
	return cmp.Compare(wa, wb)
}

func order(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

func splitVersion(v string) (numbers [3]uint64, word string, ok bool) {
	if len(v) > maxVersionLen {
		return numbers, "", false
	}
	core, word, dashed := strings.Cut(v, "-")
	if dashed && (word == "" || strings.Trim(word, versionWord) != "") {
		return numbers, "", false
	}
	parts := strings.Split(core, ".")
	if len(parts) != len(numbers) {
		return numbers, "", false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return numbers, "", false
		}
		numbers[i] = n
	}
	return numbers, word, true
}

// versionWord has every character of a version's last part; no separator of a path is among them.
const versionWord = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
