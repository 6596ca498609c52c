"""What the adapter refuses."""

__all__ = ["ArgumentError"]


class ArgumentError(ValueError):
    """Something in the call is not allowed; the host's API answers with `status_code` and `detail`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status_code = 422
        self.detail = message
