"""What a stream raises when its server is lost."""


class StreamError(Exception):
    """A stream that can't go on: the server is gone, refuses everything, or fails again and again.

    The results so far are those of the first images, without a gap: a new stream may begin with the next one.

    Attributes:
        message: What was wrong, where, and what to do; as ``{'error': message}`` of a call says it.
        status_code: As a call would answer it.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code

    def __reduce__(self) -> tuple[type["StreamError"], tuple[str, int]]:
        return type(self), (self.message, self.status_code)
