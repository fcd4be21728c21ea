package hubserve

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/hubtool/hubtool/internal/hashing"
)

// storage keeps records, which are small and replaced as a whole, and blobs, which
// are named by their SHA-256 and never change.
type storage interface {
	load(key string) ([]byte, error) // fs.ErrNotExist if there is none
	save(key string, data []byte) error
	remove(prefix string) error // the record, or all below it
	rename(from, to string) error
	keys(prefix string) ([]string, error) // of records, sorted
	openBlob(sha256 string) (io.ReadSeekCloser, int64, error)
	createBlob() (pending, error)
}

// pending is content on its way in. It exists for others after keep, and keep or
// drop must be called. Before that, what has been written can be read with open,
// after which nothing more may be written.
type pending interface {
	io.Writer
	io.WriterAt // for content that comes in parts
	open() (io.ReadSeekCloser, error)
	keep(sha256 string) error
	drop()
}

// blob identifies content.
type blob struct {
	SHA256 string `json:"sha256"`
	Git    string `json:"git,omitempty"` // git's blob id; unknown for what came through LFS
	Size   int64  `json:"size"`
}

// store copies r into the storage. want, if not empty, is the SHA-256 that the
// content must have.
func store(st storage, r io.Reader, want string) (blob, error) {
	p, err := st.createBlob()
	if err != nil {
		return blob{}, err
	}
	h := hashing.NewSHA256()
	n, err := io.Copy(io.MultiWriter(p, h), r)
	if err != nil {
		p.drop()
		return blob{}, err
	}
	b := blob{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}
	if want != "" && b.SHA256 != want {
		p.drop()
		return blob{}, fmt.Errorf("%w: content has SHA-256 %s, not %s", errMismatch, b.SHA256, want)
	}
	return b, p.keep(b.SHA256)
}

var errMismatch = errors.New("wrong content")

// gitID is git's name for content of a known size.
func gitID(size int64, r io.Reader) (string, error) {
	h := gitHash(size)
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

func gitHash(size int64) hash.Hash {
	h := hashing.NewSHA1()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

// blobGitID reads a blob once to learn its git id.
func blobGitID(st storage, b blob) (string, error) {
	if b.Git != "" {
		return b.Git, nil
	}
	f, size, err := st.openBlob(b.SHA256)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return gitID(size, f)
}
