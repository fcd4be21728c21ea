package train

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// EventFile is a log that TensorBoard reads, with the tags that transformers' TensorBoardCallback
// gives. There is no library for it in Go that is kept up; the format is small: records of
// TensorFlow, each an Event message.
type EventFile struct {
	f *os.File
}

// NewEventFile creates a log in a folder of its own in dir/runs, where TensorBoard tells runs apart.
func NewEventFile(dir string) (*EventFile, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	now := time.Now()
	dir = filepath.Join(dir, "runs", now.Format("Jan02_15-04-05_")+host)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("writing for TensorBoard: %w", err)
	}
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("events.out.tfevents.%d.%s.%d.0", now.Unix(), host, os.Getpid())))
	if err != nil {
		return nil, fmt.Errorf("writing for TensorBoard: %w", err)
	}
	e := &EventFile{f}
	return e, e.write(protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "brain.Event:2"))
}

// Add writes the numbers of a log entry.
func (e *EventFile) Add(entry *LogEntry) error {
	text, err := json.Marshal(entry) // for its names, which are transformers'
	if err != nil {
		return fmt.Errorf("writing for TensorBoard: %w", err)
	}
	scalars := map[string]float64{}
	if err := json.Unmarshal(text, &scalars); err != nil {
		return fmt.Errorf("writing for TensorBoard: %w", err)
	}
	delete(scalars, "step")
	var summary []byte
	for _, name := range slices.Sorted(maps.Keys(scalars)) {
		tag := "train/" + name
		if rest, ok := strings.CutPrefix(name, "eval_"); ok {
			tag = "eval/" + rest
		}
		value := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), tag)
		value = protowire.AppendFixed32(protowire.AppendTag(value, 2, protowire.Fixed32Type), math.Float32bits(float32(scalars[name])))
		summary = protowire.AppendBytes(protowire.AppendTag(summary, 1, protowire.BytesType), value)
	}
	event := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), uint64(entry.Step))
	return e.write(protowire.AppendBytes(protowire.AppendTag(event, 5, protowire.BytesType), summary))
}

// write appends one Event as a record: its length and data, each with a checksum. The time is now.
func (e *EventFile) write(event []byte) error {
	seconds := float64(time.Now().UnixMicro()) / 1e6
	event = protowire.AppendFixed64(protowire.AppendTag(event, 1, protowire.Fixed64Type), math.Float64bits(seconds))
	record := binary.LittleEndian.AppendUint64(nil, uint64(len(event)))
	record = binary.LittleEndian.AppendUint32(record, masked(record))
	record = append(record, event...)
	record = binary.LittleEndian.AppendUint32(record, masked(event))
	if _, err := e.f.Write(record); err != nil {
		return fmt.Errorf("writing for TensorBoard: %w", err)
	}
	return nil
}

// masked is TensorFlow's variant of CRC-32C, which may be stored beside what it is the checksum of.
func masked(data []byte) uint32 {
	crc := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return (crc>>15 | crc<<17) + 0xa282ead8
}

// Close closes the file.
func (e *EventFile) Close() error { return e.f.Close() }
