"""The demo model: its networks, its training, its figures."""
