"""How the models share a machine's cores."""

from __future__ import annotations

from dataclasses import dataclass

ALL_CORES = 0  # as many as the serving machine has, found when the server starts


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Processes and threads of the models, as their configurations state them.

    Args:
        preprocess_instances: Processes that decode images.
        decode_threads: Images that each of them decodes at a time; 0: one for each core.
        classifier_instances: Sessions of the network.
        intra_op_threads: Threads of each of them; 0: ONNX Runtime's own choice, one for each core.
    """

    preprocess_instances: int
    decode_threads: int
    classifier_instances: int
    intra_op_threads: int

    def __str__(self) -> str:
        decoders = (
            "a thread for each core" if self.decode_threads == ALL_CORES else _count(self.decode_threads, "thread")
        )
        network = (
            "a thread for each core" if self.intra_op_threads == ALL_CORES else _count(self.intra_op_threads, "thread")
        )
        return (
            f"decoding in {_count(self.preprocess_instances, 'process')} of {decoders}, the network in "
            f"{_count(self.classifier_instances, 'session')} of {network}"
        )


def choose_tuning(cpus: int, device: str) -> Tuning:
    """Choose how the models share the cores; docs/performance.md has the measurements.

    Args:
        cpus: Cores of the machine that serves; 0: all that it has.
        device: ``cpu`` or ``gpu``: where the network runs.
    """
    return Tuning(
        preprocess_instances=1,
        decode_threads=cpus,
        classifier_instances=1,
        intra_op_threads=cpus,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"
