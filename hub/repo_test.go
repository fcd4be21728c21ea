package hub_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/hub"
)

func TestParseRepo(t *testing.T) {
	tests := []struct {
		in   string
		want hub.Repo
	}{
		{"acme/vit", hub.Repo{Type: hub.Model, ID: "acme/vit"}},
		{"gpt2", hub.Repo{Type: hub.Model, ID: "gpt2"}},
		{"acme/vit@v1.0", hub.Repo{Type: hub.Model, ID: "acme/vit", Revision: "v1.0"}},
		{"acme/vit@refs/pr/3", hub.Repo{Type: hub.Model, ID: "acme/vit", Revision: "refs/pr/3"}},
		{"datasets/acme/digits", hub.Repo{Type: hub.Dataset, ID: "acme/digits"}},
		{"datasets/squad", hub.Repo{Type: hub.Dataset, ID: "squad"}},
		{"models/acme/vit", hub.Repo{Type: hub.Model, ID: "acme/vit"}},
		{"hf://acme/vit", hub.Repo{Type: hub.Model, ID: "acme/vit"}},
		{"hf://datasets/acme/digits@refs%2Fconvert%2Fparquet", hub.Repo{Type: hub.Dataset, ID: "acme/digits", Revision: "refs/convert/parquet"}},
		{"hf://spaces/acme/demo", hub.Repo{Type: hub.Space, ID: "acme/demo"}},
		{"https://huggingface.co/datasets/acme/digits/tree/dev", hub.Repo{Type: hub.Dataset, ID: "acme/digits", Revision: "dev"}},
	}
	for _, tt := range tests {
		got, err := hub.ParseRepo(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseRepo(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
		if again, err := hub.ParseRepo(got.String()); err != nil || again != got {
			t.Errorf("ParseRepo(%q) = %+v, %v; want the same as from %q", got.String(), again, err, tt.in)
		}
	}
	if got, _ := hub.ParseRepoAs("acme/x", hub.Dataset); got.Type != hub.Dataset {
		t.Errorf("a reference without a type is a %s where a dataset is wanted", got.Type)
	}
}

func TestParseRepoRefuses(t *testing.T) {
	for _, in := range []string{"", "a/b/c", "../x", "a/..", "/abs", "a/b@", "a--b/c", "a/b.git", "-a/b", "a/b-", ".a/b", "a/b.", "a/b@../x",
		"a/b@x..y", "a/b@/x", "a b/c", "ü/x", "a/b@x\ny", "a/b@.hidden"} {
		if r, err := hub.ParseRepo(in); !errors.Is(err, hub.ErrInvalid) {
			t.Errorf("ParseRepo(%q) = %+v, %v; want ErrInvalid", in, r, err)
		}
	}
}

// The client must stay usable by programs that have nothing to do with models.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skip("no go command: ", err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		name, ours := strings.CutPrefix(pkg, "github.com/hubtool/hubtool/")
		if strings.Contains(pkg, "gomlx") || ours && !strings.HasPrefix(name, "hub") && !strings.HasPrefix(name, "internal/") {
			t.Errorf("imports %s", pkg)
		}
	}
}

func FuzzParseRepo(f *testing.F) {
	for _, s := range []string{"acme/vit@v1", "hf://datasets/a/b@refs%2Fpr%2F1", "datasets/x", "https://huggingface.co/a/b/tree/main"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := hub.ParseRepo(s)
		if err != nil {
			return
		}
		if again, err := hub.ParseRepo(r.String()); err != nil && r.Revision == "" || err == nil && again.ID != r.ID {
			t.Errorf("%q gives %+v, which prints as %q and reads as %+v, %v", s, r, r, again, err)
		}
	})
}
