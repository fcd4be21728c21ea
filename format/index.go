package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxIndexBytes bounds an index; that of a model with 100,000 tensors has 10 MB.
const maxIndexBytes = 64 << 20

// An Index says which shard of a checkpoint holds which tensor.
type Index struct {
	TotalSize int64             // bytes of tensor data, 0 if the file does not say
	WeightMap map[string]string // tensor → base name of its shard

	metadata map[string]json.RawMessage
}

// ReadIndex reads a model.safetensors.index.json.
func ReadIndex(path string) (*Index, error) {
	raw, err := readCapped(path, maxIndexBytes)
	if err != nil {
		return nil, err
	}
	ix, err := ParseIndex(raw)
	return ix, at("reading", path, err)
}

// ParseIndex validates the text of an index. Shards must be plain names of
// files beside it: nothing in an index may lead out of its directory.
func ParseIndex(raw []byte) (*Index, error) {
	ix := &Index{WeightMap: map[string]string{}}
	s, err := newScanner(raw)
	if err != nil {
		return nil, damaged("", "%w", err)
	}
	seen := map[string]bool{}
	names := map[string]string{} // one copy of every shard name
	err = s.object(func(key string) error {
		if seen[key] {
			return fmt.Errorf("duplicate key %q", key)
		}
		seen[key] = true
		switch key {
		case "metadata":
			text, err := s.value()
			if err != nil {
				return err
			}
			return ix.readMetadata(text)
		case "weight_map":
			return s.object(func(tensor string) error {
				if _, dup := ix.WeightMap[tensor]; dup {
					return damaged(tensor, "listed twice in the index")
				}
				shard, err := s.str()
				if err != nil {
					return err
				}
				if _, known := names[shard]; !known {
					if err := checkShardName(shard); err != nil {
						return damaged(tensor, "%w", err)
					}
					names[shard] = shard
				}
				ix.WeightMap[tensor] = names[shard]
				return nil
			})
		}
		_, err := s.value()
		return err
	})
	if err == nil {
		err = s.end()
	}
	if err == nil && !seen["weight_map"] {
		err = errors.New(`missing "weight_map"`)
	}
	if err != nil {
		return nil, inTensor("", err)
	}
	return ix, nil
}

func (ix *Index) readMetadata(text []byte) error {
	if err := json.Unmarshal(text, &ix.metadata); err != nil {
		return errors.New(`"metadata" is not an object`)
	}
	if raw, ok := ix.metadata["total_size"]; ok {
		// Some writers put a float here; the number only serves a warning.
		var total float64
		if err := json.Unmarshal(raw, &total); err != nil || total < 0 || total >= 1<<63 {
			return fmt.Errorf(`"total_size" is %.20s, not a size`, raw)
		}
		ix.TotalSize = int64(total)
	}
	return nil
}

func (ix *Index) shardSet() map[string]bool {
	set := map[string]bool{}
	for _, shard := range ix.WeightMap {
		set[shard] = true
	}
	return set
}

// MarshalJSON writes the index as transformers does, fields of "metadata" that
// were read along with it included.
func (ix *Index) MarshalJSON() ([]byte, error) {
	meta := map[string]json.RawMessage{}
	for k, v := range ix.metadata {
		meta[k] = v
	}
	meta["total_size"] = fmt.Append(nil, ix.TotalSize)
	raw, err := json.Marshal(map[string]any{"metadata": meta, "weight_map": ix.WeightMap})
	if err != nil {
		return nil, err
	}
	return pythonJSON(raw)
}

// Write writes the index to path, ending in a newline as transformers' does.
func (ix *Index) Write(path string) error {
	text, err := ix.MarshalJSON()
	if err != nil {
		return at("writing", path, err)
	}
	return WriteFileAtomic(path, append(text, '\n'))
}

// checkShardName accepts the base name of a safetensors file and nothing that
// any system would take for a path, a drive or a stream.
func checkShardName(name string) error {
	switch {
	case !strings.HasSuffix(name, ".safetensors"):
		return fmt.Errorf("shard %q is not a .safetensors file", name)
	case strings.ContainsAny(name, "/\\:\x00") || strings.HasPrefix(name, "."):
		return fmt.Errorf("shard %q is not a plain file name", name)
	}
	return nil
}

// readCapped reads a side file of at most limit bytes.
func readCapped(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, at("reading", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Op: "reading", Path: path, Kind: ErrUnsupported, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, at("reading", path, err)
	}
	defer f.Close()
	raw := bytes.NewBuffer(make([]byte, 0, min(info.Size(), limit)+bytes.MinRead))
	if _, err := raw.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, at("reading", path, err)
	}
	if int64(raw.Len()) > limit {
		return nil, at("reading", path, damaged("", "larger than %d bytes", limit))
	}
	return raw.Bytes(), nil
}
