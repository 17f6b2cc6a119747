"""The command ``inference-console``."""


def main(prog_name: str | None = None) -> None:
    """Serve the console."""
    raise NotImplementedError(prog_name)
