CACHE  ?= $(or $(HUBTOOL_CI_CACHE),$(HOME)/.cache/hubtool-ci)
PYTHON := $(CACHE)/venv/bin/python
LINT   := $(CACHE)/bin/golangci-lint

.PHONY: all build build-nocgo test test-simd test-scalar race lint fuzz goldens goldens-check interop interop-slow bench tools ci clean

all: build

build:             ## bin/hubtool, with XLA where there is a C compiler
	go build -trimpath -o bin/hubtool ./cmd/hubtool

build-nocgo:       ## static; the Go engine only
	CGO_ENABLED=0 go build -trimpath -o bin/hubtool-static ./cmd/hubtool

test:
	go test ./...

test-simd:         ## with Go's experiment on, which hubtool has no use for
	GOEXPERIMENT=simd go test ./...

test-scalar:       ## what computes, as on a processor without vector kernels
	GODEBUG=cpu.avx512f=off,cpu.avx2=off go test -count=1 ./model/... ./adapters/... ./cmd/hubtool

race:              # GoMLX computes addresses as numbers, which checkptr takes for stray pointers
	go test -race -gcflags='github.com/gomlx/compute/...=-d=checkptr=0' ./...

lint: $(CACHE)/bin
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	GOEXPERIMENT=simd go vet ./...
	$(LINT) run ./...

FUZZTIME ?= 20s
fuzz:              ## every fuzz target for FUZZTIME
	@go list -f '{{.Dir}}' ./... | while read -r dir; do \
		for target in $$(grep -hos '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
			echo "$$dir $$target"; \
			(cd $$dir && go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s .) || exit 1; \
		done; \
	done

goldens: tools     ## rewrite testdata/golden with the real transformers and PEFT
	$(PYTHON) testdata/python/make_goldens.py

goldens-check: tools
	$(PYTHON) testdata/python/make_goldens.py --check

interop: tools build  ## hubtool against PEFT, transformers, datasets and huggingface_hub
	HUBTOOL=bin/hubtool $(PYTHON) -m pytest testdata/python -m 'not slow'

interop-slow: tools build
	HUBTOOL=bin/hubtool $(PYTHON) -m pytest testdata/python -m slow

XLA_CPU = $(wildcard $(CACHE)/venv/lib/python3*/site-packages/lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so)
bench: tools       ## images per second on both engines as a ratio to torch + PEFT; needs a quiet machine
	go build -o bin/bench ./bench
	bin/bench --python $(PYTHON) --xla "$(XLA_CPU)"
	go test -run '^$$' -bench . ./...

tools $(CACHE)/bin:  ## the Python environment and golangci-lint, kept in CACHE
	.ci/run tools

ci:                ## all of it, as before every release
	.ci/run

clean:
	rm -rf bin dist
