"""The host: the only folder that imports `modules`."""
