"""The requests to ``cluster_head`` and their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils
from parameters import Invalid, Parameters, read_parameters
from reasons import NONE, Reason

if TYPE_CHECKING:
    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]

CLASS_AT = "CLASS_AT"
MOST_THRESHOLDS = 1000
BAD_THRESHOLDS = "thresholds"
NO_THRESHOLDS = np.empty((1, 0), np.float32)


class Question(NamedTuple):
    """A request with N rows.

    Attributes:
        parameters: The request's parameters.
        embeddings: float32 [N, D].
        probabilities: float32 [N, C'].
        reasons: Why each row gets no answer; ``NONE`` for a row to answer.
        output_names: Names of the outputs that the request wants.
        is_direct: Whether the request wants the class at each of ``thresholds``. The ensemble never does, so such a
            request came to this model directly.
        thresholds: float32 [N, T].
        problem: Why the request must be refused; None if it can be answered.
    """

    parameters: Parameters
    embeddings: Float32
    probabilities: Float32
    reasons: list[Reason]
    output_names: list[str]
    is_direct: bool
    thresholds: Float32
    problem: Invalid | None


class Answered(NamedTuple):
    """A question with its answer.

    Attributes:
        question: The question.
        outputs: Each output's N rows, by the output's name, without outputs whose rows are all equal.
        reasons: Why each row has no answer; ``NONE`` for a row with an answer.
        threshold: The threshold in force.
    """

    question: Question
    outputs: dict[str, Any]
    reasons: list[Reason]
    threshold: float


def read_question(request: Any) -> Question:
    """Read a request."""
    parameters = read_parameters(request)
    embeddings, probabilities, errors = (_tensor(request, name) for name in ("EMBEDDING", "PROBABILITIES", "ERROR"))
    output_names = request.requested_output_names()
    is_direct = CLASS_AT in output_names
    problem = parameters.threshold if isinstance(parameters.threshold, Invalid) else None
    thresholds = _tensor(request, "THRESHOLDS") if is_direct else None
    if thresholds is None:
        thresholds = NO_THRESHOLDS.repeat(len(embeddings), axis=0)
    elif problem is None:
        problem = _find_problem(thresholds)
    return Question(
        parameters=parameters,
        embeddings=embeddings,
        probabilities=probabilities,
        reasons=[Reason.unpack(error.decode("utf-8", "replace")) if error else NONE for error in errors.ravel()],
        output_names=output_names,
        is_direct=is_direct,
        thresholds=thresholds,
        problem=problem,
    )


def _tensor(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _find_problem(thresholds: Float32) -> Invalid | None:
    if thresholds.shape[1] > MOST_THRESHOLDS:
        count = f"THRESHOLDS has {thresholds.shape[1]:,} values for an image"
        return Invalid(BAD_THRESHOLDS, f"{count}, at most {MOST_THRESHOLDS:,} are allowed. Send several requests.")
    usable = np.abs(thresholds) <= 1
    if not usable.all():
        value = thresholds[~usable][0]
        return Invalid(BAD_THRESHOLDS, f"THRESHOLDS has the value {value}. Send numbers from -1 to 1.")
    return None
