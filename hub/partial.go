package hub

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/hubtool/hubtool/internal/filelock"
	"github.com/hubtool/hubtool/internal/hashing"
)

var (
	sha1Hex   = regexp.MustCompile(`^[0-9a-f]{40}$`)
	sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// newHash is the hash that an ETag announces: SHA-256 for LFS content, git's blob
// id for the rest, which covers the size as well. nil means the ETag is neither.
func newHash(etag string, size int64) hash.Hash {
	switch {
	case sha256Hex.MatchString(etag):
		return hashing.NewSHA256()
	case sha1Hex.MatchString(etag) && size >= 0:
		h := hashing.NewSHA1()
		io.WriteString(h, "blob "+strconv.FormatInt(size, 10)+"\x00")
		return h
	}
	return nil
}

// partial is a file on its way in. It holds a prefix of the content, which is hashed
// as it grows, and of a large file some parts behind that, see rangemap.go. It is
// locked while a process works on it.
type partial struct {
	file *os.File
	path string
	etag string
	size int64 // -1 until the server has said
	pos  int64 // bytes written and hashed
	hash hash.Hash

	mapped bool      // there is a map behind the end, and maybe holes after pos
	ranges *rangeMap // that map, once this run has fetched by it
	begun  []*part   // what an earlier run's map says

	fetched int64       // bytes that came over the network
	told    time.Time   // when progress was last reported
	tell    func(State) // reports progress, and problem
	problem error       // why Retrying
}

var errTooLong = fmt.Errorf("%w: more bytes than announced", ErrDamaged)

func (p *partial) Write(b []byte) (int, error) {
	if p.size >= 0 && p.pos+int64(len(b)) > p.size {
		return 0, errTooLong
	}
	n, err := p.file.Write(b)
	if p.hash != nil {
		p.hash.Write(b[:n])
	}
	p.pos += int64(n)
	p.fetched += int64(n)
	p.tick()
	return n, err
}

// tick reports progress now and then.
func (p *partial) tick() {
	if now := time.Now(); now.Sub(p.told) >= 100*time.Millisecond {
		p.told = now
		p.tell(Running)
	}
}

// single gives up the parts behind the prefix, so that the file can grow at its end.
func (p *partial) single() error {
	if !p.mapped {
		return nil
	}
	p.mapped, p.ranges, p.begun = false, nil, nil
	if err := p.file.Truncate(p.pos); err != nil {
		return err
	}
	_, err := p.file.Seek(p.pos, io.SeekStart)
	return err
}

// restart empties the file.
func (p *partial) restart() error {
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	p.pos, p.hash = 0, newHash(p.etag, p.size)
	p.mapped, p.ranges, p.begun = false, nil, nil
	return err
}

// rehash hashes what the file holds already, and leaves it positioned at the end.
func (p *partial) rehash() error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	p.hash = newHash(p.etag, p.size)
	if p.size < 0 || p.hash == nil {
		return p.restart() // without a hash nothing would find a wrong prefix
	}
	complete := info.Size()
	if complete > p.size {
		var ok bool
		if complete, ok = p.loadRanges(complete); !ok {
			return p.restart()
		}
	}
	if complete > 0 {
		p.tell(Checking)
	}
	p.pos, err = io.Copy(p.hash, io.LimitReader(p.file, complete))
	return err
}

// verify compares the finished file with what its ETag announces.
func (p *partial) verify() error {
	if p.size >= 0 && p.pos != p.size {
		return fmt.Errorf("%w: %d bytes instead of %d", ErrDamaged, p.pos, p.size)
	}
	if p.hash == nil {
		return nil
	}
	if got := hex.EncodeToString(p.hash.Sum(nil)); got != p.etag {
		return fmt.Errorf("%w: its hash is %s, the Hub announced %s", ErrDamaged, got, p.etag)
	}
	return nil
}

// copyFrom fills p from a source on this machine, and discards it if that does not
// have the content.
func (p *partial) copyFrom(in io.Reader) error {
	p.hash = newHash(p.etag, p.size)
	_, err := io.Copy(p, in)
	switch {
	case err == nil:
		err = p.verify()
	case !isDiskError(err) && !errors.Is(err, ErrDamaged):
		err = fmt.Errorf("%w: %w", ErrDamaged, err) // the source breaks off
	}
	if err != nil {
		p.discard()
	}
	return err
}

// discard removes the file: nothing in it is worth resuming.
func (p *partial) discard() {
	p.file.Close()
	os.Remove(p.path)
}

// publish makes the verified file durable and gives it its final name.
func (p *partial) publish(rename func(from string) error) error {
	if err := p.single(); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	if err := errors.Join(p.file.Close(), rename(p.path)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(p.path))
}

// openPartial opens a file to fetch content into, named stem.<8 hex>.incomplete as
// Python's cache tools expect. It takes over the largest one that a dead process
// left, which the caller must make sure is only asked for under the content's
// lock. adoptable says whether locks exist at all here.
func openPartial(stem string, adoptable bool) (*partial, error) {
	fresh := stem + "." + randomName() + ".incomplete"
	if adoptable {
		if f := adopt(stem, fresh); f != nil {
			return &partial{file: f, path: fresh}, nil
		}
	}
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	if _, err := tryLock(f); err != nil && !errors.Is(err, filelock.ErrUnsupported) {
		f.Close()
		os.Remove(fresh)
		return nil, err
	}
	return &partial{file: f, path: fresh}, nil
}

// adopt takes over the largest abandoned file of stem and removes the others.
func adopt(stem, fresh string) *os.File {
	names, _ := filepath.Glob(globQuote(stem) + ".*incomplete") // with and without the hex digits
	var best *os.File
	var bestSize int64
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR|noFollow, 0)
		if err != nil {
			continue
		}
		info, err := f.Stat()
		ok, lockErr := tryLock(f)
		if err != nil || lockErr != nil || !ok || !info.Mode().IsRegular() || !locksWork(f) {
			f.Close()
			continue
		}
		loser := f
		if info.Size() > bestSize {
			loser, best, bestSize = best, f, info.Size()
		}
		if loser != nil {
			loser.Close()
			os.Remove(loser.Name())
		}
	}
	if best == nil {
		return nil
	}
	if err := os.Rename(best.Name(), fresh); err != nil {
		best.Close()
		return nil
	}
	return best
}

// globQuote makes a path literal for filepath.Glob.
func globQuote(path string) string {
	var b []byte
	for i := 0; i < len(path); i++ {
		if c := path[i]; c == '*' || c == '?' || c == '[' || c == '\\' && os.PathSeparator != '\\' {
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}
