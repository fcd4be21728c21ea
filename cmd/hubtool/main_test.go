package main

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hubtool/hubtool/hub/hubserve"
	"github.com/hubtool/hubtool/hub/hubtest"
)

func TestMain(m *testing.M) {
	if strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") != "hubtool" { // as which scripts run this program
		for _, setting := range os.Environ() {
			if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "HF_") {
				os.Unsetenv(name) // the tests' Hub is another than this machine's
			}
		}
	}
	testscript.Main(m, map[string]func(){"hubtool": main})
}

const testToken = "hf_testtesttest"

// TestScripts runs the program as its users do, each script beside a Hub of its own. Nothing of
// the machine's own configuration is seen.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": fails, "requests": requests, "fault": fault, "heal": heal, "waitfor": waitFor, "picture": picture,
		},
	})
}

type hubKey struct{}

// setUp starts the Hub: a model and an adapter for it, a data set, a private and a gated
// repository.
func setUp(env *testscript.Env) error {
	testdata, err := filepath.Abs("../../testdata")
	if err != nil {
		return err
	}
	h := hubtest.New(hubtest.WithToken(testToken))
	for _, r := range []struct{ kind, id, dir string }{
		{"model", "acme/vit", "golden/bases/vit-sharded"},
		{"model", "acme/lora", "golden/lora/sharded"},
		{"dataset", "acme/digits", "digits"},
		{"model", "acme/private", "golden/lora/classifier"},
		{"model", "acme/gated", "golden/lora/classifier"},
	} {
		files, err := readFolder(filepath.Join(testdata, r.dir))
		if err != nil {
			return err
		}
		commit, err := h.Commit(r.kind, r.id, "main", "first", files)
		if err != nil {
			return err
		}
		env.Setenv(strings.ToUpper(filepath.Base(r.id))+"_COMMIT", commit)
	}
	if err := addScripted(h, filepath.Join(testdata, "digits", "data")); err != nil {
		return err
	}
	if err := errors.Join(
		h.SetAccess("model", "acme/private", hubserve.Access{Private: true}),
		h.SetAccess("model", "acme/gated", hubserve.Access{Gated: "manual"}),
	); err != nil {
		return err
	}
	srv := httptest.NewServer(h)
	env.Defer(srv.Close)
	env.Values[hubKey{}] = h
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer free.Close()
	for name, value := range map[string]string{
		"TESTDATA": testdata, "HOME": env.WorkDir, "HF_HOME": filepath.Join(env.WorkDir, "hf"), "HF_ENDPOINT": srv.URL,
		"TOKEN": testToken, "FREE_ADDR": free.Addr().String(),
	} {
		env.Setenv(name, value)
	}
	return nil
}

// addScripted adds data sets made by scripts: acme/scripted with the Hub's conversion, acme/unconverted without.
func addScripted(h *hubtest.Hub, data string) error {
	script := []byte("class Digits: pass\n")
	converted := map[string][]byte{"scripted.py": nil}
	for name, split := range map[string]string{"default/train/0000.parquet": "train", "default/test/0000.parquet": "test"} {
		content, err := os.ReadFile(filepath.Join(data, split+"-00000-of-00001.parquet"))
		if err != nil {
			return err
		}
		converted[name] = content
	}
	_, err1 := h.Commit("dataset", "acme/scripted", "main", "first", map[string][]byte{"scripted.py": script})
	_, err2 := h.Commit("dataset", "acme/scripted", "refs/convert/parquet", "converted", converted)
	_, err3 := h.Commit("dataset", "acme/unconverted", "main", "first", map[string][]byte{"unconverted.py": script})
	return errors.Join(err1, err2, err3)
}

func readFolder(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = os.ReadFile(path)
		return err
	})
	return files, err
}

// fails runs a command that must end with the exit code given first: fails 2 hubtool pull
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails CODE command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		ts.Fatalf("exit code 0, want %d", want)
	case !errors.As(err, &exit):
		ts.Fatalf("%v", err)
	case exit.ExitCode() != want:
		ts.Fatalf("exit code %d, want %d", exit.ExitCode(), want)
	}
}

// requests checks how many requests with a text in their path the Hub had: requests 0 /resolve/
// It forgets them and all faults.
func requests(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] requests N PATH")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	h := ts.Value(hubKey{}).(*hubtest.Hub)
	if got := h.Count("", args[1]); (got == want) == neg {
		var paths []string
		for _, r := range h.Requests() {
			paths = append(paths, r.Method+" "+r.Path)
		}
		ts.Fatalf("%d requests with %q:\n%s", got, args[1], strings.Join(paths, "\n"))
	}
	h.Forget()
}

// picture writes an image of few pixels: picture images/a.png
func picture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: picture PATH")
	}
	img := image.NewGray(image.Rect(0, 0, 5, 4))
	for i := range img.Pix {
		img.Pix[i] = uint8(37*i + 11*len(args[0]))
	}
	var b bytes.Buffer
	path := ts.MkAbs(args[0])
	ts.Check(errors.Join(png.Encode(&b, img), os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b.Bytes(), 0o644)))
}

// fault makes the Hub answer requests with a text in their path with a status: fault 503 /api/
// or cut their bodies after some bytes: fault cut 100 /resolve/
// or ignore that only a range was asked for: fault noranges /resolve/
func fault(ts *testscript.TestScript, neg bool, args []string) {
	f := hubtest.Fault{}
	switch {
	case len(args) == 2 && args[0] == "noranges":
		f.Path, f.Do = args[1], hubtest.NoRanges()
	case len(args) == 2 && args[0] == "slow": // a byte now and then
		f.Path, f.Do = args[1], hubtest.Slow(1, 400*time.Millisecond)
	case len(args) == 2 && args[0] == "corrupt":
		f.Path, f.Do = args[1], hubtest.Corrupt(7)
	case len(args) == 2 && args[0] == "loop":
		f.Path, f.Do = args[1], hubtest.Redirect(http.StatusFound, func(r *http.Request) string { return r.URL.Path + "x" })
	case len(args) == 2 && args[0] == "pages": // that never end
		n := 0
		f.Path, f.Do = args[1], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			n++
			w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?cursor=%d>; rel="next"`, r.Host, r.URL.Path, n))
			fmt.Fprintf(w, `[{"type":"file","oid":"%040d","size":1,"path":"%d"}]`, n, n)
		}
	case len(args) == 3 && args[0] == "body": // another one, of a file of the script
		text := ts.ReadFile(args[1])
		f.Path, f.Do = args[2], hubtest.Replace(func([]byte) []byte { return []byte(text) })
	case len(args) == 3 && args[0] == "cut":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		f.Path, f.Do = args[2], hubtest.Cut(n)
	case len(args) == 2:
		status, err := strconv.Atoi(args[0])
		ts.Check(err)
		f.Path, f.Do = args[1], hubtest.Status(status)
	default:
		ts.Fatalf("usage: fault STATUS|slow|corrupt|loop|pages|noranges PATH, or fault cut N|body FILE PATH")
	}
	ts.Value(hubKey{}).(*hubtest.Hub).Inject(f)
}

// heal ends all faults.
func heal(ts *testscript.TestScript, neg bool, args []string) {
	ts.Value(hubKey{}).(*hubtest.Hub).Forget()
}

// waitFor waits until an address accepts connections.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor HOST:PORT")
	}
	for range 200 {
		if conn, err := net.Dial("tcp", args[0]); err == nil {
			ts.Check(conn.Close())
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s", fmt.Sprintf("nobody listens on %s", args[0]))
}
