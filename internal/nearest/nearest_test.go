package nearest

import "testing"

func TestName(t *testing.T) {
	valid := []string{"learning_rate", "lr_scheduler_type", "seed", "max_steps", "r"}
	for name, want := range map[string]string{
		"lerning_rate": "learning_rate", "learning-rate": "learning_rate", "LEARNING_RATE": "learning_rate", "laerning_rate": "learning_rate",
		"sede": "seed", "max_step": "max_steps", "warmup": "", "cat": "", "": "r",
	} {
		if got := Name(name, valid); got != want {
			t.Errorf("Name(%q) = %q, want %q", name, got, want)
		}
	}
	if got := DidYouMean("sede", valid) + DidYouMean("warmup", valid); got != `, did you mean "seed"?` {
		t.Errorf("the tails of messages are %q", got)
	}
}
