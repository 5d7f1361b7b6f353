package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// filesPerDirectory is what a large repository has about.
const filesPerDirectory = 50

// program has enough of the standard library in it to make its linking some work.
const program = `package main

import (
	"encoding/json"
	"html/template"
	"net/http"
	"os"
)

func main() {
	page := template.Must(template.New("").Parse("{{.}}"))
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _ = page.Execute(w, r.URL) })
	_ = json.NewEncoder(os.Stdout).Encode(changed)
	_ = http.ListenAndServe("127.0.0.1:0", nil)
}
`

// fileWork measures file systems inside the sandbox against those outside.
func (b *place) fileWork(ctx context.Context) error {
	repository, module := filepath.Join(b.home, "repository"), filepath.Join(b.home, "module")
	fmt.Printf("files: a repository of %d files\n", b.files)
	if err := b.makeRepository(ctx, repository); err != nil {
		return err
	}
	runs := max(b.runs/4, 5)
	if err := b.inOut(ctx, runs, "git status", repository, "git", "status", "--short"); err != nil {
		return err
	}
	start, whole := []string{b.sesame, "sandbox", "--", "/bin/echo", "x"}, []string{b.sesame, "sandbox", "--", "/bin/true"}
	if err := b.compare(ctx, b.runs, side{name: "until echo is heard, there", args: start, env: b.env(), dir: repository, heard: true},
		side{name: "until echo is heard, elsewhere", args: start, env: b.env(), heard: true}); err != nil {
		return err
	}
	if err := b.compare(ctx, b.runs, side{name: "/bin/true inside, there", args: whole, env: b.env(), dir: repository},
		side{name: "/bin/true inside, elsewhere", args: whole, env: b.env()}); err != nil {
		return err
	}

	fmt.Println("files: go build with a warm cache")
	if err := os.MkdirAll(module, 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{"go.mod": "module bench\n\ngo 1.21\n", "main.go": program, "changed.go": "package main\n\nconst changed = 0\n"} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if err := b.inOut(ctx, runs, "go build, nothing new", module, "go", "build", "-o", "program", "."); err != nil {
		return err
	}
	// An agent does many things in one sandbox: there its start, and what the first look at each file takes, do not count.
	const many = `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do go build -o program . || exit; done`
	if err := b.inOut(ctx, runs, "go build, nothing new, 20 times", module, "sh", "-c", many); err != nil {
		return err
	}
	const change = `printf 'package main\n\nconst changed = %s\n' "$(date +%s%N)" > changed.go; exec go build -o program .`
	return b.inOut(ctx, runs, "go build, a file changed", module, "sh", "-c", change)
}

// inOut compares a command inside the sandbox with the same outside.
func (b *place) inOut(ctx context.Context, runs int, name, dir string, args ...string) error {
	return b.compare(ctx, runs,
		side{name: name + " inside", args: append([]string{b.sesame, "sandbox", "--"}, args...), env: b.env(), dir: dir},
		side{name: name + " outside", args: args, env: b.env(), dir: dir})
}

func (b *place) makeRepository(ctx context.Context, dir string) error {
	for i := range b.files {
		sub := filepath.Join(dir, fmt.Sprint(i/filesPerDirectory/100), fmt.Sprint(i/filesPerDirectory))
		if i%filesPerDirectory == 0 {
			if err := os.MkdirAll(sub, 0o700); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), fmt.Appendln(nil, i%1000), 0o600); err != nil {
			return err
		}
	}
	_, _, err := b.run(ctx, side{name: "git", args: []string{
		"sh", "-ec",
		"git init -q; git add .; git -c user.name=bench -c user.email=bench@example.com commit -qm all",
	}, env: b.env(), dir: dir})
	return err
}
