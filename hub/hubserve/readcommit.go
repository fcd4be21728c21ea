package hubserve

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// readCommit reads a commit's lines. Content goes to the storage as it comes, so a
// line may be of any length.
func (s *Server) readCommit(body io.Reader) (header, []operation, error) {
	var h header
	var ops []operation
	in := bufio.NewReaderSize(body, 64<<10)
	for n := 0; ; n++ {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			if n == 0 {
				return h, nil, fail(http.StatusBadRequest, "", "the commit is empty")
			}
			return h, ops, nil
		}
		line, content, err := s.readLine(in)
		if err != nil {
			return h, nil, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var l struct {
			Key   string `json:"key"`
			Value struct {
				header
				Path     string `json:"path"`
				Encoding string `json:"encoding"`
				OID      string `json:"oid"`
				Size     *int64 `json:"size"`
				Content  string `json:"content"`
			} `json:"value"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return h, nil, fail(http.StatusBadRequest, "", "line %d of the commit is malformed: %v", n+1, err)
		}
		op := operation{key: l.Key, path: strings.TrimSuffix(l.Value.Path, "/")}
		if l.Key == "header" {
			h = l.Value.header
			continue
		}
		if err := checkPath(op.path); err != nil {
			return h, nil, err
		}
		switch l.Key {
		case "file":
			if content == nil {
				b, err := s.storeSmall(l.Value.Content, l.Value.Encoding)
				if err != nil {
					return h, nil, err
				}
				content = &b
			}
			op.blob = *content
		case "lfsFile":
			size, ok := s.blobSize(l.Value.OID)
			if !ok || l.Value.Size != nil && *l.Value.Size != size {
				return h, nil, fail(http.StatusBadRequest, "", "the LFS object of %q has not been uploaded: %s", op.path, l.Value.OID)
			}
			op.blob = blob{SHA256: l.Value.OID, Size: size}
		case "deletedFile", "deletedFolder":
		default:
			return h, nil, fail(http.StatusBadRequest, "", "unknown operation %q in the commit", l.Key)
		}
		ops = append(ops, op)
	}
}

func (s *Server) storeSmall(content, encoding string) (blob, error) {
	data := []byte(content)
	if encoding == "base64" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(content); err != nil {
			return blob{}, fail(http.StatusBadRequest, "", "malformed base64 content")
		}
	}
	b, err := store(s.st, bytes.NewReader(data), "")
	if err == nil {
		b.Git, err = gitID(b.Size, bytes.NewReader(data))
	}
	return b, err
}

var contentKey = []byte(`"content":`)

// readLine reads one line. If it has base64 content, that is stored, and left out
// of the line that is returned.
func (s *Server) readLine(in *bufio.Reader) ([]byte, *blob, error) {
	// Peek gives less at the end of the body; that is not an error yet.
	start, _ := in.Peek(in.Size())
	if i := bytes.IndexByte(start, '\n'); i >= 0 {
		line := bytes.Clone(start[:i])
		in.Discard(i + 1)
		return line, nil, nil // short enough to be decoded as a whole
	}
	at := bytes.Index(start, contentKey)
	if at < 0 {
		if len(start) < in.Size() { // the last line, without its newline
			line := bytes.Clone(start)
			in.Discard(len(start))
			return line, nil, nil
		}
		return nil, nil, fail(http.StatusRequestEntityTooLarge, "", "a line of the commit is too long")
	}
	quote := bytes.IndexByte(start[at+len(contentKey):], '"')
	if quote < 0 {
		return nil, nil, fail(http.StatusBadRequest, "", "malformed content in the commit")
	}
	end := at + len(contentKey) + quote + 1
	line := bytes.Clone(start[:end])
	in.Discard(end)

	text := &untilQuote{in: in}
	b, err := store(s.st, base64.NewDecoder(base64.StdEncoding, text), "")
	if err != nil {
		return nil, nil, fail(http.StatusBadRequest, "", "reading content in the commit: %v", err)
	}
	if !text.done {
		return nil, nil, fail(http.StatusBadRequest, "", "content in the commit does not end")
	}
	if b.Git, err = blobGitID(s.st, b); err != nil {
		return nil, nil, err
	}
	rest, err := in.ReadSlice('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("reading the commit: %w", err)
	}
	return append(append(line, '"'), rest...), &b, nil
}

// untilQuote reads up to a JSON string's closing quote and consumes that. Base64
// has no escapes, so the first quote is it.
type untilQuote struct {
	in   *bufio.Reader
	done bool
}

func (u *untilQuote) Read(p []byte) (int, error) {
	if u.done {
		return 0, io.EOF
	}
	if _, err := u.in.Peek(1); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	chunk, _ := u.in.Peek(min(u.in.Buffered(), len(p)))
	if i := bytes.IndexByte(chunk, '"'); i >= 0 {
		n := copy(p, chunk[:i])
		u.in.Discard(i + 1)
		u.done = true
		return n, nil
	}
	n := copy(p, chunk)
	u.in.Discard(n)
	return n, nil
}
