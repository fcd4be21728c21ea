package hubserve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
)

// shardFile is one file of a shard.
type shardFile struct {
	sha256 string
	terms  []shardTerm
}

// shardTerm is a run of a bundle's chunks, the end excluded.
type shardTerm struct {
	xorb       string
	start, end int
}

var shardTag = append([]byte("HFRepoMetaData\x00"), 85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169)

// parseShard reads the files that a shard describes and the bundles it lists. A
// shard is a header and two sections, all of entries of 48 bytes; an entry that is
// all ones ends a section.
func parseShard(data []byte) (files []shardFile, xorbs []string, err error) {
	bad := errors.New("malformed shard")
	if len(data) < 48 || !bytes.HasPrefix(data, shardTag) || binary.LittleEndian.Uint64(data[32:]) != 2 {
		return nil, nil, bad
	}
	data = data[48:]
	next := func() []byte {
		if len(data) < 48 {
			return nil
		}
		entry := data[:48]
		data = data[48:]
		return entry
	}
	end := bytes.Repeat([]byte{0xff}, 32)
	const verification, metadata = 1 << 31, 1 << 30
	for {
		h := next()
		if h == nil {
			return nil, nil, bad
		}
		if bytes.Equal(h[:32], end) {
			break
		}
		flags, n := binary.LittleEndian.Uint32(h[32:]), int(binary.LittleEndian.Uint32(h[36:]))
		var f shardFile
		for range n {
			e := next()
			if e == nil {
				return nil, nil, bad
			}
			f.terms = append(f.terms, shardTerm{hashString(e), int(binary.LittleEndian.Uint32(e[40:])), int(binary.LittleEndian.Uint32(e[44:]))})
		}
		if flags&verification != 0 {
			for range n {
				if next() == nil {
					return nil, nil, bad
				}
			}
		}
		if flags&metadata != 0 {
			e := next()
			if e == nil {
				return nil, nil, bad
			}
			f.sha256 = hashString(e)
		}
		files = append(files, f)
	}
	for {
		h := next()
		if h == nil {
			return nil, nil, bad
		}
		if bytes.Equal(h[:32], end) {
			return files, xorbs, nil
		}
		xorbs = append(xorbs, hashString(h))
		for range binary.LittleEndian.Uint32(h[36:]) {
			if next() == nil {
				return nil, nil, bad
			}
		}
	}
}

// hashString writes a hash as Xet does: four numbers, each stored with the lowest
// byte first.
func hashString(b []byte) string {
	var s strings.Builder
	for i := 0; i < 32; i += 8 {
		fmt.Fprintf(&s, "%016x", binary.LittleEndian.Uint64(b[i:]))
	}
	return s.String()
}

// receiveShard assembles the files that a shard describes.
func (r *request) receiveShard() error {
	data, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, maxShard))
	if err != nil {
		return fail(http.StatusBadRequest, "", "reading the shard: %v", err)
	}
	files, xorbs, err := parseShard(data)
	if err != nil {
		return fail(http.StatusBadRequest, "", "%v", err)
	}
	used := map[string]bool{}
	for _, hash := range xorbs {
		used[hash] = true
	}
	for _, f := range files {
		if f.sha256 == "" {
			return fail(http.StatusBadRequest, "", "the shard gives a file no SHA-256")
		}
		for _, t := range f.terms {
			used[t.xorb] = true
		}
		in, out := io.Pipe()
		a := assembly{s: r.s, sha: f.sha256}
		go func() { out.CloseWithError(a.write(out, f.terms)) }()
		_, err := store(r.s.st, in, f.sha256)
		in.Close()
		if err != nil {
			return fail(http.StatusBadRequest, "", "assembling file %s: %v", f.sha256, err)
		}
		a.place()
	}
	for hash := range used {
		if err := r.s.settle(hash); err != nil {
			return err
		}
	}
	return r.answer(map[string]int{"result": 1})
}

// assembly writes one file and notes where each chunk of a waiting bundle went.
type assembly struct {
	s     *Server
	sha   string
	at    int64
	notes []func()
}

func (a *assembly) write(w io.Writer, terms []shardTerm) error {
	for _, t := range terms {
		x, placed, err := a.s.xorb(t.xorb)
		if err != nil {
			return fmt.Errorf("xorb %s has not been uploaded", t.xorb)
		}
		n := len(placed)
		if x != nil {
			n = len(x.chunks)
		}
		if t.start < 0 || t.end > n || t.start >= t.end {
			return fmt.Errorf("xorb %s has %d chunks, not %d to %d", t.xorb, n, t.start, t.end)
		}
		if x != nil {
			if err = a.unpack(w, x, t); errors.Is(err, fs.ErrNotExist) {
				// Another shard has just settled the bundle; the record replaces it.
				if _, placed, err = a.s.xorb(t.xorb); err == nil && len(placed) < t.end {
					err = errors.New("the xorb is gone")
				}
				x = nil
			}
		}
		if x == nil && err == nil {
			err = a.copy(w, placed[t.start:t.end])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *assembly) unpack(w io.Writer, x *xorb, t shardTerm) error {
	f, err := x.data.open()
	if err != nil {
		return err
	}
	defer f.Close()
	for i := t.start; i < t.end; i++ {
		data, err := x.chunks[i].read(f)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		here := chunkAt{a.sha, a.at, int64(len(data))}
		a.notes = append(a.notes, func() { x.placed[i] = here })
		a.at += here.Size
	}
	return nil
}

func (a *assembly) copy(w io.Writer, chunks []chunkAt) error {
	for _, c := range chunks {
		f, _, err := a.s.st.openBlob(c.Blob)
		if err != nil {
			return err
		}
		if _, err = f.Seek(c.At, io.SeekStart); err == nil {
			_, err = io.CopyN(w, f, c.Size)
		}
		f.Close()
		if err != nil {
			return err
		}
		a.at += c.Size
	}
	return nil
}

// place makes the notes count, once the file is stored.
func (a *assembly) place() {
	a.s.uploads.mu.Lock()
	defer a.s.uploads.mu.Unlock()
	for _, note := range a.notes {
		note()
	}
}
