package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pure are the packages that decide. They get time, facts and randomness as arguments.
var pure = []string{"uplinkd/policy", "uplinkd/pd", "uplinkd/internal/kernel", "uplinkd/internal/lifetime"}

// Nothing that talks to the world may be reached from a pure package; fmt reaches os, so that one is looked for only in
// our own imports.
var (
	neverReached = []string{"net", "os/exec", "os/signal", "github.com/vishvananda/netlink", "github.com/insomniacslk/dhcp",
		"github.com/mdlayher/ndp", "github.com/coreos/go-systemd", "golang.org/x/sys"}
	neverImported = []string{"os", "syscall", "log", "log/slog", "io/ioutil", "runtime", "unsafe"}
	neverCalled   = map[string][]string{
		"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
		"rand": {"Int", "IntN", "Int64N", "N", "Uint32", "Uint64", "Float64", "Perm", "Shuffle"},
	}
)

func TestPurePackagesStayPure(t *testing.T) {
	for _, pkg := range pure {
		for _, line := range goList(t, "-deps", "-f", "{{.ImportPath}} {{.Standard}} {{.Dir}} {{join .GoFiles \",\"}} {{join .Imports \",\"}}", pkg) {
			f := strings.Split(line, " ")
			path, standard, dir, files, imports := f[0], f[1] == "true", f[2], f[3], strings.Split(f[4], ",")
			for _, never := range neverReached {
				if path == never || strings.HasPrefix(path, never+"/") && !strings.HasPrefix(path, "net/netip") {
					t.Errorf("%s reaches %s", pkg, path)
				}
			}
			if standard || !strings.HasPrefix(path, "uplinkd/") {
				continue
			}
			for _, i := range imports {
				if slices.Contains(neverImported, i) {
					t.Errorf("%s is reached from the pure %s and imports %s", path, pkg, i)
				}
			}
			for _, name := range strings.Split(files, ",") {
				for _, call := range forbiddenCalls(t, filepath.Join(dir, name)) {
					t.Errorf("%s is reached from the pure %s and calls %s", path, pkg, call)
				}
			}
		}
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func forbiddenCalls(t *testing.T, file string) (calls []string) {
	t.Helper()
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Obj == nil && slices.Contains(neverCalled[x.Name], s.Sel.Name) {
			calls = append(calls, x.Name+"."+s.Sel.Name+" at "+fset.Position(n.Pos()).String())
		}
		return true
	})
	return calls
}
