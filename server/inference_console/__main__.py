"""Run as ``python -m inference_console``."""

from inference_console.command import main

if __name__ == "__main__":
    main(prog_name="inference-console")
