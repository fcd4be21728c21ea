package dataset

import (
	"bytes"
	"testing"
)

const digits = "../../testdata/digits"

func TestDigits(t *testing.T) {
	d, err := Open(digits, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rows, err := d.Select("train[:10%]+test")
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows.Len() {
		row, err := rows.At(i)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(row.Image, []byte("\x89PNG")) {
			t.Fatalf("row %d is no PNG", i)
		}
	}
	t.Log(d.Splits(), d.ClassNames(), rows.Len())
	train, test, err := rows.TrainTestSplit(0.1, 42)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(train.Len(), test.Len(), test.refs[:10])
}
