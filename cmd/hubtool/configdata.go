package main

import (
	"errors"
	"fmt"
)

// DatasetConfig says which images are trained on and which are held out, and how they are read.
type DatasetConfig struct {
	Path         string   `yaml:"path" usage:"repository, or folder of Parquet files, images, tar archives or tables"`
	Name         string   `yaml:"name" usage:"configuration, if the data set has several"`
	TrainSplit   string   `yaml:"train_split" usage:"split to train on, such as train[:5000]"`
	EvalSplit    string   `yaml:"eval_split" usage:"split to evaluate on; replaces test_size"`
	TestSize     float64  `yaml:"test_size" usage:"share of the train split to hold out for evaluation, below 1, or a number of images"`
	ImageColumn  string   `yaml:"image_column" usage:"column with the images; default: the only one"`
	LabelColumn  string   `yaml:"label_column" usage:"column with the class; default: the only one"`
	Classes      []string `yaml:"classes" usage:"only images of these classes, numbered in this order; default: all"`
	Streaming    bool     `yaml:"streaming" usage:"begin to train while files of the data set still come; the order of the first epoch is then drawn from a moving window"`
	BufferSize   int      `yaml:"buffer_size" usage:"rows of that window, as of IterableDataset.shuffle"`
	SkipBroken   bool     `yaml:"skip_broken" usage:"leave damaged images out and count them; otherwise the first one ends the run"`
	EvalCache    Bytes    `yaml:"eval_cache" usage:"memory for prepared evaluation images, which later evaluations use again; 0: none"`
	FeatureCache Bytes    `yaml:"feature_cache" usage:"memory for features of training and of evaluation images each, computed once where the backbone is frozen; 0: none"`
	Prepared     int      `yaml:"prepared" usage:"keep training images on disk, decoded and made as small as so many pixels squared: faster, not the same pixels; 0: no"`
	CacheSize    Bytes    `yaml:"cache_size" usage:"disk for images made from data sets; what was used longest ago goes; 0: no bound"`
}

// defaultCacheSize holds the images of several data sets as large as Food-101.
const defaultCacheSize = 50e9

// problems checks the keys that have nothing to do with other sections.
func (d *DatasetConfig) problems() []string {
	var p []string
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			p = append(p, fmt.Sprintf(format, args...))
		}
	}
	was := defaultConfig().Dataset
	refuse(d.Path == "", "dataset.path is not set: name the data set, in the file or with --dataset")
	refuse(d.TrainSplit == "", "dataset.train_split is empty")
	refuse(d.TestSize < 0, "dataset.test_size is %v, but must be zero or more", d.TestSize)
	if d.EvalSplit != "" {
		refuse(d.TestSize != was.TestSize && d.TestSize != 0, "dataset.eval_split and dataset.test_size exclude each other")
		d.TestSize = 0
	}
	refuse(d.BufferSize < 1, "dataset.buffer_size is %d, but must be positive", d.BufferSize)
	refuse(d.BufferSize != was.BufferSize && !d.Streaming, "dataset.buffer_size does nothing: dataset.streaming is false")
	refuse(d.Streaming && len(d.Classes) > 0, "dataset.streaming and dataset.classes exclude each other: the labels of all rows must be known before")
	refuse(d.Prepared < 0 || d.Prepared > 4096, "dataset.prepared is %d, but must be a side of 1 to 4096 pixels, or 0", d.Prepared)
	refuse(d.Prepared > 0 && d.Streaming, "dataset.prepared and dataset.streaming exclude each other: files are found by the content of the whole data set")
	refuse(d.EvalCache != was.EvalCache && !d.evaluates(), "dataset.eval_cache does nothing: neither dataset.eval_split nor dataset.test_size gives images to evaluate on")
	return p
}

// evaluates tells whether there are images to evaluate on.
func (d *DatasetConfig) evaluates() bool { return d.EvalSplit != "" || d.TestSize != 0 }

// Bytes is a size in bytes, written as 5GB, 300MiB or 1000000.
type Bytes int64

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	*b = 0
	if string(text) == "0" {
		return nil
	}
	n, err := parseSize(string(text))
	if err != nil {
		return errors.New("a size such as 5GB, or 0")
	}
	*b = Bytes(n)
	return nil
}

// MarshalText writes a size so that it reads back as the same number.
func (b Bytes) MarshalText() ([]byte, error) {
	n, unit := int64(b), ""
	for _, u := range []string{"KB", "MB", "GB", "TB"} {
		if n == 0 || n%1000 != 0 {
			break
		}
		n, unit = n/1000, u
	}
	return fmt.Append(nil, n, unit), nil
}

func (b Bytes) String() string {
	text, _ := b.MarshalText()
	return string(text)
}
