package hub

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// An uploadRecord remembers an upload in parts, so that a process that takes over
// from one that was killed sends only the parts that are missing. The protocol has
// no question for what has arrived, and every new batch answer begins a new upload;
// but the addresses of the old one are good until they expire, and the store keeps
// its parts as long. So the record is the old answer, then a line for each part:
//
//	{"href": …, "header": {"chunk_size": …, "1": …, "2": …}}
//	{"part": 1, "etag": "\"…\""}
//
// The addresses are signed, which makes the file a secret. It lies in the cache's
// .locks, where Python does not look for repositories, and is locked by the process
// that uses it.
type uploadRecord struct {
	mu    sync.Mutex
	file  *os.File
	etags map[int]string // of the parts that have arrived
}

type uploadedPart struct {
	Part int    `json:"part"`
	ETag string `json:"etag"`
}

// recordLife is how long a record may be of use: no address is signed for longer.
const recordLife = 7 * 24 * time.Hour

// openRecord gives the record of an upload, or nil if there can be none: another
// process is sending the same, or the cache cannot be written.
func (c *Client) openRecord(r Repo, u *upload) *uploadRecord {
	dir := filepath.Join(c.cacheDir, ".locks", "uploads")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil
	}
	dropOldRecords(dir)
	key := sha256.Sum256([]byte(c.endpoint + " " + r.String() + " " + u.sha256))
	f, err := os.OpenFile(filepath.Join(dir, hex.EncodeToString(key[:])+".json"), os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil
	}
	if ok, err := tryLock(f); !ok || err != nil {
		f.Close()
		return nil
	}
	return &uploadRecord{file: f, etags: map[int]string{}}
}

func dropOldRecords(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > recordLife {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// continues gives the recorded upload, if there is one with parts like those of a
// new answer; otherwise it records that one.
func (rec *uploadRecord) continues(fresh lfsAction) (a lfsAction, resumed bool) {
	if rec == nil {
		return fresh, false
	}
	text, _ := io.ReadAll(rec.file) // which leaves it at the end
	head, rest, _ := bytes.Cut(text, []byte("\n"))
	var old lfsAction
	if json.Unmarshal(head, &old) != nil || old.Href == "" || old.header("chunk_size") != fresh.header("chunk_size") || len(old.Header) != len(fresh.Header) {
		rec.begin(fresh)
		return fresh, false
	}
	for line := range bytes.Lines(rest) {
		var p uploadedPart
		if json.Unmarshal(line, &p) == nil && p.ETag != "" && old.header(strconv.Itoa(p.Part)) != "" {
			rec.etags[p.Part] = p.ETag
		}
	}
	return old, len(rec.etags) > 0
}

// begin records a new upload in place of the old one.
func (rec *uploadRecord) begin(a lfsAction) {
	if rec == nil {
		return
	}
	clear(rec.etags)
	text, err := json.Marshal(a)
	err = errors.Join(err, rec.file.Truncate(0))
	if err == nil {
		_, err = rec.file.WriteAt(append(text, '\n'), 0)
	}
	if err == nil {
		_, err = rec.file.Seek(0, io.SeekEnd)
	}
	if err != nil { // then nothing can be resumed, which is all
		_ = rec.file.Truncate(0)
	}
}

// has tells whether a part has arrived, and its ETag.
func (rec *uploadRecord) has(number int) (etag string) {
	if rec == nil {
		return ""
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.etags[number]
}

// arrived notes a part.
func (rec *uploadRecord) arrived(number int, etag string) {
	if rec == nil {
		return
	}
	line, err := json.Marshal(uploadedPart{number, etag})
	if err != nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.etags[number] = etag
	_, _ = rec.file.Write(append(line, '\n')) // a part that is not noted is sent again
}

// close ends the use of the record; one that is complete is of no more use.
func (rec *uploadRecord) close(complete bool) {
	if rec == nil {
		return
	}
	if complete {
		os.Remove(rec.file.Name())
	}
	rec.file.Close()
}
