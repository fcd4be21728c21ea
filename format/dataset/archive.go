package dataset

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// archive is a zip file of images; members are read where they are, nothing is unpacked to disk.
type archive struct {
	name    string
	close   func() error
	members map[string]*zip.File
}

// maxMember bounds the memory that one member of an archive may claim: as much as the pixels of the largest image that
// Pillow reads.
const maxMember = 1 << 29

func openArchive(name string) (*archive, error) {
	z, err := zip.OpenReader(name)
	if err != nil {
		if errors.Is(err, zip.ErrFormat) {
			err = damaged("%w", err)
		}
		return nil, fileError(name, err)
	}
	return newArchive(name, &z.Reader, z.Close), nil
}

func newArchive(name string, z *zip.Reader, closeFile func() error) *archive {
	a := &archive{name: name, close: closeFile, members: map[string]*zip.File{}}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, "/") && !hiddenMember(f.Name) {
			a.members[f.Name] = f
		}
	}
	return a
}

// hiddenMember reports whether a part of the name begins with a dot or two underscores, such as __MACOSX.
func hiddenMember(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
		return strings.HasPrefix(part, ".") || strings.HasPrefix(part, "__")
	})
}

// part lists images and metadata in the order in which a directory walk meets them: the files of a folder, sorted, before
// its subfolders, sorted.
func (a *archive) part() folderPart {
	names := make([]string, 0, len(a.members))
	for name := range a.members {
		names = append(names, name)
	}
	slices.SortFunc(names, walkOrder)
	p := folderPart{source: a}
	for _, name := range names {
		switch {
		case isImage(name):
			p.images = append(p.images, name)
		case slices.Contains(metadataFiles, path.Base(name)):
			p.metadata = append(p.metadata, name)
		}
	}
	return p
}

func walkOrder(a, b string) int {
	for {
		nameA, restA, folderA := strings.Cut(a, "/")
		nameB, restB, folderB := strings.Cut(b, "/")
		switch {
		case folderA && !folderB:
			return 1
		case !folderA && folderB:
			return -1
		case nameA != nameB || !folderA:
			return strings.Compare(nameA, nameB)
		}
		a, b = restA, restB
	}
}

func (a *archive) path() string { return a.name }
func (a *archive) Close() error { return a.close() }

func (a *archive) read(name string) ([]byte, error) {
	f, ok := a.members[name]
	if !ok {
		return nil, fmt.Errorf("member %q: %w", name, fs.ErrNotExist)
	}
	if f.UncompressedSize64 > maxMember {
		return nil, damaged("member %q claims %d bytes", name, f.UncompressedSize64)
	}
	r, err := f.Open()
	if err != nil {
		return nil, memberError(name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, memberError(name, err)
	}
	return b, nil
}

func memberError(name string, err error) error {
	switch {
	case errors.Is(err, zip.ErrAlgorithm):
		return fmt.Errorf("%w: member %q: %w", ErrUnsupported, name, err)
	default:
		return damaged("member %q: %w", name, err)
	}
}
