package hubserve

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

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
