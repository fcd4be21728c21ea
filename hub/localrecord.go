package hub

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

type localState int

const (
	absent   localState = iota
	current             // has the content of the commit
	outdated            // has the content of another commit, untouched
	changed             // has content that no commit we know of gave it
)

// state compares the file here with the one of the commit. The record is trusted
// if the file was written before it, and else if the content is what it says.
func (t *localDir) state(f File) (localState, error) {
	info, err := t.root.Lstat(filepath.FromSlash(f.Path))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return absent, nil
	case err != nil:
		return absent, err
	case info.Mode()&os.ModeSymlink != 0:
		return changed, nil
	case !info.Mode().IsRegular():
		return absent, fmt.Errorf("%w: %q is in the way and is no file", ErrInvalid, info.Name())
	}
	m, ok := t.readMetadata(f)
	untouched := ok && info.ModTime().Add(granularity(info.ModTime())).Before(m.time)
	if ok && !untouched { // maybe edited right after the record was written
		if untouched, err = t.hasContent(f, m.etag, info.Size()); err != nil {
			return absent, err
		}
	}
	switch {
	case untouched && m.etag != f.ETag():
		return outdated, nil
	case untouched && info.Size() == f.Size:
		return current, nil
	case info.Size() != f.Size:
		return changed, nil
	}
	// Written by another program, or the record is gone.
	same, err := t.hasContent(f, f.ETag(), f.Size)
	if err == nil && !same {
		return changed, nil
	}
	return current, err
}

// granularity is how much later than its time a file may have been written: a tick of
// the system's clock, or two seconds on a file system that keeps no fractions.
func granularity(modified time.Time) time.Duration {
	if modified.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 10 * time.Millisecond
}

// hasContent tells whether the file here has the content that an ETag names. Of one
// that is no hash nobody knows.
func (t *localDir) hasContent(f File, etag string, size int64) (bool, error) {
	h := newHash(etag, size)
	if h == nil {
		return false, nil
	}
	file, err := t.root.Open(filepath.FromSlash(f.Path))
	if err != nil {
		return false, err
	}
	defer file.Close()
	t.c.report(Event{File: f.Path, State: Checking, Total: size})
	if _, err := io.Copy(h, file); err != nil {
		return false, err
	}
	return hex.EncodeToString(h.Sum(nil)) == etag, nil
}

// shortHash keeps names of files in flight short enough for Windows.
func shortHash(name string) string {
	sum := sha1.Sum([]byte(name))
	return base64.URLEncoding.EncodeToString(sum[:])
}

func (t *localDir) metaPath(f File, suffix string) string {
	return filepath.Join(t.path, filepath.FromSlash(localMeta+"/download/"+f.Path)+suffix)
}

type localRecord struct {
	commit, etag string
	time         time.Time
}

// readMetadata reads a file's record: three lines, the time in Unix seconds.
func (t *localDir) readMetadata(f File) (localRecord, bool) {
	text, err := os.ReadFile(t.metaPath(f, ".metadata"))
	if err != nil {
		return localRecord{}, false
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 3 {
		return localRecord{}, false
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(lines[2]), 64)
	if err != nil {
		return localRecord{}, false
	}
	return localRecord{
		strings.TrimSpace(lines[0]), strings.TrimSpace(lines[1]),
		time.UnixMicro(int64(seconds * 1e6)),
	}, true
}

func (t *localDir) writeMetadata(f File) error {
	now := strconv.FormatFloat(float64(time.Now().UnixMicro())/1e6, 'f', -1, 64)
	return writeAtomic(t.metaPath(f, ".metadata"), []byte(t.commit+"\n"+f.ETag()+"\n"+now+"\n"), 0o666)
}
