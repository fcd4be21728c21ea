package hubserve

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The receiving half of Xet, as its specification describes it for clients:
//
//	GET  /api/<type>s/<id>/xet-write-token/<revision>  where to send content, and a token for it
//	GET  /xet/<instance>/v1/chunks/default-merkledb/<hash>  404: nothing is known in advance
//	POST /xet/<instance>/v1/xorbs/default/<hash>       a bundle of compressed chunks
//	POST /xet/<instance>/v1/shards                     which chunks make which files
//
// A shard's files are assembled at once and stored as plain content under their
// SHA-256. Of a bundle, what stays is a record of where in that content its chunks
// are now: clients remember for weeks which chunks they have sent, and refer to
// them. The instance in the address is one per directory, so that a client never
// believes that an empty Hub at an old address has anything.
//
// Hashes of bundles are names here and not checked; a file is, by its SHA-256.

// chunkAt is where a chunk is, inside stored content.
type chunkAt struct {
	Blob string `json:"blob"`
	At   int64  `json:"at"`
	Size int64  `json:"size"`
}

// xorb is a bundle that has arrived and is not yet part of files.
type xorb struct {
	data   pending
	chunks []packedChunk
	placed []chunkAt // Size 0 for those that no file has used yet
}

type packedChunk struct {
	at     int64 // of the packed bytes in the bundle
	packed int
	size   int
	scheme byte
}

const (
	maxXorb  = 80 << 20 // 64 MiB by the specification
	maxShard = 80 << 20
)

// xetToken answers where to send content.
func (r *request) xetToken() error {
	r.s.mu.RLock()
	_, err := r.readable()
	r.s.mu.RUnlock()
	if err != nil {
		return err
	}
	instance, err := r.s.instance()
	if err != nil {
		return err
	}
	expires := r.s.now().Add(time.Hour).Unix()
	exp := strconv.FormatInt(expires, 10)
	token := "xet_" + exp + "_" + r.s.sign("XET", instance, exp)
	cas := r.base() + "/xet/" + instance
	h := r.w.Header()
	h.Set("X-Xet-Access-Token", token)
	h.Set("X-Xet-Token-Expiration", exp)
	h.Set("X-Xet-Cas-Url", cas)
	return r.answer(map[string]any{"accessToken": token, "exp": expires, "casUrl": cas})
}

// instance is the name that this Hub's storage has for good.
func (s *Server) instance() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, err := s.st.load("instance")
	if errors.Is(err, fs.ErrNotExist) {
		name = []byte(requestID()[len("Root="):])
		err = s.st.save("instance", name)
	}
	return string(name), err
}

// xet handles the addresses under /xet/.
func (r *request) xet(args []string) error {
	if len(args) < 3 {
		return fail(http.StatusNotFound, "", "no such page")
	}
	exp, sig, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer xet_"), "_")
	until, err := strconv.ParseInt(exp, 10, 64)
	if err != nil || !hmac.Equal([]byte(sig), []byte(r.s.sign("XET", args[0], exp))) || r.s.now().Unix() > until {
		return fail(http.StatusUnauthorized, "", "the Xet token is wrong or has expired")
	}
	switch r.Method + " " + strings.Join(args[1:min(len(args), 4)], "/") {
	case "POST v1/xorbs/default":
		if len(args) == 5 && sha256Hex.MatchString(args[4]) {
			return r.receiveXorb(args[4])
		}
	case "POST v1/shards":
		return r.receiveShard()
	}
	return fail(http.StatusNotFound, "", "not known here")
}

func xorbKey(hash string) string { return "xorbs/" + hash[:2] + "/" + hash + ".json" }

// receiveXorb keeps a bundle until the shard comes that says what it is for.
func (r *request) receiveXorb(hash string) error {
	if _, _, err := r.s.xorb(hash); err == nil {
		return r.answer(map[string]bool{"was_inserted": false})
	}
	p, err := r.s.st.createBlob()
	if err != nil {
		return err
	}
	x := &xorb{data: p}
	if _, err = io.Copy(p, http.MaxBytesReader(r.w, r.Body, maxXorb)); err == nil {
		err = x.index()
	}
	if err != nil {
		p.drop()
		return fail(http.StatusBadRequest, "", "reading the xorb: %v", err)
	}
	r.s.uploads.mu.Lock()
	defer r.s.uploads.mu.Unlock()
	if r.s.uploads.xorbs == nil {
		r.s.uploads.xorbs = map[string]*xorb{}
	}
	if _, raced := r.s.uploads.xorbs[hash]; raced {
		p.drop()
		return r.answer(map[string]bool{"was_inserted": false})
	}
	r.s.uploads.xorbs[hash] = x
	return r.answer(map[string]bool{"was_inserted": true})
}

// xorb finds a bundle: one that is waiting, or the record of where its chunks went.
func (s *Server) xorb(hash string) (*xorb, []chunkAt, error) {
	s.uploads.mu.Lock()
	x, waiting := s.uploads.xorbs[hash]
	s.uploads.mu.Unlock()
	if waiting {
		return x, nil, nil
	}
	data, err := s.st.load(xorbKey(hash))
	if err != nil {
		return nil, nil, err
	}
	var placed []chunkAt
	return nil, placed, json.Unmarshal(data, &placed)
}

// index finds the chunks of a bundle. Each has a header of 8 bytes: version 0,
// packed size in 3 bytes, scheme, size in 3 bytes. A footer may follow.
func (x *xorb) index() error {
	f, err := x.data.open()
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 256<<10)
	for at := int64(0); ; {
		h := make([]byte, 8)
		_, err := io.ReadFull(in, h)
		if errors.Is(err, io.EOF) || err == nil && h[0] != 0 {
			break
		}
		if err != nil {
			return err
		}
		c := packedChunk{at + 8, int(h[1]) | int(h[2])<<8 | int(h[3])<<16, int(h[5]) | int(h[6])<<8 | int(h[7])<<16, h[4]}
		if n, err := in.Discard(c.packed); err != nil {
			return fmt.Errorf("chunk %d breaks off after %d bytes", len(x.chunks), n)
		}
		if c.size == 0 {
			return errors.New("empty chunk")
		}
		at = c.at + int64(c.packed)
		x.chunks = append(x.chunks, c)
	}
	x.placed = make([]chunkAt, len(x.chunks))
	return nil
}

func (c packedChunk) read(f io.ReadSeeker) ([]byte, error) {
	if _, err := f.Seek(c.at, io.SeekStart); err != nil {
		return nil, err
	}
	data := make([]byte, c.packed)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	switch c.scheme {
	case 0:
		if len(data) != c.size {
			return nil, errors.New("chunk has another size than it says")
		}
		return data, nil
	case 1:
		return lz4Frame(data, c.size)
	case 2:
		data, err := lz4Frame(data, c.size)
		if err != nil {
			return nil, err
		}
		return ungroup(data), nil
	}
	return nil, fmt.Errorf("unknown compression %d", c.scheme)
}

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

// settle replaces a bundle by the record of where its chunks are. Those that no
// file has used are stored on their own: the client knows that it has sent them.
func (s *Server) settle(hash string) error {
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	x, waiting := s.uploads.xorbs[hash]
	if !waiting {
		return nil
	}
	f, err := x.data.open()
	if err != nil {
		return err
	}
	defer f.Close()
	var rest bytes.Buffer
	var unused []int
	for i, c := range x.placed {
		if c.Size > 0 {
			continue
		}
		data, err := x.chunks[i].read(f)
		if err != nil {
			return fail(http.StatusBadRequest, "", "chunk %d of xorb %s: %v", i, hash, err)
		}
		x.placed[i] = chunkAt{At: int64(rest.Len()), Size: int64(len(data))}
		unused = append(unused, i)
		rest.Write(data)
	}
	if len(unused) > 0 {
		b, err := store(s.st, &rest, "")
		if err != nil {
			return err
		}
		for _, i := range unused {
			x.placed[i].Blob = b.SHA256
		}
	}
	if err := s.saveJSON(xorbKey(hash), x.placed); err != nil {
		return err
	}
	delete(s.uploads.xorbs, hash)
	x.data.drop()
	return nil
}
