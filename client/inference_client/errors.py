"""The exception that ends a stream."""


class StreamError(Exception):
    """A stream can't go on: the server is gone, refuses everything, or fails again and again.

    All images before have their results, without a gap. A new stream can begin with the next image.

    Attributes:
        message: What was wrong, where, and what to do, as in a call's ``{'error': message}``.
        status_code: The status code that a call would return.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code

    def __reduce__(self) -> tuple[type["StreamError"], tuple[str, int]]:
        return type(self), (self.message, self.status_code)
