package main

import "testing"

// Every recipe that init lists must be a config that train accepts.
func TestRecipes(t *testing.T) {
	files, err := recipeFiles.ReadDir("recipes")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(recipes) {
		t.Errorf("%d files, %d recipes listed", len(files), len(recipes))
	}
	for _, name := range recipeNames() {
		text, err := recipe(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(t, name+".yaml", string(text)); err != nil {
			t.Error(err)
		}
	}
}
