"""``python -m inference_export``: the command ``export-repository``."""

from inference_export.command import main

if __name__ == "__main__":
    main(prog_name="export-repository")
