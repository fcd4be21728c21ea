//go:build unix

package hub_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hubtool/hubtool/hub"
	"golang.org/x/sys/unix"
)

func init() {
	if n, err := strconv.ParseUint(os.Getenv("HUBTOOL_TEST_FILE_LIMIT"), 10, 64); err == nil {
		limitFiles = func() { unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}) }
	}
}

// child is a process of this test that pulls the rig's repository, and what it says at the end.
func (r *rig) child(as *syscall.Credential, program string, more ...string) string {
	r.t.Helper()
	c := exec.Command(program)
	c.Env = append(append(os.Environ(), "HUBTOOL_TEST_PULL=1", "HF_ENDPOINT="+r.url, "HF_HUB_CACHE="+r.cache, "HF_TOKEN="+token), more...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	out, err := c.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	_, end, _ := strings.Cut(string(out), "end ")
	return strings.TrimSpace(end)
}

func TestDiskFullWhileWriting(t *testing.T) {
	r := newRig(t)
	end := r.child(nil, os.Args[0], "HUBTOOL_TEST_FILE_LIMIT=100000")
	if !strings.Contains(end, filepath.Join(r.cache, "models--acme--vit", "blobs")) || !strings.Contains(end, "file too large") {
		t.Errorf("31 the error is %q; want one that names the file", end)
	}
	if n := r.hub.Count("GET", "/lfs/blob/"); n != 1 {
		t.Errorf("31 asked %d times for what no retry can cure", n)
	}
	if _, err := os.Stat(filepath.Join(r.cache, "models--acme--vit", "refs", "main")); err == nil {
		t.Error("31 the ref was written")
	}
	r.hub.Forget()
	if end := r.child(nil, os.Args[0]); end != "<nil>" {
		t.Errorf("31 with space again: %s", end)
	}
}

func TestReadOnlyCacheOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user; TestReadOnlyCache tests it for others")
	}
	r := newRig(t)
	r.pull(hub.PullOptions{})
	// The other user must be able to run the program and to read the cache.
	program := filepath.Join(filepath.Dir(r.cache), "program")
	from, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	to.Close()
	for dir := filepath.Dir(r.cache); dir != os.TempDir() && len(dir) > 4; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	r.hub.Forget()
	if end := r.child(&syscall.Credential{Uid: 65534, Gid: 65534}, program, "HOME=/nonexistent", "HF_HOME=/nonexistent"); end != "<nil>" {
		t.Errorf("60 %s", end)
	}
	if n := r.hub.Count("", "/resolve/"); n != 0 {
		t.Errorf("60 %d files were asked for", n)
	}
}
