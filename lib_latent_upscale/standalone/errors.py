"""What a person can put right: a bad picture, path, name or number."""

__all__ = ["InputError"]


class InputError(ValueError):
    """One sentence that says what was given, what is allowed and what to do; the command ends with exit code 2."""
