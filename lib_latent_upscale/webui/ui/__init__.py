"""The script's panel, its axes in X/Y/Z plot."""
