package gateway

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// pieces are read one by one.
type pieces []string

func (ps *pieces) Read(p []byte) (int, error) {
	if len(*ps) == 0 {
		return 0, io.EOF
	}
	n := copy(p, (*ps)[0])
	if (*ps)[0] = (*ps)[0][n:]; (*ps)[0] == "" {
		*ps = (*ps)[1:]
	}
	return n, nil
}

func TestKeyless(t *testing.T) {
	const key, standIn = "sgamp_user_REALREAL", "sgamp_user_XXXXxxxx"
	read := func(r io.Reader) string {
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	for _, text := range []string{
		"", "s", key, key + key, "a " + key + "\n", key[:18], "x" + key[:12], key[:18] + key, "sgamp_user_sgamp_user_REALREAL", key[:15] + "x" + key[5:],
		strings.Repeat("s", 100) + key[1:], strings.Repeat(key+"-"+key[:7], 50),
	} {
		want := strings.ReplaceAll(text, key, standIn)
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)), "halves": iotest.HalfReader(strings.NewReader(text)),
			"with the end": iotest.DataErrReader(strings.NewReader(text)),
		} {
			if got := read(newKeyless(io.NopCloser(r), key, "sgamp_user_XXXX"+"xxxx")); got != want {
				t.Errorf("%q, %s: %q, want %q", text, name, got, want)
			}
		}
		for cut := range len(text) {
			if got := read(iotest.OneByteReader(newKeyless(io.NopCloser(&pieces{text[:cut], text[cut:]}), key, standIn))); got != want {
				t.Errorf("%q cut at %d: %q, want %q", text, cut, got, want)
			}
		}
	}
	// A key that repeats itself.
	letters := []byte("ab")
	for range 2000 {
		text := make([]byte, rand.IntN(40))
		for i := range text {
			text[i] = letters[rand.IntN(2)]
		}
		for _, key := range []string{"aab", "abab", "aa"} {
			got := read(newKeyless(io.NopCloser(iotest.HalfReader(bytes.NewReader(text))), key, "zzzz"))
			if strings.Contains(got, key) || len(got) != len(text) {
				t.Fatalf("%q: %q", text, got)
			}
		}
	}
	cutOff := newKeyless(io.NopCloser(io.MultiReader(strings.NewReader("body "+key[:14]), iotest.ErrReader(errors.New("cut off")))), key, standIn)
	if got, err := io.ReadAll(cutOff); err == nil || string(got) != "body "+key[:14] {
		t.Errorf("%q, %v", got, err)
	}
}

// What a program waits for is not held back, though the key could begin there.
func TestKeylessHoldsNothingBack(t *testing.T) {
	const key, standIn = "sgamp_user_REALREAL", "sgamp_user_XXXXxxxx"
	r, w := io.Pipe()
	defer w.Close()
	k := newKeyless(r, key, standIn)
	for _, text := range []string{"data: s", "sgamp", "_user_", "x\n\n"} {
		go func() { _, _ = io.WriteString(w, text) }()
		got := make([]byte, 100)
		if n, err := k.Read(got); err != nil || string(got[:n]) != text {
			t.Fatalf("%q, %v, want %q", got[:n], err, text)
		}
	}
}
