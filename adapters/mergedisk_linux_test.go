package adapters_test

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
)

// A full disk is an error that says so, and leaves nothing on it.
func TestMergeOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("mounting a small disk needs root:", err)
	}
	defer syscall.Unmount(dir, 0)
	base, adapter := synthetic(t, format.BF16, 4)
	_, err := mergeText(t, base, adapter, filepath.Join(dir, "out"), adapters.MergeOptions{})
	if !errors.Is(err, format.ErrSpace) || !strings.Contains(err.Error(), "are needed") {
		t.Errorf("error %v", err)
	}
	if left := content(t, dir); len(left) > 0 {
		t.Errorf("left %q", slices.Collect(maps.Keys(left)))
	}
}
