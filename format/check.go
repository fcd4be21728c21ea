package format

import (
	"encoding/hex"
	"hash"
	"sync"
)

// A HashedSource announces what its content is. [Rewrite] reads most files from beginning to end, and
// compares then.
type HashedSource interface {
	Source

	// Hash returns a new hash, and in hexadecimal digits what it gives for the content; nil if there
	// is none.
	Hash() (h hash.Hash, want string)
}

// A shardFile is an open file of a checkpoint, which it hashes while others read it.
type shardFile struct {
	Source

	mu   sync.Mutex
	hash hash.Hash // nil: nothing was announced, or it has been compared
	want string
	next int64 // up to where it is hashed
	used bool  // more than its header was read
}

// Ranges of at most a twentieth of a file, or of a MB, may be read for its hash alone: tensors that an
// adapter replaces.
const (
	gapShare = 20
	gapBytes = 1 << 20
)

func newShardFile(src Source) *shardFile {
	f := &shardFile{Source: src}
	if hashed, ok := src.(HashedSource); ok {
		f.hash, f.want = hashed.Hash()
	}
	return f
}

// check takes note of data that was read at an offset. It fails if with it the whole file has been
// read, and is another one.
func (f *shardFile) check(data []byte, offset int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used = f.used || offset > 0
	if f.hash == nil || offset+int64(len(data)) <= f.next || !f.skip(offset) || offset != f.next {
		return nil
	}
	f.hash.Write(data)
	f.next += int64(len(data))
	return f.compare()
}

// checkEnd reads what nobody wanted of the end of the file.
func (f *shardFile) checkEnd() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hash == nil || !f.skip(f.Size()) {
		return nil
	}
	return f.compare()
}

// skip hashes up to an offset, if that is not far.
func (f *shardFile) skip(offset int64) bool {
	gap := offset - f.next
	if gap <= 0 || gap > max(f.Size()/gapShare, gapBytes) {
		return gap == 0
	}
	data := make([]byte, gap)
	if readFull(f.Source, data, f.next) != nil {
		return false // who needs it will see
	}
	f.hash.Write(data)
	f.next = offset
	return true
}

func (f *shardFile) compare() error {
	if f.next < f.Size() {
		return nil
	}
	got := hex.EncodeToString(f.hash.Sum(nil))
	f.hash = nil
	if got != f.want {
		return damaged("", "the content has the hash %s, not %s as announced", got, f.want)
	}
	return nil
}

func (f *shardFile) unchecked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used && f.hash != nil
}
