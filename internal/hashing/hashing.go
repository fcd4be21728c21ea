// Package hashing is crypto/sha256 and crypto/sha1 at the same speed in every build.
//
// With GOEXPERIMENT=simd the runtime saves and restores the vector registers of a goroutine that it preempts, and leaves
// their upper halves marked as in use (runtime/preempt_amd64.s). The hash functions are SSE code, which some processors
// then run thirty times slower until an instruction clears the mark. A goroutine that only reads and hashes has none, so
// that one preemption slows down gigabytes. The hashes here clear the mark themselves.
package hashing

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
)

// NewSHA256 is sha256.New.
func NewSHA256() hash.Hash { return steady{sha256.New()} }

// NewSHA1 is sha1.New.
func NewSHA1() hash.Hash { return steady{sha1.New()} }

type steady struct{ hash.Hash }

// piece is what a preemption may slow down: a millisecond's work in the worst case.
const piece = 32 << 10

func (s steady) Write(b []byte) (written int, err error) {
	for len(b) > 0 && err == nil {
		clearUpper()
		var n int
		n, err = s.Hash.Write(b[:min(len(b), piece)])
		written += n
		b = b[n:]
	}
	return written, err
}

var blobName = regexp.MustCompile(`\A[0-9a-f]{64}\z`)

// Content returns the SHA-256 of a file. A file of a Hub cache is a link to a blob that is named by it, which saves
// reading the file.
func Content(file *os.File) (string, error) {
	if target, err := os.Readlink(file.Name()); err == nil && blobName.MatchString(filepath.Base(target)) {
		return filepath.Base(target), nil
	}
	h := NewSHA256()
	if _, err := io.Copy(h, io.NewSectionReader(file, 0, 1<<63-1)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
