package train

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// The checksum is that of the Python package tensorboard: masked_crc32c of its pywrap_tensorflow.
func TestMaskedChecksum(t *testing.T) {
	if got := masked([]byte("123456789")); got != 0xc78ab0e5 {
		t.Errorf("masked(123456789) = %#x", got)
	}
}

// Records are whole, and scalars have the tags of transformers.
func TestEventFile(t *testing.T) {
	dir := t.TempDir()
	f, err := NewEventFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	loss, accuracy := 0.5, 0.75
	for _, e := range []*LogEntry{{Epoch: 1, Step: 10, Loss: &loss}, {Epoch: 2, Step: 20, EvalAccuracy: &accuracy}} {
		if err := f.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "runs", "*", "events.out.tfevents.*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float32{}
	for len(data) > 0 {
		n := binary.LittleEndian.Uint64(data)
		event := data[12 : 12+n]
		if binary.LittleEndian.Uint32(data[8:]) != masked(data[:8]) || binary.LittleEndian.Uint32(data[12+n:]) != masked(event) {
			t.Fatal("a checksum is wrong")
		}
		data = data[16+n:]
		each(t, event, func(field protowire.Number, summary []byte) {
			if field != 5 {
				return
			}
			each(t, summary, func(_ protowire.Number, value []byte) {
				tag := ""
				each(t, value, func(field protowire.Number, v []byte) {
					if field == 1 {
						tag = string(v)
					} else {
						got[tag] = math.Float32frombits(binary.LittleEndian.Uint32(v))
					}
				})
			})
		})
	}
	want := map[string]float32{"train/loss": 0.5, "eval/accuracy": 0.75, "train/epoch": 2}
	for tag, v := range want {
		if got[tag] != v || len(got) != len(want) {
			t.Errorf("scalars are %v, want %v", got, want)
		}
	}
}

// each visits a message's fields.
func each(t *testing.T, message []byte, visit func(protowire.Number, []byte)) {
	t.Helper()
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		size := protowire.ConsumeFieldValue(field, kind, message[max(0, n):])
		if n < 0 || size < 0 {
			t.Fatal("a message is malformed")
		}
		value := message[n : n+size]
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
		}
		visit(field, value)
		message = message[n+size:]
	}
}
