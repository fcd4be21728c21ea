"""Makers of the golden files under testdata/golden: one module per kind."""
