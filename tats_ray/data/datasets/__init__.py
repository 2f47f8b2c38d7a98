"""Readers of the annotation files that the field's datasets are published with, one per file."""
