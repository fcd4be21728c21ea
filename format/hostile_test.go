package format_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"github.com/hubtool/hubtool/format"
)

// hostile says of every file in testdata/hostile what its error must contain;
// an empty string means that the file is sound and must be read.
var hostile = map[string]string{
	// the frame
	"empty-file":         "0 bytes are too few",
	"seven-bytes":        "7 bytes are too few",
	"length-zero":        "does not begin with '{'",
	"length-2-63":        "header length 9223372036854775808 exceeds the limit",
	"length-max":         "header length 18446744073709551615 exceeds the limit",
	"length-over-100MB":  "header length 100000001 exceeds the limit of 100000000",
	"length-beyond-file": "header length 3 exceeds the file size 10",
	"pickle":             "is this a safetensors file?",
	"zip":                "header length 67324752 exceeds the file size",
	"git-lfs-pointer":    "run git lfs pull",
	// the text
	"json-null":                 "does not begin with '{'",
	"json-array":                "does not begin with '{'",
	"json-string":               "does not begin with '{'",
	"byte-order-mark":           "does not begin with '{'",
	"leading-space":             "does not begin with '{'",
	"leading-newline":           "does not begin with '{'",
	"padded-with-nul":           "only spaces may pad it",
	"padded-with-tab":           "only spaces may pad it",
	"padded-with-newline":       "only spaces may pad it",
	"two-values":                "only spaces may pad it",
	"unterminated-object":       "found the end",
	"unterminated-string":       "unterminated string",
	"trailing-comma":            `expected '"'`,
	"comment":                   `expected '"'`,
	"single-quotes":             `expected '"'`,
	"control-character-in-name": "control character",
	"deep-nesting":              `tensor "a": expected '{'`,
	"invalid-utf8-name":         "not valid UTF-8",
	"invalid-utf8-twins":        "not valid UTF-8",
	"overlong-utf8":             "not valid UTF-8",
	"lone-high-surrogate":       "lone surrogate",
	"lone-low-surrogate":        "lone surrogate",
	"reversed-surrogates":       "lone surrogate",
	"bad-escape":                `unknown escape \x`,
	"short-unicode-escape":      `bad \u escape`,
	// one entry
	"entry-not-object":         `tensor "a": expected '{'`,
	"entry-null":               `tensor "a": expected '{'`,
	"missing-dtype":            `tensor "a": missing field "dtype"`,
	"missing-shape":            `tensor "a": missing field "shape"`,
	"missing-offsets":          `tensor "a": missing field "data_offsets"`,
	"extra-field":              `tensor "a": unknown field "x"`,
	"dtype-twice":              `tensor "a": duplicate field "dtype"`,
	"shape-twice":              `tensor "a": duplicate field "shape"`,
	"offsets-twice":            `tensor "a": duplicate field "data_offsets"`,
	"unknown-dtype":            `tensor "a": unknown dtype "X9"`,
	"lower-case-dtype":         `tensor "a": unknown dtype "u8"`,
	"dtype-number":             `tensor "a": expected '"'`,
	"shape-null":               `tensor "a": expected '['`,
	"shape-string":             "expected a whole number",
	"negative-dimension":       "expected a whole number",
	"minus-zero-dimension":     "expected a whole number",
	"fraction-dimension":       "found a fraction or exponent",
	"exponent-dimension":       "found a fraction or exponent",
	"leading-zero-dimension":   "expected a whole number",
	"dimension-2-64":           "number 18446744073709551616 is too large",
	"product-overflow-to-zero": "no valid size",
	"product-overflow-to-one":  "no valid size",
	"bytes-overflow":           "no valid size",
	"sub-byte-remainder":       "no valid size",
	"one-offset":               "data_offsets has 1 numbers, not two",
	"three-offsets":            "data_offsets has more than two numbers",
	"negative-offset":          "expected a whole number",
	"end-before-begin":         "data ends at 0 before it begins at 1",
	"size-too-small":           "needs 8 bytes, header gives it 4",
	"size-too-large":           "needs 1 bytes, header gives it 4",
	// several entries
	"hole-at-start":           "leaves a hole from 0",
	"hole-in-the-middle":      `tensor "b": data at [2, 3) leaves a hole from 1`,
	"hole-at-end":             "header describes 1 bytes of data, file has 2",
	"overlap":                 `tensor "b": data at [1, 3) overlaps`,
	"same-range-twice":        `tensor "b": data at [0, 2) overlaps`,
	"data-truncated":          "header describes 2 bytes of data, file has 1",
	"data-without-tensors":    "header describes 0 bytes of data, file has 1",
	"same-name-twice":         `tensor "a": defined twice`,
	"same-name-twice-escaped": `tensor "a": defined twice`,
	"same-name-twice-empty":   `tensor "a": defined twice`,
	// metadata
	"metadata-twice":     `duplicate "__metadata__"`,
	"metadata-key-twice": `duplicate metadata key "a"`,
	"metadata-null":      "expected '{'",
	"metadata-number":    `expected '"'`,
	"metadata-is-tensor": `expected '"'`,
	// sound
	"ok-empty":             "",
	"ok-spaces":            "",
	"ok-unaligned-header":  "",
	"ok-misaligned-tensor": "",
	"ok-inner-whitespace":  "",
	"ok-any-order":         "",
	"ok-empty-name":        "",
	"ok-escaped-name":      "",
	"ok-scalar":            "",
	"ok-zero-size":         "",
	"ok-zero-times-huge":   "",
	"ok-sub-byte":          "",
}

// stricter lists what the reference implementation reads and we refuse: the
// format forbids it or two parsers may see two files.
var stricter = map[string]bool{
	"leading-space": true, "leading-newline": true, "padded-with-tab": true, "padded-with-newline": true,
	"extra-field": true, "same-name-twice-empty": true, "metadata-key-twice": true, "metadata-null": true,
}

func TestHostileFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/hostile/*.safetensors")
	if err != nil || len(files) != len(hostile) {
		t.Fatalf("%d files, %d expectations, %v", len(files), len(hostile), err)
	}
	var rust map[string]string
	text, err := os.ReadFile("testdata/rust.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &rust); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".safetensors")
		t.Run(name, func(t *testing.T) {
			want, listed := hostile[name]
			if !listed {
				t.Fatal("no expectation")
			}
			ck, err := format.Open(file)
			if err == nil {
				ck.Close()
			}
			if accepted := rust[name] == "accepted"; accepted != (want == "" || stricter[name]) {
				t.Errorf("the reference implementation says %q", rust[name])
			}
			if want == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v, want one with %q", err, want)
			}
			if !strings.Contains(err.Error(), file) {
				t.Errorf("error %v does not name the file", err)
			}
			kind := format.ErrDamaged
			if strings.Contains(want, "unknown dtype") {
				kind = format.ErrUnsupported
			}
			if !errors.Is(err, kind) {
				t.Errorf("error %v is not %v", err, kind)
			}
			if _, _, err := format.Load(file); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Load: error %v, want one with %q", err, want)
			}
		})
	}
}

// The port we load adapters with is laxer in the ways of spec r2 to r9. This
// test says so aloud: should it become strict, the wrapper may become thinner.
func TestPortIsLaxer(t *testing.T) {
	for _, name := range []string{"json-null", "invalid-utf8-twins", "lone-high-surrogate", "dtype-twice",
		"metadata-twice", "same-name-twice-empty", "metadata-key-twice", "leading-space", "padded-with-tab"} {
		raw, err := os.ReadFile("testdata/hostile/" + name + ".safetensors")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := safetensors.Deserialize(raw); err != nil {
			t.Errorf("%s: the port now refuses: %v", name, err)
		}
		if _, err := format.Views(raw); !errors.Is(err, format.ErrDamaged) {
			t.Errorf("%s: Views accepts, error %v", name, err)
		}
	}
}
