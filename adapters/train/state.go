package train

import (
	"bytes"
	"encoding/json"
)

// State is trainer_state.json as transformers' TrainerState writes it.
type State struct {
	BestGlobalStep      *int            `json:"best_global_step"`
	BestMetric          *float64        `json:"best_metric"`
	BestModelCheckpoint *string         `json:"best_model_checkpoint"`
	Epoch               float64         `json:"epoch"`
	EvalSteps           int             `json:"eval_steps"`
	GlobalStep          int             `json:"global_step"`
	IsHyperParamSearch  bool            `json:"is_hyper_param_search"`
	IsLocalProcessZero  bool            `json:"is_local_process_zero"`
	IsWorldProcessZero  bool            `json:"is_world_process_zero"`
	LogHistory          []LogEntry      `json:"log_history"`
	LoggingSteps        int             `json:"logging_steps"`
	MaxSteps            int             `json:"max_steps"`
	NumInputTokensSeen  int             `json:"num_input_tokens_seen"`
	NumTrainEpochs      int             `json:"num_train_epochs"`
	SaveSteps           int             `json:"save_steps"`
	StatefulCallbacks   json.RawMessage `json:"stateful_callbacks"`
	TotalFlos           float64         `json:"total_flos"`
	TrainBatchSize      int             `json:"train_batch_size"`
	TrialName           *string         `json:"trial_name"`
	TrialParams         *string         `json:"trial_params"`
}

// LogEntry is one entry of a state's log_history. Which fields it has says what it is about: a
// stretch of training, an evaluation, or the whole run.
type LogEntry struct {
	Epoch float64 `json:"epoch"`

	EvalAccuracy         *float64 `json:"eval_accuracy,omitempty"`
	EvalLoss             *float64 `json:"eval_loss,omitempty"`
	EvalRuntime          *float64 `json:"eval_runtime,omitempty"`
	EvalSamplesPerSecond *float64 `json:"eval_samples_per_second,omitempty"`
	EvalStepsPerSecond   *float64 `json:"eval_steps_per_second,omitempty"`

	GradNorm     *float64 `json:"grad_norm,omitempty"` // before clipping
	LearningRate *float64 `json:"learning_rate,omitempty"`
	Loss         *float64 `json:"loss,omitempty"`

	Step int `json:"step"`

	TotalFlos             *float64 `json:"total_flos,omitempty"`
	TrainLoss             *float64 `json:"train_loss,omitempty"`
	TrainRuntime          *float64 `json:"train_runtime,omitempty"`
	TrainSamplesPerSecond *float64 `json:"train_samples_per_second,omitempty"`
	TrainStepsPerSecond   *float64 `json:"train_steps_per_second,omitempty"`
}

func newState(c Config, steps, stepsPerEpoch int) *State {
	return &State{
		EvalSteps: int(c.EvalSteps), LoggingSteps: int(c.LoggingSteps), MaxSteps: steps, SaveSteps: int(c.SaveSteps),
		NumTrainEpochs: (steps + stepsPerEpoch - 1) / stepsPerEpoch, TrainBatchSize: c.PerDeviceTrainBatchSize,
		IsLocalProcessZero: true, IsWorldProcessZero: true,
		LogHistory: []LogEntry{}, StatefulCallbacks: json.RawMessage("{}"),
	}
}

// log adds an entry for the present step.
func (s *State) log(e LogEntry) *LogEntry {
	e.Epoch, e.Step = s.Epoch, s.GlobalStep
	s.LogHistory = append(s.LogHistory, e)
	return &s.LogHistory[len(s.LogHistory)-1]
}

// Text is the state as a file: indented by two, with a newline at the end, as transformers has it.
func (s *State) Text() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
