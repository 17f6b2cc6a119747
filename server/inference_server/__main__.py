"""``python -m inference_server`` is the command ``inference-server``."""

from inference_server.command import main

if __name__ == "__main__":
    main(prog_name="inference-server")
