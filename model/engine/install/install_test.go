package install_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hubtool/hubtool/model/engine"
	"github.com/hubtool/hubtool/model/engine/install"
)

// library makes the smallest shared library that has one symbol.
func library(symbol string, machine elf.Machine) []byte {
	var b bytes.Buffer
	names := []byte("\x00" + symbol + "\x00")
	sections := []byte("\x00.dynstr\x00.dynsym\x00.shstrtab\x00")
	const head = 64
	dynsym := uint64(head + len(names))
	shstrtab := dynsym + 2*24
	table := shstrtab + uint64(len(sections))
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Shoff: table, Ehsize: head, Phentsize: 56, Shentsize: 64, Shnum: 4, Shstrndx: 3}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	put(h)
	b.Write(names)
	put([]elf.Sym64{{}, {Name: 1, Info: 0x12, Shndx: 1}})
	b.Write(sections)
	put([]elf.Section64{{},
		{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: head, Size: uint64(len(names))},
		{Name: 9, Type: uint32(elf.SHT_DYNSYM), Off: dynsym, Size: 48, Link: 1, Entsize: 24},
		{Name: 17, Type: uint32(elf.SHT_STRTAB), Off: shstrtab, Size: uint64(len(sections))},
	})
	return b.Bytes()
}

var machine = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]

// wheel packs files as pip's wheels have them; lies replace what RECORD says of a file.
func wheel(t *testing.T, files map[string][]byte, lies map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	record := ""
	for name, data := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		hash := "sha256=" + base64.RawURLEncoding.EncodeToString(sum[:])
		if lie, ok := lies[name]; ok {
			hash = lie
		}
		record += fmt.Sprintf("%s,%s,%d\n", name, hash, len(data))
	}
	w, err := z.Create("p-1.dist-info/RECORD")
	if err == nil {
		_, err = w.Write([]byte(record + "p-1.dist-info/RECORD,,\n"))
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Package engine finds what was installed, and its libraries beside it.
func TestInstallWheels(t *testing.T) {
	if machine == 0 {
		t.Skip("no plugins for this machine")
	}
	data, from := t.TempDir(), t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	t.Setenv("PJRT_PLUGIN_LIBRARY_PATH", "")
	t.Setenv("LD_LIBRARY_PATH", "/before")
	t.Setenv("XLA_FLAGS", "")
	write(t, filepath.Join(from, "jax_cuda13_pjrt-0.9-py3-none-manylinux_2_27_x86_64.whl"),
		wheel(t, map[string][]byte{"jax_plugins/xla_cuda13/xla_cuda_plugin.so": library("GetPjrtApi", machine), "jax_plugins/other.so": library("other", machine)}, nil))
	write(t, filepath.Join(from, "nvidia_cublas-13.0-py3-none-manylinux_2_27_x86_64.whl"),
		wheel(t, map[string][]byte{"nvidia/__init__.py": nil, "nvidia/cu13/lib/libcublas.so.13": []byte("library"), "nvidia/cu13/nvvm/libdevice/libdevice.10.bc": nil}, nil))
	write(t, filepath.Join(from, "nvidia_cudnn_cu13-9.1-py3-none-manylinux_2_27_x86_64.whl"),
		wheel(t, map[string][]byte{"nvidia/__init__.py": nil, "nvidia/cudnn/lib/libcudnn.so.9": []byte("library")}, nil))

	tried := ""
	plugin, err := install.Install(context.Background(), "cuda13", install.Options{From: from, Try: func(plugin string) error { tried = plugin; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(data, "hubtool", "engines", "cuda13")
	if want := filepath.Join(root, "jax_plugins/xla_cuda13/xla_cuda_plugin.so"); plugin != want || filepath.Base(tried) != "xla_cuda_plugin.so" {
		t.Errorf("the plugin is %q, tried as %q; want %q", plugin, tried, want)
	}
	if got := engine.Plugins(); len(got) == 0 || got[0] != plugin {
		t.Errorf("engine finds %q, want %q first", got, plugin)
	}
	env := engine.Environment("xla:" + plugin + ",tf32=false")
	for _, want := range []string{
		"LD_LIBRARY_PATH=/before:" + filepath.Join(root, "nvidia/cu13/lib") + ":" + filepath.Join(root, "nvidia/cudnn/lib"),
		"XLA_FLAGS=--xla_gpu_cuda_data_dir=" + filepath.Join(root, "nvidia/cu13"),
	} {
		if !slices.Contains(env, want) {
			t.Errorf("the environment lacks %q: %q", want, env)
		}
	}
	if slices.ContainsFunc(engine.Environment("go"), func(v string) bool { return strings.Contains(v, "cudnn") }) {
		t.Error("the Go engine gets CUDA's libraries")
	}
	for _, v := range env { // the process that was started again
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	if env := engine.Environment("xla:" + plugin); env != nil {
		t.Errorf("the process would be started again for ever: %q", env)
	}

	// A plugin that does not work leaves the one that does.
	wrong := errors.New("it crashes")
	if _, err := install.Install(context.Background(), "cuda13", install.Options{From: from, Try: func(string) error { return wrong }}); !errors.Is(err, wrong) {
		t.Errorf("a plugin that crashes: %v", err)
	}
	if _, err := os.Stat(plugin); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(root))
	if err != nil || len(left) != 1 {
		t.Errorf("the folder of engines has %v (%v), want cuda13 alone", left, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	if machine == 0 {
		t.Skip("no plugins for this machine")
	}
	good := library("GetPjrtApi", machine)
	other := elf.EM_AARCH64
	if machine == other {
		other = elf.EM_X86_64
	}
	whole := wheel(t, map[string][]byte{"p/x_plugin.so": good}, nil)
	flipped := bytes.Clone(whole)
	flipped[80] ^= 1 // in the plugin's data
	for _, c := range []struct {
		name string
		data []byte
		want error
		says string
	}{
		{"text.so", []byte("not a library"), install.ErrUnsupported, "no library"},
		{"empty.so", nil, install.ErrUnsupported, "no library"},
		{"cut.so", good[:len(good)-70], install.ErrUnsupported, "damaged"},
		{"foreign.so", library("GetPjrtApi", other), install.ErrUnsupported, "this is"},
		{"other.so", library("main", machine), install.ErrUnsupported, "GetPjrtApi"},
		{"cut-1-py3-none-any.whl", whole[:len(whole)/2], install.ErrDamaged, ""},
		{"text-1-py3-none-any.whl", []byte("not a zip"), install.ErrDamaged, ""},
		{"flipped-1-py3-none-any.whl", flipped, install.ErrDamaged, ""},
		{"lie-1-py3-none-any.whl", wheel(t, map[string][]byte{"p/x_plugin.so": good}, map[string]string{"p/x_plugin.so": "sha256=AAAA"}), install.ErrDamaged, "RECORD"},
		{"unlisted-1-py3-none-any.whl", wheel(t, map[string][]byte{"p/x_plugin.so": good}, map[string]string{"p/x_plugin.so": ""}), install.ErrDamaged, "RECORD"},
		{"up-1-py3-none-any.whl", wheel(t, map[string][]byte{"../x_plugin.so": good}, nil), install.ErrDamaged, "below the root"},
		{"root-1-py3-none-any.whl", wheel(t, map[string][]byte{"/tmp/x_plugin.so": good}, nil), install.ErrDamaged, "below the root"},
		{"two-1-py3-none-any.whl", wheel(t, map[string][]byte{"p/x_plugin.so": good, "p/y_plugin.so": good}, nil), install.ErrUnsupported, "several"},
		{"none-1-py3-none-any.whl", wheel(t, map[string][]byte{"p/x.py": nil}, nil), install.ErrUnsupported, "no library"},
		{"tpu", nil, install.ErrUnsupported, "must be"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "engines")
			what := c.name
			if filepath.Ext(what) != "" {
				what = write(t, filepath.Join(t.TempDir(), c.name), c.data)
			}
			_, err := install.Install(context.Background(), what, install.Options{Dir: dir})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %v with %q", err, c.want, c.says)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// The newest wheel that fits is chosen and compared with the registry's hash.
func TestInstallFromRegistry(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the names of the wheels are those of Linux on amd64")
	}
	files := map[string][]byte{
		"/files/jax_cuda13_pjrt-0.9-py3-none-manylinux_2_27_x86_64.whl": wheel(t, map[string][]byte{"jax_plugins/x/xla_cuda_plugin.so": library("GetPjrtApi", machine)}, nil),
		"/files/nvidia_a-1.5-py3-none-manylinux_2_27_x86_64.whl":        wheel(t, map[string][]byte{"nvidia/a/lib/liba.so": []byte("right")}, nil),
		"/files/nvidia_a-2.0-py3-none-manylinux_2_27_x86_64.whl":        wheel(t, map[string][]byte{"nvidia/a/lib/liba.so": []byte("too new")}, nil),
	}
	spoil := false
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if data, ok := files[r.URL.Path]; ok {
			if spoil {
				data = append([]byte("spoilt"), data...)
			}
			_, _ = w.Write(data)
			return
		}
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/pypi/"), "/json")
		releases := map[string][]map[string]any{}
		for path, data := range files {
			file := filepath.Base(path)
			if parts := strings.Split(file, "-"); parts[0] == strings.ReplaceAll(name, "-", "_") {
				releases[parts[1]] = []map[string]any{
					{"filename": strings.Replace(file, "x86_64", "aarch64", 1), "url": "../../files/none"},
					{"filename": file, "url": "../.." + path, "digests": map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256(data))}},
				}
			}
		}
		info := map[string]any{"version": "0.9", "requires_dist": []string{"jax-cuda13-pjrt==0.9", `nvidia-a<2,>=1.0; extra == "with-cuda"`}}
		if err := json.NewEncoder(w).Encode(map[string]any{"info": info, "releases": releases}); err != nil {
			t.Error(err)
		}
	}))
	defer registry.Close()
	o := install.Options{Dir: t.TempDir(), Registry: registry.URL}
	if _, err := install.Install(context.Background(), "cuda13", o); err != nil {
		t.Fatal(err)
	}
	if lib, err := os.ReadFile(filepath.Join(o.Dir, "cuda13", "nvidia/a/lib/liba.so")); string(lib) != "right" {
		t.Errorf("the library is %q (%v), want the newest that fits", lib, err)
	}
	spoil = true
	if _, err := install.Install(context.Background(), "cuda13", o); !errors.Is(err, install.ErrDamaged) {
		t.Errorf("a spoilt download: %v, want ErrDamaged", err)
	}
	registry.Close()
	if _, err := install.Install(context.Background(), "cuda13", o); !errors.Is(err, install.ErrDownload) {
		t.Errorf("a dead registry: %v, want ErrDownload", err)
	}
}
