package dataset_test

import (
	"bytes"
	"fmt"
	"image/png"
	"log"

	"github.com/hubtool/hubtool/format/dataset"
)

// A repository of parquet files: what is in it, a slice of a split and one row.
func Example() {
	d, err := dataset.Open("../../testdata/digits", dataset.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	fmt.Println(d.Splits(), d.ClassNames())

	rows, err := d.Select("train[:50%]")
	if err != nil {
		log.Fatal(err)
	}
	row, err := rows.At(0)
	if err != nil {
		log.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(row.Image))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(rows.Len(), row.Path, d.ClassNames()[row.Label], picture.Bounds().Size())
	// Output:
	// [{train 1437} {test 360}] [zero one two three four five six seven eight nine]
	// 718 1346.png three (8,8)
}

// The same division of the training rows as train_test_split(test_size=0.1, seed=42) gives in Python.
func ExampleRows_TrainTestSplit() {
	d, err := dataset.Open("testdata/single", dataset.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	rows, err := d.Select("train")
	if err != nil {
		log.Fatal(err)
	}
	train, test, err := rows.TrainTestSplit(0.3, 42)
	if err != nil {
		log.Fatal(err)
	}
	for i := range test.Len() {
		row, err := test.At(i)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row.Path, d.ClassNames()[row.Label])
	}
	fmt.Println(train.Len(), "left to train on")
	// Output:
	// yes/0.png yes
	// no/2.png no
	// 4 left to train on
}
