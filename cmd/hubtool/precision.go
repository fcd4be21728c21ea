package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hubtool/hubtool/internal/nearest"
	"github.com/hubtool/hubtool/model"
	"github.com/hubtool/hubtool/model/engine"
)

// precisions are the values of --precision and what they mean to the model; auto depends on the engine.
var precisions = map[string]model.Precision{
	"fp32": model.Float32, "f32": model.Float32, "fp16": model.Float16, "bf16": model.BFloat16,
}

// precisionFlag is --precision of commands that do not train.
func precisionFlag(into *string) cli.Flag {
	return &cli.StringFlag{Name: "precision", Usage: "fp32, fp16, bf16, or auto: bf16 where it is faster, on an accelerator or by a processor's AMX", Value: "fp32", Destination: into}
}

// precision is what --precision means on an engine.
func (e *env) precision(text string, eng *engine.Engine) (model.Precision, error) {
	p, ok := precisions[text]
	switch {
	case text == "auto":
		return e.autoPrecision(model.BFloat16, eng), nil
	case !ok:
		known := []string{"fp32", "fp16", "bf16", "auto"}
		return "", usage("reading the command line", fmt.Sprintf("--precision is %q, but must be fp32, fp16, bf16 or auto%s", text, nearest.DidYouMean(text, known)))
	case p != model.Float32 && eng.IsGo():
		return "", usage("reading the command line", fmt.Sprintf("--precision is %s, but the Go engine computes in float32: set it to auto or fp32", text))
	}
	return p, nil
}

// trainingEngine opens the engine in the modes that a run asks for, and refuses those that it lacks.
func (e *env) trainingEngine(ctx context.Context, t Training) (*engine.Engine, error) {
	if t.FullDeterminism {
		if err := engine.Deterministic(); err != nil {
			return nil, err
		}
	}
	eng, err := e.openEngine(ctx, engine.Opener{Devices: t.Devices, Float16: t.FP16 == "true"})
	if err != nil {
		return nil, err
	}
	var p []string
	if most := eng.Backend.NumDevices(); t.Devices > most {
		p = append(p, fmt.Sprintf("training.devices is %d, but the engine %s has %d", t.Devices, eng.Spec, most))
	}
	if t.GradientCheckpointing && eng.IsGo() {
		p = append(p, "training.gradient_checkpointing is true, but the Go engine cannot compute layers again: use XLA, or a smaller batch with gradient_accumulation_steps")
	}
	if t.FullDeterminism && !eng.Accelerated() {
		p = append(p, "training.full_determinism does nothing: "+eng.Spec+" computes the same bits every time")
	}
	if t.TF32 != "auto" {
		if err := eng.SetTF32(t.TF32 == "true"); err != nil {
			p = append(p, "training.tf32: "+err.Error())
		}
	}
	if len(p) > 0 {
		eng.Close()
		return nil, usage("reading the settings", p...)
	}
	return eng, nil
}

// halfSetting is a setting of half precision in training.
type halfSetting struct {
	key   string
	value Half
	is    model.Precision
}

func halfSettings(t Training) []halfSetting {
	return []halfSetting{{"fp16", t.FP16, model.Float16}, {"bf16", t.BF16, model.BFloat16}}
}

// trainingPrecision is what training.fp16 and training.bf16 mean on an engine.
func (e *env) trainingPrecision(t Training, eng *engine.Engine) (model.Precision, error) {
	if eng.IsGo() {
		if err := checkGoPrecision(t); err != nil {
			return "", err
		}
	}
	for _, s := range halfSettings(t) {
		switch s.value {
		case "auto":
			return e.autoPrecision(s.is, eng), nil
		case "true":
			return s.is, nil
		}
	}
	return model.Float32, nil
}

// checkGoPrecision refuses what the Go engine cannot compute in.
func checkGoPrecision(t Training) error {
	for _, s := range halfSettings(t) {
		if s.value == "true" {
			return withHint(usage("reading the settings", fmt.Sprintf("training.%s is true, but the Go engine computes in float32: set it to auto or false", s.key)),
				"add --training.%s=auto for float32 where there is no GPU; \"hubtool engine install cuda13\" gets what a GPU needs", s.key)
		}
	}
	return nil
}

// autoPrecision is half where it pays: on an accelerator, and bfloat16 on processors that multiply it.
func (e *env) autoPrecision(half model.Precision, eng *engine.Engine) model.Precision {
	if eng.Accelerated() || half == model.BFloat16 && eng.BFloat16() {
		e.note("computing in %s", half)
		return half
	}
	e.note("computing in %s: %s gains little by %s", model.Float32, eng.Spec, half)
	return model.Float32
}
