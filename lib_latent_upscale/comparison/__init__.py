"""Variants of one picture: figures, sheet and page."""
