"""Similarity of a source to a target, before any training: one file per view."""
