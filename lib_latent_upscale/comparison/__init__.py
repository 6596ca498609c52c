"""Comparing variants of one picture: metrics, sheet and page."""
