"""What a request may ask for beside its tensors."""

from __future__ import annotations

import json
import math


def check_threshold(parameters: str) -> None:
    """Refuse a request whose threshold no scoring could use, before any image is decoded.

    Args:
        parameters: The request's parameters as Triton hands them over, a JSON object or "".

    Raises:
        ValueError: ``sim_thres`` is no number or text of a number, not finite, or not within -1 to 1.
    """
    value = json.loads(parameters or "{}").get("sim_thres", 0.0)
    try:
        threshold = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        threshold = math.nan
    if not -1 <= threshold <= 1:
        raise ValueError(f"sim_thres is {value!r}, and must be a number from -1 to 1")
