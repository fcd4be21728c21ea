package main

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// trainerKey is a field of transformers' TrainingArguments that is no key of ours.
type trainerKey struct {
	same string // the values, divided by |, at which Trainer does what hubtool does; empty: only null
	why  string // other values are refused, and what to do instead
}

// Why a field is refused, where the same goes for several.
const (
	ofTorch     = "it is about how torch computes"
	ofProcesses = "there is one process: training.devices divides batches among the devices of its engine"
	ofServices  = "reports go to output_dir, and to no service"
	ofLogs      = "--quiet, --verbose and --progress say how much is told"
	ofTheLine   = "the command says what is done"
	ofLoading   = "images are prepared by dataloader_num_workers threads, in order"
	ofMetrics   = "accuracy and loss are what is measured"
	ofGenerated = "it is for models of texts"
)

// trainerKeys are those of transformers 5.23, and what people still write of version 4. So the
// arguments of a Python script can be taken over as they are, or it is said what is in their way.
var trainerKeys = map[string]trainerKey{
	"lr_scheduler_kwargs":                     {"", "the schedules have no further settings"},
	"optim":                                   {"adamw_torch|adamw_torch_fused", "AdamW is the optimizer there is"},
	"optim_args":                              {"", "AdamW has adam_beta1, adam_beta2, adam_epsilon and weight_decay"},
	"optim_target_modules":                    {"", "adapter.target_modules says what is trained"},
	"bf16_full_eval":                          {"false", "evaluation computes in the precision of training; \"hubtool eval --precision\" in another"},
	"fp16_full_eval":                          {"false", "evaluation computes in the precision of training; \"hubtool eval --precision\" in another"},
	"auto_find_batch_size":                    {"false", "choose per_device_train_batch_size, and gradient_accumulation_steps to make up for a small one"},
	"neftune_noise_alpha":                     {"", ofGenerated},
	"use_cache":                               {"false", ofGenerated},
	"use_liger_kernel":                        {"false", ofGenerated},
	"liger_kernel_config":                     {"", ofGenerated},
	"group_by_length":                         {"false", ofGenerated},
	"length_column_name":                      {"length", ofGenerated},
	"logging_strategy":                        {"steps", "logging_steps says how often; each evaluation is logged, too"},
	"logging_first_step":                      {"false", "logging_steps: 1 logs it, and all others"},
	"logging_nan_inf_filter":                  {"true", "a loss that is no number ends the run"},
	"eval_delay":                              {"0|0.0", "evaluation begins with the first epoch, or the first eval_steps"},
	"eval_on_start":                           {"false", "\"hubtool eval\" measures what a run starts from"},
	"prediction_loss_only":                    {"false", ofMetrics},
	"include_for_metrics":                     {"", ofMetrics},
	"batch_eval_metrics":                      {"false", ofMetrics},
	"label_names":                             {"", "dataset.label_column names the label"},
	"remove_unused_columns":                   {"true", "nothing is read but the columns of images and labels"},
	"greater_is_better":                       {"", "of accuracy the greater is better, of loss the smaller"},
	"save_only_model":                         {"false", "a checkpoint holds what resuming needs; the adapter in it is whole without"},
	"save_safetensors":                        {"true", "adapters are safetensors"},
	"overwrite_output_dir":                    {"", "a run writes over an earlier one's files in output_dir, but for a README.md that somebody has written"},
	"ignore_data_skip":                        {"false", "a resumed run goes on with the images that come next"},
	"data_seed":                               {"", "seed decides the order of the images, too"},
	"dataloader_drop_last":                    {"false", "the last batch of an epoch is trained on, however small"},
	"hub_strategy":                            {"end", "a run is pushed once, when it is done"},
	"hub_always_push":                         {"false", "a run is pushed once, when it is done"},
	"hub_token":                               {"<HUB_TOKEN>", "a secret does not belong into a config: \"hubtool login\", HF_TOKEN and --token-file keep it out"},
	"hub_revision":                            {"", "a run is pushed to the main branch; \"hubtool push --revision\" pushes to another"},
	"use_cpu":                                 {"false", "--engine names what is computed on"},
	"no_cuda":                                 {"false", "--engine names what is computed on"},
	"debug":                                   {"", ofTorch},
	"skip_memory_metrics":                     {"true", "report.html has the memory"},
	"activation_checkpointing":                {"false", "write gradient_checkpointing"},
	"do_train":                                {"true|false", ofTheLine},
	"do_eval":                                 {"true|false", ofTheLine + ", and eval_strategy"},
	"do_predict":                              {"false", ofTheLine + ": \"hubtool predict\""},
	"logging_dir":                             {"", "event files for TensorBoard are in output_dir/runs"},
	"run_name":                                {"", ofServices},
	"project":                                 {"huggingface", ofServices},
	"trackio_space_id":                        {"", ofServices},
	"trackio_bucket_id":                       {"", ofServices},
	"trackio_static_space_id":                 {"", ofServices},
	"log_level":                               {"passive", ofLogs},
	"log_level_replica":                       {"warning", ofLogs},
	"log_on_each_node":                        {"true", ofLogs},
	"disable_tqdm":                            {"false", ofLogs},
	"enable_jit_checkpoint":                   {"false", "a signal saves a checkpoint in any case"},
	"save_on_each_node":                       {"false", ofProcesses},
	"local_rank":                              {"-1", ofProcesses},
	"average_tokens_across_devices":           {"true", ofProcesses},
	"accelerator_config":                      {"", ofProcesses},
	"parallelism_config":                      {"", ofProcesses},
	"deepspeed":                               {"", ofProcesses},
	"fsdp":                                    {"", ofProcesses},
	"fsdp_config":                             {"", ofProcesses},
	"ddp_find_unused_parameters":              {"", ofProcesses},
	"ddp_bucket_cap_mb":                       {"", ofProcesses},
	"ddp_broadcast_buffers":                   {"", ofProcesses},
	"ddp_static_graph":                        {"", ofProcesses},
	"ddp_backend":                             {"", ofProcesses},
	"ddp_timeout":                             {"1800", ofProcesses},
	"torch_compile":                           {"false", ofTorch},
	"torch_compile_backend":                   {"", ofTorch},
	"torch_compile_mode":                      {"", ofTorch},
	"torch_empty_cache_steps":                 {"", ofTorch},
	"gradient_checkpointing_kwargs":           {"", ofTorch},
	"activation_checkpointing_kwargs":         {"", ofTorch},
	"include_num_input_tokens_seen":           {"no|false", ofGenerated},
	"eval_do_concat_batches":                  {"true", ofMetrics},
	"eval_use_gather_object":                  {"false", ofProcesses},
	"eval_accumulation_steps":                 {"", "predictions are not kept: each batch is counted when it comes"},
	"dataloader_pin_memory":                   {"true|false", ofLoading},
	"dataloader_persistent_workers":           {"false", ofLoading},
	"dataloader_prefetch_factor":              {"", ofLoading},
	"dataloader_multiprocessing_context":      {"", ofLoading},
	"dataloader_in_order":                     {"true", ofLoading},
	"restore_callback_states_from_checkpoint": {"false", "what early stopping has counted is restored in any case"},
}

// trainerKey takes a field of TrainingArguments that is no key of ours, where it asks for nothing else
// than what is done anyway, and tells whether the key is one.
func (r *configReader) trainerKey(k, value *yaml.Node) bool {
	known, ok := trainerKeys[k.Value]
	if !ok {
		return false
	}
	same := strings.Split(known.same, "|")
	switch value.Kind {
	case yaml.ScalarNode:
		text := value.Value
		if b, ok := parseBool(text); ok {
			text = fmt.Sprint(b)
		}
		if value.ShortTag() == "!!null" || slices.ContainsFunc(same, func(s string) bool { return strings.EqualFold(s, text) }) {
			return true
		}
	default:
		if len(value.Content) == 0 { // {} and [], which Python has for nothing
			return true
		}
	}
	if strings.HasSuffix(k.Value, "_token") { // whose value is nobody's to see
		r.at(k, "training.%s must be left out: %s", k.Value, known.why)
		return true
	}
	want := "left out"
	if known.same != "" {
		want = fmt.Sprintf("%s or left out", strings.Join(same, ", "))
	}
	r.at(k, "training.%s is %s, but must be %s: %s", k.Value, shown(value), want, known.why)
	return true
}
