"""Formats of answers: pairwise preferences and grades of several raters, one file a format. Imports no Django."""
