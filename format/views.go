package format

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/nlpodyssey/safetensors"
)

// maxLoadBytes bounds [Load]: adapters have megabytes, not gigabytes.
const maxLoadBytes = 4 << 30

// Load reads a whole small file, such as an adapter, into memory and closes
// it. The tensors are views of one buffer, in the order of the file. Use
// [Open] for what may be large.
func Load(path string) ([]Tensor, map[string]string, error) {
	raw, err := readCapped(path, maxLoadBytes)
	if err != nil {
		return nil, nil, err
	}
	tensors, meta, err := Decode(raw)
	return tensors, meta, at("reading", path, err)
}

// Decode is [Load] for bytes in memory. The tensors share raw.
func Decode(raw []byte) ([]Tensor, map[string]string, error) {
	views, h, err := decode(raw)
	if err != nil {
		return nil, nil, err
	}
	tensors := make([]Tensor, 0, views.Len())
	for _, e := range h.Entries() {
		view, _ := views.Tensor(e.Name)
		tensors = append(tensors, NewTensor(e.TensorInfo, view.Data()))
	}
	return tensors, h.Metadata(), nil
}

// Views is [Decode] for programs that speak github.com/nlpodyssey/safetensors.
// That package takes some malformed headers for good ones, so the header is
// validated by [ParseHeader] before it sees the bytes. It knows 13 of the 22
// element types; a file with another one is [ErrUnsupported].
func Views(raw []byte) (safetensors.SafeTensors, error) {
	views, _, err := decode(raw)
	return views, err
}

func decode(raw []byte) (safetensors.SafeTensors, *Header, error) {
	h, err := ReadHeader(bytes.NewReader(raw), int64(len(raw)), DefaultLimits)
	if err != nil {
		return safetensors.SafeTensors{}, nil, err
	}
	for _, e := range h.Entries() {
		if _, err := safetensors.ParseDType(e.DType.String()); err != nil {
			return safetensors.SafeTensors{}, nil, &Error{Tensor: e.Name, Kind: ErrUnsupported,
				Err: fmt.Errorf("dtype %s cannot be loaded whole; convert the file to F32, F16 or BF16", e.DType)}
		}
	}
	views, err := safetensors.Deserialize(raw)
	if err != nil {
		return safetensors.SafeTensors{}, nil, damaged("", "%w", err)
	}
	return views, h, nil
}

// FromView makes a tensor that [Write] accepts of one made with
// github.com/nlpodyssey/safetensors. Data is asked for when it is written.
func FromView(name string, v safetensors.View) (Tensor, error) {
	dtype, err := ParseDType(v.DType().String())
	if err != nil {
		return nil, &Error{Tensor: name, Kind: ErrUnsupported, Err: err}
	}
	shape := make([]int, len(v.Shape()))
	for i, d := range v.Shape() {
		if shape[i] = int(d); shape[i] < 0 || uint64(shape[i]) != d {
			return nil, &Error{Tensor: name, Kind: ErrUnsupported, Err: fmt.Errorf("dimension %d is too large", d)}
		}
	}
	return viewTensor{TensorInfo{Name: name, DType: dtype, Shape: shape}, v}, nil
}

type viewTensor struct {
	info TensorInfo
	view safetensors.View
}

func (t viewTensor) Info() TensorInfo {
	info := t.info
	info.Shape = slices.Clone(info.Shape)
	return info
}

func (t viewTensor) Bytes() ([]byte, error) { return NewTensor(t.info, t.view.Data()).Bytes() }
