package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hubtool/hubtool/internal/hashing"
)

// Fingerprint is a text that two selections share if their images and their order are the same: a hash of the content of
// Parquet files and archives and of the rows in them. Of images in folders it takes the names, sizes and times of the files
// instead of their content, which would take as long to read as the images themselves.
func (r *Rows) Fingerprint() (string, error) {
	if r.dataset.arrival != nil {
		return "", fmt.Errorf("%w, and so the content of its files is not known", ErrStreaming)
	}
	h := sha256.New()
	shards := map[uint32]bool{}
	for _, ref := range r.refs {
		if !shards[ref.shard] {
			shards[ref.shard] = true
			content, err := shardContent(r.dataset.dir, r.dataset.shards[ref.shard])
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "shard %d %s\n", ref.shard, content)
		}
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], ref.shard)
		binary.LittleEndian.PutUint32(b[4:], ref.row)
		h.Write(b[:])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func shardContent(dir string, s shard) (string, error) {
	h := sha256.New()
	for _, path := range filesOf(s) {
		if inFolder(s) {
			info, err := os.Stat(path)
			if err != nil {
				fmt.Fprintf(h, "%s missing\n", filepath.Base(path)) // reading the row says so
				continue
			}
			name, err := filepath.Rel(dir, path) // the folder may be called by another name, or have moved
			if err != nil {
				name = path
			}
			fmt.Fprintf(h, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		content, err := hashing.Content(file)
		file.Close()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s\n", content)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
