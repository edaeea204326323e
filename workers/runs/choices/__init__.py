"""Choices of a new run: its queries, a preset, the judges' weights, the settings of the last run."""
