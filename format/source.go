package format

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// A Source is a file that is read in place, wherever it lies. Its methods may be called concurrently.
type Source interface {
	io.ReaderAt
	io.Closer

	Size() int64 // in bytes

	// Version changes when the content does.
	Version() string

	// Unchanged fails if the content is not, or may not be, that of Version any more.
	Unchanged() error
}

// A Folder is where the files of a checkpoint lie together: a repository, for example.
type Folder struct {
	Path  string   // or what else names it to people
	Names []string // of its files

	// Open opens one of the files. An error has to say no more than what was wrong.
	Open func(name string) (Source, error)
}

// OpenFolder is [Open] for a checkpoint that is no file or directory of this machine: it reads an
// index, if there is one, and headers, within [RemoteLimits]. The file is the one to begin with; if it
// is "" the names decide, as [Open] has it.
func OpenFolder(f Folder, file string) (*Checkpoint, error) {
	if file == "" {
		i := slices.IndexFunc(weightFiles, func(name string) bool { return slices.Contains(f.Names, name) })
		if i < 0 {
			return nil, noWeights(f.Path, f.Names)
		}
		file = weightFiles[i]
	}
	return openFrom(f, file, f.Path, RemoteLimits)
}

// file names a file of the folder to people, and to the system where the folder is a directory.
func (f Folder) file(name string) string {
	if n := len(f.Path); n == 0 || os.IsPathSeparator(f.Path[n-1]) {
		return f.Path + name
	}
	return f.Path + "/" + name
}

func (f Folder) readIndex(name string) (*Index, error) {
	src, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if src.Size() > maxIndexBytes {
		return nil, damaged("", "larger than %d bytes", maxIndexBytes)
	}
	raw := make([]byte, src.Size())
	if err := readFull(src, raw, 0); err != nil {
		return nil, err
	}
	return ParseIndex(raw)
}

// A diskFile is an open file, and what it was when it was opened.
type diskFile struct {
	*os.File
	opened os.FileInfo
}

// OpenDisk opens a file of this machine as a Source.
func OpenDisk(path string) (Source, error) {
	// Asking before opening: opening a named pipe would block.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Kind: ErrUnsupported, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &diskFile{f, opened}, nil
}

func openDisk(dir string) func(name string) (Source, error) {
	return func(name string) (Source, error) { return OpenDisk(filepath.Join(dir, name)) }
}

func (f *diskFile) Size() int64 { return f.opened.Size() }

func (f *diskFile) Version() string {
	return fmt.Sprint(f.opened.Size(), " ", f.opened.ModTime().UnixNano())
}

func (f *diskFile) Unchanged() error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if now.Size() != f.opened.Size() || !now.ModTime().Equal(f.opened.ModTime()) {
		return fmt.Errorf("%q changed while it was read", f.Name())
	}
	return nil
}
