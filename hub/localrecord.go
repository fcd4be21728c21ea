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
// only if the file has not been written after it.
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
	trusted := ok && info.ModTime().Add(-time.Second).Compare(m.time) <= 0
	if trusted && m.etag == f.ETag() && info.Size() == f.Size {
		return current, nil
	}
	if info.Size() == f.Size { // written by another program, or the record is gone
		same, err := t.sameContent(f)
		if err != nil || same {
			return current, err
		}
	}
	if trusted {
		return outdated, nil
	}
	return changed, nil
}

func (t *localDir) sameContent(f File) (bool, error) {
	h := newHash(f.ETag(), f.Size)
	if h == nil {
		return false, nil
	}
	file, err := t.root.Open(filepath.FromSlash(f.Path))
	if err != nil {
		return false, err
	}
	defer file.Close()
	t.c.report(Event{File: f.Path, State: Checking, Total: f.Size})
	if _, err := io.Copy(h, file); err != nil {
		return false, err
	}
	return hex.EncodeToString(h.Sum(nil)) == f.ETag(), nil
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
