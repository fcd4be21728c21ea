package install

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/hubtool/hubtool/internal/hashing"
	"github.com/hubtool/hubtool/model/engine"
)

// unpack unpacks a wheel into the root, and checks every file against the wheel's RECORD.
// https://packaging.python.org/en/latest/specifications/binary-distribution-format/
func (i *filling) unpack(ctx context.Context, wheel string) error {
	fail := func(err error) error { return fmt.Errorf("unpacking %q: %w", wheel, err) }
	f, err := os.Open(wheel)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	h := hashing.NewSHA256()
	if _, err := io.Copy(h, f); err != nil {
		return fail(err)
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	hashes, err := recorded(z)
	if err != nil {
		return fail(err)
	}
	done := int64(0)
	for _, member := range z.File {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if strings.HasSuffix(member.Name, "/") {
			continue
		}
		if err := i.extract(member, hashes); err != nil {
			return fail(err)
		}
		done += int64(member.CompressedSize64)
		i.progress(filepath.Base(wheel), done, info.Size())
	}
	i.manifest.Files = append(i.manifest.Files, engine.ManifestEntry{Name: filepath.Base(wheel), SHA256: fmt.Sprintf("%x", h.Sum(nil))})
	return nil
}

func (i *filling) progress(file string, done, total int64) {
	if i.Progress != nil {
		i.Progress(file, done, total)
	}
}

// recorded returns the hashes in a wheel's RECORD, by file.
func recorded(z *zip.Reader) (map[string]string, error) {
	for _, member := range z.File {
		if dir, file := path.Split(member.Name); file != "RECORD" || !strings.HasSuffix(dir, ".dist-info/") {
			continue
		}
		text, err := readMember(member)
		if err != nil {
			return nil, err
		}
		rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, member.Name, err)
		}
		hashes := map[string]string{}
		for _, row := range rows {
			if len(row) >= 2 {
				hashes[row[0]] = row[1]
			}
		}
		return hashes, nil
	}
	return nil, fmt.Errorf("%w: it has no RECORD, so it is no wheel", ErrDamaged)
}

// maxRecord bounds what is read into memory.
const maxRecord = 64 << 20

func readMember(member *zip.File) ([]byte, error) {
	r, err := member.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrDamaged, member.Name, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxRecord))
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrDamaged, member.Name, err)
	}
	return text, nil
}

// extract writes one file of a wheel. Names that lead out of the root, and everything but plain files,
// are refused.
func (i *filling) extract(member *zip.File, hashes map[string]string) (err error) {
	name := filepath.FromSlash(member.Name)
	if !filepath.IsLocal(name) || !member.Mode().IsRegular() {
		return fmt.Errorf("%w: the member %q is no plain file below the root", ErrDamaged, member.Name)
	}
	to := filepath.Join(i.root, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	r, err := member.Open()
	if err != nil {
		return fmt.Errorf("%w: %q: %w", ErrDamaged, member.Name, err)
	}
	defer r.Close()
	mode := os.FileMode(0o666)
	if member.Mode()&0o100 != 0 { // ptxas is a program
		mode = 0o777
	}
	// Not exclusively: wheels of one namespace share files such as nvidia/__init__.py.
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := hashing.NewSHA256()
	if _, err := io.Copy(io.MultiWriter(f, h), r); err != nil {
		return fmt.Errorf("extracting %q: %w", member.Name, damage(err))
	}
	want := hashes[member.Name]
	got := "sha256=" + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	dir, _ := path.Split(member.Name)
	switch {
	case want == got, want == "" && strings.HasSuffix(dir, ".dist-info/"): // RECORD itself, and its signatures
		return nil
	}
	return fmt.Errorf("%w: %q has the hash %s, and RECORD says %q", ErrDamaged, member.Name, got, want)
}

// damage marks errors that come from a wheel's bytes, and not from the disk.
func damage(err error) error {
	var disk *os.PathError
	if errors.As(err, &disk) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
