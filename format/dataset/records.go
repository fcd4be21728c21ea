package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/hubtool/hubtool/internal/hashing"
)

// A record file holds the images of one parquet file back to back, so that any of them is one read away. It is
//
//	16 bytes  recordsMagic
//	          the images
//	4 bytes   length of each image, little-endian; 0xffffffff for a null
//	          note: what the images were unpacked from
//	4 bytes   length of the note
//	8 bytes   number of images
//	4 bytes   CRC-32C of all that follows the images
//
// and has a name derived from the parquet file's content.
const (
	recordsMagic   = "hubtool records2"
	recordsTrailer = 16
	nullRecord     = 1<<32 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// records is a store in a record file.
type records struct {
	spans
	file *os.File
}

func (r *records) Close() error { return r.file.Close() }

// recordsName names the record file of a column of a parquet file.
func recordsName(source *os.File, column string) (string, error) {
	content, err := hashing.Content(source)
	if err != nil {
		return "", err
	}
	return entryName(recordsKind, content, column), nil
}

// entryName names a cache entry by all that determines its content.
func entryName(kind string, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%s\n", p)
	}
	return hex.EncodeToString(h.Sum(nil)[:20]) + "." + kind
}

// openRecords reads the table of a record file, and checks that its parts agree.
func openRecords(file *os.File, rows int) (*records, error) {
	places, err := readRecordTable(file, rows)
	if err != nil {
		return nil, fileError(file.Name(), err)
	}
	return &records{spans{file, places}, file}, nil
}

// readTrailer reads the end of a record file: where its table begins, the number of images and the length of the note.
func readTrailer(file *os.File) (table, size int64, rows, note int, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, 0, 0, 0, err
	}
	size = info.Size()
	if size < int64(len(recordsMagic))+recordsTrailer {
		return 0, 0, 0, 0, damaged("too short for a file of records")
	}
	trailer := make([]byte, recordsTrailer)
	if _, err := file.ReadAt(trailer, size-recordsTrailer); err != nil {
		return 0, 0, 0, 0, err
	}
	n, length := binary.LittleEndian.Uint64(trailer[4:]), binary.LittleEndian.Uint32(trailer)
	table = size - recordsTrailer - int64(length) - 4*int64(min(n, 1<<32))
	if n > 1<<31 || table < int64(len(recordsMagic)) {
		return 0, 0, 0, 0, damaged("no room for %d records", n)
	}
	return table, size, int(n), int(length), nil
}

func readRecordTable(file *os.File, rows int) ([]span, error) {
	start, size, stored, note, err := readTrailer(file)
	if err != nil {
		return nil, err
	}
	magic, table := make([]byte, len(recordsMagic)), make([]byte, size-start)
	if _, err := file.ReadAt(magic, 0); err != nil {
		return nil, err
	}
	if _, err := file.ReadAt(table, start); err != nil {
		return nil, err
	}
	sum := len(table) - 4
	if string(magic) != recordsMagic || stored != rows || binary.LittleEndian.Uint32(table[sum:]) != crc32.Checksum(table[:sum], castagnoli) {
		return nil, damaged("not a file of %d records", rows)
	}
	places := make([]span, rows)
	offset := int64(len(recordsMagic))
	for i := range places {
		length := binary.LittleEndian.Uint32(table[i*4:])
		if length == nullRecord {
			places[i] = span{0, null}
			continue
		}
		places[i] = span{offset, int32(length)}
		offset += int64(length)
	}
	if offset != start {
		return nil, damaged("the records end at offset %d, their table with a note of %d bytes begins at %d", offset, note, start)
	}
	return places, nil
}

// recordsNote is what the images of a record file were unpacked from, "" where that cannot be read.
func recordsNote(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	_, size, _, length, err := readTrailer(file)
	note := make([]byte, min(length, 1<<12))
	if err == nil {
		_, err = file.ReadAt(note, size-recordsTrailer-int64(length))
	}
	if err != nil {
		return ""
	}
	return string(note)
}

// writeRecords writes a record file. Values come from each, which calls back once per row.
func writeRecords(file *os.File, note string, each func(visit func(value []byte) error) error) error {
	w := newRecordWriter(file)
	if err := each(w.add); err != nil {
		return err
	}
	return w.finish(note)
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

func (w *recordWriter) finish(note string) error {
	rows := len(w.lengths) / 4
	table := append(w.lengths, note...)
	table = binary.LittleEndian.AppendUint32(table, uint32(len(note)))
	table = binary.LittleEndian.AppendUint64(table, uint64(rows))
	table = binary.LittleEndian.AppendUint32(table, crc32.Checksum(table, castagnoli))
	w.pending.Write(table)
	return w.flush()
}
