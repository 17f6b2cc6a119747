"""The lines of a server's log that are copied."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from inference_server.supervision.log_relay import MOST_REPEATS, relay
from inference_server.triton.missing_gpu import WithoutGpu, has_gpu

REPEATED = b"[warn] Error from accept() call: Too many open files\n"


# As pip's Triton 2.51 prints them at the start, at the first request and at a reload.
NO_CUDA = (
    b'W1129 15:34:28.308105 23965 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned '
    b'memory pool will not be available: CUDA driver version is insufficient for CUDA runtime version"\n'
    b'I1129 15:34:28.308176 23965 cuda_memory_manager.cc:117] "CUDA memory pool disabled"\n'
    b'E1129 15:34:28.308374 23965 server.cc:241] "CudaDriverHelper has not been initialized."\n'
    b'W1129 15:44:37.147616 184 pinned_memory_manager.cc:170] "failed to allocate pinned system memory: no pinned '
    b'memory pool, falling back to non-pinned system memory"\n'
    b'E1129 15:34:37.373799 23965 ensemble_scheduler.cc:1468] "unable to create stream for ensemble: CUDA driver '
    b'version is insufficient for CUDA runtime version"\n'
)


def _relayed(text: bytes, file: Path, edit: WithoutGpu | None = None) -> bytes:
    source, target = os.pipe()
    with file.open("wb") as output:
        thread = threading.Thread(target=relay, args=(source, output.fileno(), edit))
        thread.start()
        with os.fdopen(target, "wb") as log:
            log.write(text)
        thread.join()
    return file.read_bytes()


def test_line_that_repeats_is_counted_and_the_others_are_copied_in_order(tmp_path: Path) -> None:
    others = [f"line {number}\n".encode() for number in range(900)]
    text = b"".join(line + REPEATED * 200 for line in others)
    relayed = _relayed(text, tmp_path / "log").splitlines(keepends=True)
    *copied, counted = relayed
    assert [line for line in copied if line != REPEATED] == others
    assert copied.count(REPEATED) == MOST_REPEATS
    assert counted == b"inference-server: %d times more within 10 s: " % (900 * 200 - MOST_REPEATS) + REPEATED


def test_long_log_without_line_ends_is_copied_whole(tmp_path: Path) -> None:
    text = b"".join(b"%d " % number for number in range(100_000)) + b"\n\n\nno line's end"
    assert _relayed(text, tmp_path / "log") == text


def test_messages_of_missing_cuda_become_one_note_and_other_messages_about_gpus_stay(tmp_path: Path) -> None:
    other = b'E1129 15:34:28 1 model.cc:9] "instance group classifier_0 has kind KIND_GPU but no GPUs are available"\n'
    quoted = (
        b'W1129 15:34:28.308105 1 http_server.cc:9] "[request id: \\"unable to create stream for ensemble: no CUDA-'
        b'capable device] is refused"\n'
    )
    relayed = _relayed(NO_CUDA + other + NO_CUDA + quoted, tmp_path / "log", WithoutGpu())
    note, *rest = relayed.splitlines(keepends=True)
    assert note.startswith(b"inference-server: no NVIDIA GPU here;")
    assert rest == [other, quoted]


def test_end_of_a_long_line_that_tells_of_missing_cuda_stays(tmp_path: Path) -> None:
    text = b"a" * 200_000 + b' "CUDA memory pool disabled"\n' + NO_CUDA
    assert _relayed(text, tmp_path / "log", WithoutGpu()).startswith(text.removesuffix(NO_CUDA))


def test_messages_of_missing_cuda_stay_where_there_is_a_gpu(tmp_path: Path) -> None:
    """There they tell of a driver that is too old."""
    assert not has_gpu(tmp_path)
    for device in ("nvidia0", "dxg"):
        (tmp_path / device).touch()
        assert has_gpu(tmp_path)
        (tmp_path / device).unlink()
    assert _relayed(NO_CUDA, tmp_path / "log") == NO_CUDA


def test_log_that_can_not_be_written_is_read_to_its_end() -> None:
    source, target = os.pipe()
    thread = threading.Thread(target=relay, args=(source, 10**6))  # no such descriptor
    thread.start()
    with os.fdopen(target, "wb") as log:
        log.write(REPEATED * 100_000)
    thread.join(10)
    assert not thread.is_alive()
