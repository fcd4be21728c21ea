package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// A record file holds the images of one parquet file back to back, so that any of them is one read away. It is
//
//	16 bytes  recordsMagic
//	          the images
//	4 bytes   length of each image, little-endian; 0xffffffff for a null
//	8 bytes   number of images
//	4 bytes   CRC-32C of lengths and number
//
// and has a name derived from the parquet file's content, so that it can neither be stale nor clash.
const (
	recordsMagic   = "hubtool records1"
	recordsTrailer = 12
	nullRecord     = 1<<32 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// records is a store in a record file.
type records struct {
	spans
	file *os.File
}

func (r *records) Close() error { return r.file.Close() }

// recordsPath names the record file of a column of a parquet file.
func recordsPath(cacheDir string, source *os.File, column string) (string, error) {
	content, err := contentHash(source)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256([]byte(content + "\n" + column))
	return filepath.Join(cacheDir, hex.EncodeToString(key[:20])+".records"), nil
}

var blobName = regexp.MustCompile(`\A[0-9a-f]{64}\z`)

// contentHash returns the SHA-256 of a file. A file of a Hub cache is a link to a blob that is named by it, which saves
// reading the file.
func contentHash(file *os.File) (string, error) {
	if target, err := os.Readlink(file.Name()); err == nil && blobName.MatchString(filepath.Base(target)) {
		return filepath.Base(target), nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(file, 0, 1<<63-1)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// openRecords opens a record file and checks that its parts agree; os.ErrNotExist where there is none.
func openRecords(path string, rows int) (*records, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	var places []span
	if err == nil {
		places, err = readRecordTable(file, info.Size(), rows)
	}
	if err != nil {
		file.Close()
		return nil, fileError(path, err)
	}
	return &records{spans{file, places}, file}, nil
}

func readRecordTable(file io.ReaderAt, size int64, rows int) ([]span, error) {
	tableSize := int64(rows)*4 + recordsTrailer
	if size < int64(len(recordsMagic))+tableSize {
		return nil, damaged("too short for %d records", rows)
	}
	magic := make([]byte, len(recordsMagic))
	if _, err := file.ReadAt(magic, 0); err != nil {
		return nil, err
	}
	table := make([]byte, tableSize)
	if _, err := file.ReadAt(table, size-tableSize); err != nil {
		return nil, err
	}
	lengths, trailer := table[:rows*4], table[rows*4:]
	if string(magic) != recordsMagic || binary.LittleEndian.Uint64(trailer) != uint64(rows) ||
		binary.LittleEndian.Uint32(trailer[8:]) != crc32.Checksum(table[:rows*4+8], castagnoli) {
		return nil, damaged("not a file of %d records", rows)
	}
	places := make([]span, rows)
	offset := int64(len(recordsMagic))
	for i := range places {
		length := binary.LittleEndian.Uint32(lengths[i*4:])
		if length == nullRecord {
			places[i] = span{0, null}
			continue
		}
		places[i] = span{offset, int32(length)}
		offset += int64(length)
	}
	if offset != size-tableSize {
		return nil, damaged("the records end at offset %d, their table begins at %d", offset, size-tableSize)
	}
	return places, nil
}

// writeRecords writes a record file under a temporary name and renames it when it is complete. Values come from each,
// which calls back once per row.
func writeRecords(path string, each func(visit func(value []byte) error) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	removeAbandoned(path)
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.partial")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		}
	}()
	w := newRecordWriter(file)
	if err := each(w.add); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// removeAbandoned removes what a killed process left behind; an hour without a write means that nobody is at it.
func removeAbandoned(path string) {
	partials, _ := filepath.Glob(path + ".*.partial")
	for _, p := range partials {
		if info, err := os.Stat(p); err == nil && time.Since(info.ModTime()) > time.Hour {
			os.Remove(p)
		}
	}
}

type recordWriter struct {
	file    *os.File
	pending bytes.Buffer
	lengths []byte
}

func newRecordWriter(file *os.File) *recordWriter {
	w := &recordWriter{file: file}
	w.pending.WriteString(recordsMagic)
	return w
}

const recordBuffer = 1 << 20

// add appends a value; nil is null.
func (w *recordWriter) add(value []byte) error {
	length := uint32(nullRecord)
	if value != nil {
		if len(value) > 1<<31-1 {
			return fmt.Errorf("%w: a value of %d bytes", ErrUnsupported, len(value))
		}
		length = uint32(len(value))
	}
	w.lengths = binary.LittleEndian.AppendUint32(w.lengths, length)
	w.pending.Write(value)
	if w.pending.Len() < recordBuffer {
		return nil
	}
	return w.flush()
}

func (w *recordWriter) flush() error {
	_, err := w.pending.WriteTo(w.file)
	return err
}

func (w *recordWriter) finish() error {
	table := binary.LittleEndian.AppendUint64(w.lengths, uint64(len(w.lengths)/4))
	table = binary.LittleEndian.AppendUint32(table, crc32.Checksum(table, castagnoli))
	w.pending.Write(table)
	return w.flush()
}
