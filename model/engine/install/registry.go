package install

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/gomlx/go-xla/installer"

	"github.com/hubtool/hubtool/internal/hashing"
)

// packages are what an engine consists of.
type packages struct {
	plugin    string // the package with the plugin
	libraries string // the package whose nvidia-* requirements are the libraries that the plugin loads
}

// Packages are the engines that have a name.
var Packages = map[string]packages{
	"cpu":    {plugin: "lammps-jax-pjrt-cpu"},
	"cuda12": {"jax-cuda12-pjrt", "jax-cuda12-plugin"},
	"cuda13": {"jax-cuda13-pjrt", "jax-cuda13-plugin"},
}

// platforms are the tags of wheels for this machine, as far as there are plugins.
var platforms = map[string]*regexp.Regexp{
	"linux/amd64": regexp.MustCompile(`-manylinux.*_x86_64\.whl$`),
	"linux/arm64": regexp.MustCompile(`-manylinux.*_aarch64\.whl$`),
}

// fromRegistry downloads and unpacks the newest wheels. The requirements are read as go-xla's own
// installer reads them; that one neither can be interrupted nor installs from files.
func (i *filling) fromRegistry(ctx context.Context, p packages) error {
	info, err := i.project(ctx, p.plugin)
	if err != nil {
		return err
	}
	if err := i.wheel(ctx, p.plugin, info, info.Info.Version); err != nil || p.libraries == "" {
		return err
	}
	if info, err = i.project(ctx, p.libraries); err != nil {
		return err
	}
	needs, err := info.ParseDependencies()
	if err != nil {
		return fmt.Errorf("reading the requirements of %q: %w: %w", p.libraries, ErrDownload, err)
	}
	for _, need := range needs {
		if !strings.HasPrefix(need.Package, "nvidia-") {
			continue
		}
		if info, err = i.project(ctx, need.Package); err != nil {
			return err
		}
		newest := ""
		for version, files := range info.Releases {
			if _, err := i.release(files); err == nil && need.IsValid(version) && (newest == "" || installer.PipCompareVersion(version, newest) > 0) {
				newest = version
			}
		}
		if err := i.wheel(ctx, need.Package, info, newest); err != nil {
			return err
		}
	}
	return nil
}

func (i *filling) project(ctx context.Context, name string) (*installer.PipPackageInfo, error) {
	page, err := url.Parse(cmp.Or(i.Registry, "https://pypi.org") + "/pypi/" + name + "/json")
	if err != nil {
		return nil, err
	}
	body, _, err := i.get(ctx, page.String())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	info := &installer.PipPackageInfo{}
	if err := json.NewDecoder(io.LimitReader(body, maxRecord)).Decode(info); err != nil {
		return nil, fmt.Errorf("asking for the package %q: %w: %w", name, ErrDownload, err)
	}
	for _, files := range info.Releases {
		for f := range files {
			file, err := page.Parse(files[f].URL) // mirrors have relative ones
			if err != nil {
				return nil, fmt.Errorf("asking for the package %q: %w: %w", name, ErrDownload, err)
			}
			files[f].URL = file.String()
		}
	}
	return info, nil
}

func (i *filling) get(ctx context.Context, address string) (body io.ReadCloser, size int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrDownload, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("%w: %s answers %s", ErrDownload, address, resp.Status)
	}
	return resp.Body, resp.ContentLength, nil
}

// release is the file of a version for this machine.
func (i *filling) release(files []installer.PipReleaseInfo) (*installer.PipReleaseInfo, error) {
	platform := platforms[runtime.GOOS+"/"+runtime.GOARCH]
	if platform == nil {
		return nil, fmt.Errorf("%w: there are no plugins for %s/%s", ErrUnsupported, runtime.GOOS, runtime.GOARCH)
	}
	r, err := installer.PipSelectRelease(files, platform, true)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return r, nil
}

// wheel downloads a version's wheel, compares it with the hash that the registry has, and unpacks it.
func (i *filling) wheel(ctx context.Context, name string, info *installer.PipPackageInfo, version string) error {
	r, err := i.release(info.Releases[version])
	if err != nil {
		return fmt.Errorf("choosing a wheel of %q: %w", name, err)
	}
	fail := func(err error) error { return fmt.Errorf("downloading %q: %w", r.Filename, err) }
	body, size, err := i.get(ctx, r.URL)
	if err != nil {
		return fail(err)
	}
	defer body.Close()
	path := filepath.Join(i.root, filepath.Base(r.Filename))
	f, err := os.Create(path)
	if err != nil {
		return fail(err)
	}
	defer os.Remove(path)
	h := hashing.NewSHA256()
	count := &counter{show: func(done int64) { i.progress(r.Filename, done, size) }}
	_, err = io.Copy(io.MultiWriter(f, h, count), body)
	if err = errors.Join(err, f.Close()); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fail(fmt.Errorf("%w: %w", ErrDownload, err))
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != r.Digests["sha256"] {
		return fail(fmt.Errorf("%w: its SHA-256 is %s, and the registry says %s", ErrDamaged, got, r.Digests["sha256"]))
	}
	return i.unpack(ctx, path)
}

type counter struct {
	n    int64
	show func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.show(c.n)
	return len(p), nil
}
