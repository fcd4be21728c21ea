// Package hubtool_test holds what concerns the module as a whole.
package hubtool_test

import (
	"bytes"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hubtool/hubtool/"

// A rule says what a library, and everything below it, may be built on. A package of this module
// or a foreign one that its row does not list is an error, whoever drags it in.
type rule struct {
	packages []string // of this module
	ours     []string // packages of this module they may depend on, themselves apart
	foreign  []string // paths of other modules they may depend on; nil: the standard library only
	why      string
}

var rules = []rule{
	{
		packages: []string{"hub"},
		foreign:  []string{"github.com/go-resty/resty/v2", "github.com/klauspost/compress", "golang.org/x/"},
		why:      "a program that only moves files must not link file formats or a compute engine",
	},
	{
		packages: []string{"hub/hubserve", "hub/hubtest"},
		ours:     []string{"hub/hubserve"},
		foreign:  []string{"golang.org/x/sys"}, // for locks on Windows
		why:      "anyone may test with this Hub, and it must not share the client's mistakes",
	},
	{
		packages: []string{"format"},
		foreign:  []string{"github.com/nlpodyssey/safetensors"},
		why:      "files can be read and written without the network and without a compute engine",
	},
	{
		packages: []string{"format/dataset"},
		foreign:  dataSets,
		why:      "data sets are files: no network, no compute engine",
	},
	{
		packages: []string{"model/vision/survey"},
		ours:     []string{"format/dataset", "model/vision"},
		foreign:  dataSets,
		why:      "looking at data sets needs their pixels, which reading them does not, and no compute engine",
	},
	{
		packages: []string{"model/vision"},
		foreign:  []string{"golang.org/x/"},
		why:      "images are prepared without a compute engine",
	},
	{
		packages: []string{"model", "model/engine", "model/engine/enginetest", "model/ops"},
		ours:     []string{"format", "model/engine", "model/engine/gemm", "model/engine/vecmath", "model/ops"},
		foreign:  engines,
		why:      "a model does not know adapters (it declares a Hook that they satisfy), nor where its files come from",
	},
	{
		packages: []string{"model/engine/gemm", "model/engine/vecmath"},
		foreign:  []string{"golang.org/x/sys"}, // for what the processor can do
		why:      "products and functions know slices of numbers, and no engine",
	},
	{
		packages: []string{"model/engine/install"},
		ours:     []string{"model/engine", "model/engine/gemm", "model/engine/vecmath"},
		foreign:  slices.Concat(engines, []string{"github.com/gofrs/flock"}), // go-xla's installer has it
		why:      "plugins are installed without knowing what they compute",
	},
	{
		packages: []string{"adapters", "adapters/adapterstest"},
		ours:     []string{"adapters", "format", "model/ops"},
		foreign:  engines,
		why:      "adapters are given module names and shapes; they do not know models",
	},
	{
		packages: []string{"adapters/train"},
		ours:     []string{"adapters", "format", "format/dataset", "model", "model/ops", "model/vision"},
		foreign:  slices.Concat(engines, dataSets),
		why:      "training sees adapters and models through what they export, and local files instead of repositories",
	},
}

// dataSets are the modules that reading data sets brings along: Parquet and what it is compressed with.
var dataSets = []string{
	"github.com/parquet-go/", "go.yaml.in/yaml/v4", "github.com/bmatcuk/doublestar/v4", "github.com/andybalholm/brotli",
	"github.com/google/uuid", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4", "github.com/twpayne/go-geom",
	"google.golang.org/protobuf", "golang.org/x/",
}

// engines are the modules that computing brings along.
var engines = []string{
	"github.com/gomlx/", "gonum.org/v1/gonum", "github.com/nlpodyssey/safetensors", "github.com/pkg/errors", "github.com/google/uuid", "k8s.io/klog/v2",
	"github.com/x448/float16", "github.com/go-logr/logr", "google.golang.org/protobuf", "github.com/mitchellh/colorstring",
	"github.com/rivo/uniseg", "github.com/schollz/progressbar/v3", "golang.org/x/",
}

func TestImports(t *testing.T) {
	watchSources(t)
	for _, pkg := range goList(t, `{{if ne .Name "main"}}{{.ImportPath}}{{end}}`, module+"...") {
		name, found := strings.CutPrefix(pkg, module)
		if !found || strings.Contains(name, "internal/") {
			continue // this folder, and an internal package, which is checked below the one that uses it
		}
		t.Run(name, func(t *testing.T) {
			at := slices.IndexFunc(rules, func(r rule) bool { return slices.Contains(r.packages, name) })
			if at < 0 {
				t.Fatalf("package %s has no row in rules: say what it may depend on, and why", name)
			}
			deps := goList(t, "{{if not .Standard}}{{.ImportPath}}{{end}}", "-deps", pkg)
			wrong := slices.DeleteFunc(deps, func(dep string) bool { return rules[at].allow(name, dep) })
			if n := len(wrong); n > 0 { // the last one is the nearest: -deps lists what a package needs before it
				t.Errorf("%s depends on %s, and on %d others: %s", name, wrong[n-1], n-1, rules[at].why)
			}
		})
	}
}

// watchSources looks into every folder with code, so that go test knows that its cached result
// depends on them: what go list reads it cannot see.
func watchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == "testdata" || path != "." && strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (r rule) allow(name, dep string) bool {
	own, found := strings.CutPrefix(dep, module)
	if !found {
		return slices.ContainsFunc(r.foreign, func(f string) bool { return below(dep, strings.TrimSuffix(f, "/")) })
	}
	// What is below internal/ needs the standard library alone (golang.org/x/sys on Windows), and is for everybody.
	return own == name || below(own, "internal") || below(own, name+"/internal") || slices.ContainsFunc(r.ours, func(o string) bool {
		return own == o || below(own, o+"/internal")
	})
}

func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// goList runs go list with a template and returns the words it prints; tests are not looked at.
func goList(t *testing.T, template string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", template}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages %v: %v\n%s", args, err, stderr.String())
	}
	return strings.Fields(string(out))
}
