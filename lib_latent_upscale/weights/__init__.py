"""Weights that come with the package: the demo model and its tile ControlNet."""
