package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

// A plugin for the processor is told of what it knows, and of nothing else: an unknown flag would end the process.
func TestProcessorFlags(t *testing.T) {
	const (
		width, dnn, ynn = "xla_cpu_prefer_vector_width", "xla_cpu_experimental_onednn_custom_call", "xla_cpu_experimental_ynn_fusion_type"
		matmul          = "__onednn$matmul"
	)
	wide, oneDNN := []string{"--" + width + "=512"}, []string{"--" + dnn + "=true", "--" + ynn + "="}
	if !cpu.X86.HasAVX512F {
		wide = nil
	}
	for _, c := range []struct {
		what, content, present string
		float16                bool
		want                   []string
	}{
		{"knows all", width + dnn + ynn + matmul, "", false, slices.Concat(wide, oneDNN)},
		{"has a name across two pieces of the file", strings.Repeat(" ", 1<<20-10) + width, "", false, wide},
		{"has a name but for a letter", strings.Repeat(" ", 1<<20-10) + width[1:], "", false, nil},
		{"has no YNNPACK that could be switched off", width + dnn + matmul, "", false, wide},
		{"was built without oneDNN", width + dnn + ynn, "", false, wide},
		{"is to multiply float16", width + dnn + ynn + matmul, "", true, wide},
		{"is told others by the user", dnn + ynn + matmul, "--xla_dump_to=d", false, oneDNN},
		{"is told so by the user", width + dnn + ynn + matmul, "--" + width + "=128 --" + ynn + "=LIBRARY_FUSION_TYPE_DOT", false, nil},
	} {
		plugin := filepath.Join(t.TempDir(), "pjrt_c_api_cpu_plugin.so")
		if err := os.WriteFile(plugin, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := processorFlags(plugin, c.present, c.float16); !slices.Equal(got, c.want) {
			t.Errorf("a plugin that %s gets %q, want %q", c.what, got, c.want)
		}
	}
}
