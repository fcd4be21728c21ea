package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hubtool/hubtool/adapters"
	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model"
)

// Job is a training run.
type Job struct {
	Model   model.Model
	Weights *model.Weights
	Adapter *adapters.Adapter // changed by the run
	Norm    model.Normalization
	Names   format.Names // in which checkpoints are saved
	Labels  []string

	Train *Loader
	Eval  *Loader // nil: no evaluation

	Config Config

	// Resume is the directory of a checkpoint to go on from; empty starts anew.
	Resume string

	// Recipe has the settings of whoever made the job that are in none of the other fields, and that
	// decide which bytes the run ends with: what the base and the images are, and the engine.
	Recipe []Setting

	// Penalty adds the adapter's own penalty to the loss, where its method has one. PEFT has one for
	// AdaLoRA, but does not come to add it for image classifiers.
	Penalty bool

	// FeatureCache is how many bytes of features are kept in memory, for the images to train on and for
	// those to evaluate on each, where the backbone is frozen: they are computed once then. Those of
	// images that change from epoch to epoch are not kept.
	FeatureCache int64

	// Report is called with what happens, never twice at once; nil is silent.
	Report func(Event)
}

// Event is one thing that happened in a run. The fields after Steps are set where they apply.
type Event struct {
	Epoch       float64
	Step, Steps int // optimizer steps

	Log          *LogEntry   // every logging_steps, and after each evaluation
	Evaluated    int         // images evaluated so far, of EvalTotal
	EvalTotal    int         //
	Extracted    int         // images so far, of ExtractTotal, whose features are kept for all epochs
	ExtractTotal int         //
	Evaluation   *Evaluation // when it is complete
	Checkpoint   string      // directory that was written
	LossScale    float64     // the new one, after a step that overflowed in float16 and was skipped

	ImagesPerSecond float64
	DataWait        float64 // share of the training time spent waiting for images
}

// Speed is how fast a stretch of training was.
type Speed struct{ Epoch, ImagesPerSecond float64 }

// Result is what a run came to.
type Result struct {
	State           *State
	Best            *Best         // nil without evaluations
	Epochs          []EpochResult `json:"epochs"`
	Evaluation      *Evaluation   // of the parameters that the run ends with; nil without evaluations
	Seconds         float64
	Speeds          []Speed // of the stretches between log entries, in this process
	ImagesPerSecond float64 // of training, without evaluation
	DataWait        float64 // share of the training time spent waiting for images
	Skipped         int     // steps that overflowed in float16
	Broken          []error // what was wrong with the images that were left out, see Loader.SkipBroken
}

// EpochResult is the outcome of one epoch, or of one stretch between evaluations.
type EpochResult struct {
	Epoch        float64 `json:"epoch"`
	Step         int     `json:"step"`
	TrainLoss    float64 `json:"train_loss"`
	EvalLoss     float64 `json:"eval_loss"`
	EvalAccuracy float64 `json:"eval_accuracy"`
}

// Best is the evaluation whose parameters are kept.
type Best struct {
	Epoch        float64 `json:"epoch"`
	EvalAccuracy float64 `json:"eval_accuracy"`
	Checkpoint   string  `json:"checkpoint"`

	Step   int     `json:"-"`
	metric float64 // higher is better
	params [][]float32
	state  [][]float32 // of the adapter
}

// Run trains until the configured end. Where ctx is cancelled it saves a checkpoint, if there is a
// directory for one, and returns the cause.
func Run(ctx context.Context, job Job) (*Result, error) {
	r, err := newRun(job)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if job.Resume != "" {
		if err := r.restore(job.Resume); err != nil {
			return nil, err
		}
		r.stepsBefore = r.state.GlobalStep
		// An interrupt may have come between a step and the evaluation after it.
		if r.evaluates() && (len(r.epochs) == 0 || r.epochs[len(r.epochs)-1].Step != r.state.GlobalStep) {
			if err := r.between(ctx); err != nil {
				return nil, err
			}
		}
	}
	r.begun = time.Now()
	for r.state.GlobalStep < r.steps && !r.stopped {
		if err := r.epoch(ctx); err != nil {
			return nil, err
		}
	}
	return r.finish(ctx, time.Since(r.begun))
}

// run is a training run in progress. The fields of the second group are its state, which checkpoints hold.
type run struct {
	Job
	gradients     *differentiator
	predictor     *model.Predictor
	head          *model.HeadPredictor // instead of predictor where features are kept
	trainFeatures *features            // nil: not kept, or not yet computed
	evalFeatures  *features
	params        []adapters.Parameter
	grads         [][]float32
	settings      []Setting
	stepsPerEpoch int
	steps         int
	trained       int // images in this process
	training      time.Duration
	waiting       time.Duration
	asked         time.Time // when the batch at hand was asked for
	stopped       bool
	begun         time.Time     // of this process
	speeds        []Speed       // of stretches between log entries
	stepsBefore   int           // steps of the processes that this one goes on from
	logged        int           // images trained at the last log entry
	loggedAfter   time.Duration // time trained then
	evaluation    *Evaluation   // of the parameters of step evaluatedAt
	evaluatedAt   int

	state     *State
	optimizer *adamW
	scaler    *lossScaler // nil: the loss is not scaled
	batch     int         // next micro-batch in the epoch
	stepped   int         // the same at the last optimizer step
	passed    int         // epochs behind us
	lossSum   float64     // of steps since the last log entry
	lossSteps int
	allLoss   float64 // of all steps
	sinceEval float64 // of steps since the last evaluation
	evalSteps int
	best      *Best
	worse     int // evaluations since the best
	epochs    []EpochResult
}

func newRun(job Job) (*run, error) {
	c := job.Config
	if err := errors.Join(c.Validate()...); err != nil {
		return nil, fmt.Errorf("training: %w", err)
	}
	if job.Train.Source.Len() == 0 {
		return nil, errors.New("training: there are no images to train on")
	}
	r := &run{Job: job, params: job.Adapter.Params()}
	r.stepsPerEpoch = (job.Train.Batches() + c.GradientAccumulationSteps - 1) / c.GradientAccumulationSteps
	r.steps = Steps(c, job.Train.Source.Len())
	c = c.resolved(r.steps)
	r.Config = c
	r.grads = zerosLike(r.params)
	r.optimizer = newAdamW(c, r.params)
	r.state = newState(c, r.steps, r.stepsPerEpoch)
	if err := job.Adapter.Plan(r.steps); err != nil {
		return nil, fmt.Errorf("training: %w", err)
	}
	if job.Weights.Precision() == model.Float16 {
		r.scaler = newLossScaler()
	}
	err := Narrow(job.Model, job.Weights, job.Adapter)
	if err != nil {
		return nil, err
	}
	if err := job.Weights.SetDevices(c.Devices); err != nil {
		return nil, fmt.Errorf("training: %w", err)
	}
	if r.gradients, err = newDifferentiator(job, job.keepableInTraining()); err != nil {
		return nil, err
	}
	if job.Eval != nil {
		attach, err := Attach(job.Weights, job.Adapter)
		if err != nil {
			return nil, err
		}
		if job.keepable(job.Eval) {
			r.head, err = model.NewHeadPredictor(job.Model, job.Weights, attach, c.EvalBatch())
		} else {
			r.predictor, err = model.NewPredictor(job.Model, job.Weights, attach, job.Norm, c.EvalBatch())
		}
		if err != nil {
			return nil, err
		}
	}
	if r.settings, err = r.recipe(); err != nil {
		return nil, fmt.Errorf("training: %w", err)
	}
	return r, nil
}

// Steps is the number of optimizer steps of a run over n images.
func Steps(c Config, n int) int {
	if c.MaxSteps > 0 {
		return c.MaxSteps
	}
	batches := (n + c.TrainBatch() - 1) / c.TrainBatch()
	perEpoch := (batches + c.GradientAccumulationSteps - 1) / c.GradientAccumulationSteps
	return int(math.Ceil(c.NumTrainEpochs * float64(perEpoch)))
}

// epoch trains on what is left of the current epoch.
func (r *run) epoch(ctx context.Context) error {
	images, micro := 0, 0
	fetching, stop := context.WithCancel(ctx)
	defer stop()
	batches, err := r.trainingBatches(fetching, r.passed, r.batch)
	if err != nil {
		return r.interrupted(ctx, err)
	}
	r.asked = time.Now()
	for batch, err := range prefetch(batches, r.gradients.move, (*moved).free, stop) {
		if err != nil {
			return r.interrupted(ctx, err)
		}
		began := time.Now()
		r.waiting += began.Sub(r.asked)
		err := r.gradients.add(batch, r.Config.Seed, r.state.GlobalStep*r.Config.GradientAccumulationSteps+micro, r.lossFactor(), r.grads)
		if err != nil {
			return err
		}
		images, micro = images+batch.N, micro+1
		r.batch++
		r.trained += batch.N
		if micro == r.Config.GradientAccumulationSteps || r.batch == r.Train.Batches() {
			loss, err := r.gradients.loss()
			if err != nil {
				return err
			}
			if err := r.step(loss/float64(images), images); err != nil {
				return err
			}
			images, micro = 0, 0
		}
		r.training += time.Since(r.asked)
		if micro == 0 {
			if err := r.between(ctx); err != nil {
				return err
			}
			if r.state.GlobalStep == r.steps || r.stopped {
				return nil
			}
			if ctx.Err() != nil {
				return r.interrupted(ctx, context.Cause(ctx))
			}
		}
		r.asked = time.Now()
	}
	r.passed, r.batch, r.stepped = r.passed+1, 0, 0
	return nil
}

// step is one optimizer step with the gradients gathered from so many images.
func (r *run) step(loss float64, images int) error {
	step := r.state.GlobalStep
	if r.scaler == nil && !finite(loss) {
		return fmt.Errorf("training: %w: the loss is %v in step %d", ErrDiverged, loss, step+1)
	}
	scale(r.grads, 1/(float64(images)*r.lossFactor()))
	gradNorm := norm(r.grads)
	if r.scaler == nil && !finite(gradNorm) {
		return fmt.Errorf("training: %w: the gradient is not finite in step %d, at a loss of %v", ErrDiverged, step+1, loss)
	}
	skip, err := r.scaler.observe(!finite(gradNorm))
	if err != nil {
		return fmt.Errorf("training: step %d: %w", step+1, err)
	}
	rate := r.Config.learningRate(r.optimizer.step, r.steps)
	if skip {
		for i := range r.grads {
			clear(r.grads[i])
		}
	} else if err := r.apply(gradNorm, rate); err != nil {
		return err
	}
	r.state.GlobalStep++
	r.stepped = r.batch
	r.state.Epoch = float64(r.passed) + float64(r.batch)/float64(r.Train.Batches())
	if finite(loss) { // not where float16 overflowed
		r.lossSum, r.lossSteps, r.allLoss = r.lossSum+loss, r.lossSteps+1, r.allLoss+loss
		r.sinceEval, r.evalSteps = r.sinceEval+loss, r.evalSteps+1
	}
	if skip {
		r.report(Event{LossScale: r.scaler.Scale})
	}

	spent := r.training + time.Since(r.asked)
	event := Event{ImagesPerSecond: float64(r.trained) / spent.Seconds(), DataWait: r.waiting.Seconds() / spent.Seconds()}
	if r.state.GlobalStep%int(r.Config.LoggingSteps) == 0 {
		entry := LogEntry{Loss: ref(r.lossSum / float64(max(1, r.lossSteps))), LearningRate: ref(rate)}
		if !skip {
			entry.GradNorm = ref(gradNorm)
		}
		event.Log = r.state.log(entry)
		r.speeds = append(r.speeds, Speed{r.state.Epoch, float64(r.trained-r.logged) / max(1e-9, (spent-r.loggedAfter).Seconds())})
		r.logged, r.loggedAfter = r.trained, spent
		r.lossSum, r.lossSteps = 0, 0
	}
	r.report(event)
	return nil
}

// apply changes the parameters by the gradients, and clears those.
func (r *run) apply(gradNorm, rate float64) error {
	if limit := r.Config.MaxGradNorm; limit > 0 && gradNorm > limit {
		scale(r.grads, limit/(gradNorm+1e-6))
	}
	r.optimizer.update(r.params, r.grads, rate)
	r.Adapter.Allocate(r.state.GlobalStep+1, r.grads)
	for i, p := range r.params {
		clear(r.grads[i])
		if err := set(r.Weights, p); err != nil {
			return err
		}
	}
	return nil
}

// lossFactor is what losses are multiplied by before they are differentiated.
func (r *run) lossFactor() float64 {
	return r.scaler.factor(r.Config.TrainBatch() * r.Config.GradientAccumulationSteps)
}

// due tells whether something is to be done after the present step. The last step of a run is always
// one of those, as in transformers.
func (r *run) due(strategy string, every float64) bool {
	switch strategy {
	case "steps":
		return r.state.GlobalStep%int(every) == 0 || r.state.GlobalStep == r.steps
	case "epoch":
		return r.batch == r.Train.Batches() || r.state.GlobalStep == r.steps
	case "best": // of saving, which comes after the evaluation
		return r.best != nil && r.best.Step == r.state.GlobalStep
	}
	return false
}

func (r *run) evaluates() bool {
	return r.Eval != nil && r.due(r.Config.EvalStrategy, r.Config.EvalSteps)
}

// between evaluates and saves where the strategies say so.
func (r *run) between(ctx context.Context) error {
	if r.evaluates() {
		if err := r.evaluate(ctx); err != nil {
			return r.interrupted(ctx, err)
		}
	}
	if r.Config.OutputDir != "" && r.due(r.Config.SaveStrategy, r.Config.SaveSteps) {
		if err := r.save(ctx); err != nil {
			return r.interrupted(ctx, err)
		}
	}
	return nil
}

func (r *run) evaluate(ctx context.Context) error {
	start := time.Now()
	e, err := r.evaluateNow(ctx, func(done, total int) {
		r.report(Event{Evaluated: done, EvalTotal: total})
	})
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	r.evaluation, r.evaluatedAt = e, r.state.GlobalStep
	r.epochs = append(r.epochs, EpochResult{r.state.Epoch, r.state.GlobalStep, r.sinceEval / float64(max(1, r.evalSteps)), e.Loss, e.Accuracy})
	r.sinceEval, r.evalSteps = 0, 0
	entry := r.state.log(LogEntry{EvalLoss: &e.Loss, EvalAccuracy: &e.Accuracy, EvalRuntime: &seconds,
		EvalSamplesPerSecond: ref(float64(e.N) / seconds), EvalStepsPerSecond: ref(float64(r.Eval.Batches()) / seconds)})

	value, metric := e.Accuracy, e.Accuracy
	if r.Config.bestBy() == "loss" {
		value, metric = e.Loss, -e.Loss
	}
	r.worse++
	if r.best == nil || metric-r.best.metric > r.Config.EarlyStoppingThreshold {
		r.worse = 0
	}
	r.stopped = r.patienceIsOver()
	if r.best == nil || metric > r.best.metric {
		r.best = &Best{Epoch: r.state.Epoch, EvalAccuracy: e.Accuracy, Step: r.state.GlobalStep, metric: metric}
		r.best.params, r.best.state = clones(r.params), clones(r.Adapter.State())
		r.state.BestMetric, r.state.BestGlobalStep = &value, &r.best.Step
	}
	r.report(Event{Log: entry, Evaluation: e})
	return nil
}

func (r *run) patienceIsOver() bool {
	return r.Config.EarlyStoppingPatience > 0 && r.worse >= r.Config.EarlyStoppingPatience
}

func (r *run) report(e Event) {
	if r.Report != nil {
		e.Epoch, e.Step, e.Steps = r.state.Epoch, r.state.GlobalStep, r.steps
		r.Report(e)
	}
}

// interrupted saves what has been trained where the run ends because its context did.
func (r *run) interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil || r.Config.OutputDir == "" || r.state.GlobalStep == 0 {
		return err
	}
	r.batch = r.stepped // the step that was interrupted is trained again
	if saveErr := r.save(context.WithoutCancel(ctx)); saveErr != nil {
		return errors.Join(err, saveErr)
	}
	return err
}

// finish leaves the best parameters in the adapter, if wanted, and sums up.
func (r *run) finish(ctx context.Context, took time.Duration) (*Result, error) {
	seconds := max(1e-9, took.Seconds()) // a resumed run may have nothing left to do
	r.state.log(LogEntry{TrainLoss: ref(r.allLoss / float64(max(1, r.state.GlobalStep))), TrainRuntime: &seconds,
		TrainSamplesPerSecond: ref(float64(r.trained) / seconds), TrainStepsPerSecond: ref(float64(r.state.GlobalStep-r.stepsBefore) / seconds), TotalFlos: ref(0)})
	result := &Result{State: r.state, Skipped: r.scaler.skipped(), Best: r.best, Epochs: r.epochs, Evaluation: r.evaluation, Seconds: seconds, Speeds: r.speeds,
		ImagesPerSecond: float64(r.trained) / max(1e-9, r.training.Seconds()), DataWait: r.waiting.Seconds() / max(1e-9, r.training.Seconds())}
	result.Broken = r.Train.Broken()
	if r.Eval != nil {
		result.Broken = append(result.Broken, r.Eval.Broken()...)
	}
	left := r.state.GlobalStep // whose parameters are left
	if r.best != nil && r.Config.LoadBestModelAtEnd && r.best.Step != left {
		left = r.best.Step
		for i, p := range r.Adapter.State() {
			copy(p.Values, r.best.state[i])
		}
		for i, p := range r.params {
			copy(p.Values, r.best.params[i])
			if err := set(r.Weights, p); err != nil {
				return nil, err
			}
		}
	}
	if len(r.epochs) > 0 && r.evaluatedAt != left { // a resumed run may have evaluated nothing
		var err error
		if result.Evaluation, err = r.evaluateNow(ctx, nil); err != nil {
			return nil, err
		}
	}
	return result, r.keepBest()
}

func (r *run) close() {
	r.gradients.close()
	if r.predictor != nil {
		r.predictor.Close()
	}
	if r.head != nil {
		r.head.Close()
	}
}

func clones(params []adapters.Parameter) [][]float32 {
	var values [][]float32
	for _, p := range params {
		values = append(values, slices.Clone(p.Values))
	}
	return values
}

func ref(v float64) *float64 { return &v }
