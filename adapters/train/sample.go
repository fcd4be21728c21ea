package train

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/hubtool/hubtool/format/dataset"
	"github.com/hubtool/hubtool/model/vision"
)

// sample is a prepared image.
type sample struct {
	pixels []byte
	label  int32
}

// firstMix is the generator that mixes batch 0; those of others count down. From 0 up they are for images, and -1 is for
// the order.
const firstMix = -2

// isBroken tells a damaged or missing sample from a disk that fails.
func isBroken(err error) bool {
	return errors.Is(err, dataset.ErrDamaged) || errors.Is(err, fs.ErrNotExist)
}

func (l *Loader) noteBroken(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = map[int]error{}
	}
	l.broken[i] = err
}

// Broken lists what was wrong with the samples that SkipBroken left out so far, each once, in the
// order of the source.
func (l *Loader) Broken() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []error
	for _, i := range slices.Sorted(maps.Keys(l.broken)) {
		list = append(list, l.broken[i])
	}
	return list
}

// prepareKept makes room for as many images as Keep allows.
func (l *Loader) prepareKept(image int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept == nil {
		l.kept = make([]atomic.Pointer[sample], min(int64(l.Source.Len()), l.Keep/int64(image)))
	}
}

// sample prepares image i of the source, or takes it from those that are kept.
func (l *Loader) sample(epoch, i int, pixels []byte) (label int32, err error) {
	keep := epoch == 0 && i < len(l.kept)
	if keep {
		if s := l.kept[i].Load(); s != nil {
			copy(pixels, s.pixels)
			return s.label, nil
		}
	}
	rng := vision.Rand(l.Seed, epoch, i)
	if l.Prepared != nil {
		return l.samplePrepared(i, rng, pixels)
	}
	row, err := l.Source.At(i)
	if err != nil {
		return 0, err
	}
	img, err := l.Pipeline.Load(row.Image, rng)
	if err != nil {
		return 0, l.damaged(i, row, err)
	}
	if err := l.checkLabel(row.Label); err != nil {
		return 0, l.damaged(i, row, err)
	}
	copy(pixels, img.Pix)
	if keep {
		l.kept[i].Store(&sample{img.Pix, int32(row.Label)})
	}
	return int32(row.Label), nil
}

func (l *Loader) checkLabel(label int) error {
	if label < 0 {
		return errors.New("it has no label")
	}
	if label >= l.Classes {
		return fmt.Errorf("its label is %d, but there are %d classes", label, l.Classes)
	}
	return nil
}

// damaged says where a sample lies that cannot be used: the row of a file, and the name of the image
// where it has one.
func (l *Loader) damaged(i int, row dataset.Row, err error) error {
	if row.Path != "" {
		err = fmt.Errorf("image %q: %w", row.Path, err)
	}
	err = fmt.Errorf("%w: %w", dataset.ErrDamaged, err)
	if s, ok := l.Source.(interface{ Where(i int) (string, int) }); ok {
		path, at := s.Where(i)
		return &dataset.Error{Path: path, Row: at, Err: err}
	}
	return fmt.Errorf("preparing image %d: %w", i, err)
}
