package main

import (
	"bytes"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/hubtool/hubtool/adapters/train"
)

// splitCard takes a model card apart: the fields between its first two lines of dashes, nil if
// there are none or they are no YAML, and the text after them.
func splitCard(text []byte) (fields map[string]any, body []byte) {
	rest, ok := bytes.CutPrefix(text, []byte("---\n"))
	front, after, closed := bytes.Cut(rest, []byte("\n---"))
	if !ok || !closed || yaml.Load(front, &fields) != nil {
		return nil, text
	}
	_, body, _ = bytes.Cut(after, []byte("\n"))
	return fields, body
}

// factsOfWeights are the fields that a new version of the weights makes untrue.
var factsOfWeights = []string{"base_model", "library_name", "model-index"}

// joinCards keeps a card that a person has written on the Hub where train's would replace it: it
// gets the fields that it lacks, the tags, and what the new weights are. A card that is no
// program's goes as it is, and so does one over another of train's.
func joinCards(ours, theirs []byte) ([]byte, error) {
	mark := []byte(train.CardMark)
	if !bytes.Contains(ours, mark) || bytes.Contains(theirs, mark) {
		return ours, nil
	}
	now, _ := splitCard(ours)
	front, body := splitCard(theirs)
	if front == nil {
		front = map[string]any{}
	}
	for key, value := range now {
		if _, has := front[key]; !has || slices.Contains(factsOfWeights, key) {
			front[key] = value
		}
	}
	if have, ok := front["tags"].([]any); ok {
		more, _ := now["tags"].([]any)
		for _, tag := range more {
			if !slices.Contains(have, tag) {
				have = append(have, tag)
			}
		}
		front["tags"] = have
	}
	head, err := yaml.Dump(front)
	if err != nil {
		return nil, fmt.Errorf("joining the model card with the repository's: %w", err)
	}
	return slices.Concat([]byte("---\n"), head, []byte("---\n"), body), nil
}
