package hub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"
)

// The listing of a commit never changes, so Python keeps it in
// trees/<commit>.json; so do we. It saves the paginated request and tells offline
// whether a snapshot is complete.
type treeFile struct {
	Version int                      `json:"format_version"`
	Files   map[string]treeFileEntry `json:"files"`
}

type treeFileEntry struct {
	Size      int64  `json:"size"`
	BlobID    string `json:"blob_id"`
	LFSSHA256 string `json:"lfs_sha256,omitempty"`
	LFSSize   *int64 `json:"lfs_size,omitempty"`
	XetHash   string `json:"xet_hash,omitempty"`
}

func treePath(dir, commit string) string { return filepath.Join(dir, "trees", commit+".json") }

// readTree gives a commit's listing sorted by name. A file in a newer or broken
// format counts as absent.
func readTree(dir, commit string) ([]File, bool) {
	text, err := os.ReadFile(treePath(dir, commit))
	if err != nil {
		return nil, false
	}
	var t treeFile
	if json.Unmarshal(text, &t) != nil || t.Version != 1 || t.Files == nil {
		return nil, false
	}
	files := make([]File, 0, len(t.Files))
	for path, e := range t.Files {
		f := File{Path: path, Size: e.Size, BlobID: e.BlobID, SHA256: e.LFSSHA256, XetHash: e.XetHash}
		if e.LFSSize != nil {
			f.Size = *e.LFSSize
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, true
}

// writeTree saves a listing exactly as Python's json.dump(indent=1) would.
func writeTree(dir, commit string, files []File) error {
	t := treeFile{Version: 1, Files: make(map[string]treeFileEntry, len(files))}
	for _, f := range files {
		e := treeFileEntry{Size: f.Size, BlobID: f.BlobID, LFSSHA256: f.SHA256, XetHash: f.XetHash}
		if f.SHA256 != "" {
			e.LFSSize = &f.Size
		}
		t.Files[f.Path] = e
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(t); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "trees"), 0o777); err != nil {
		return err
	}
	return writeAtomic(treePath(dir, commit), escapeNonASCII(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), 0o600)
}

// escapeNonASCII writes JSON's strings with \u escapes, as Python's json does by
// default.
func escapeNonASCII(text []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}
