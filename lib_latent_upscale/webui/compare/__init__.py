"""Several generations of one picture, side by side."""
