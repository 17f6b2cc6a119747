"""Decoding in processes: their ends, and the independence of requests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from inference_export.base_set.decoding import DEFAULT_LIMITS, decode_pixels
from inference_export.template import load_served_module, template_directory
from tests.corpus import encode, photograph
from tests.heavy.boxes import AVIF, HEIF, box, coded, grid, still

SIZE = 32
SMALL = encode(photograph(), "JPEG")
# 20 megapixels: any processor needs at least twice the time that the tests allow.
LARGE = encode(Image.linear_gradient("L").resize((5000, 4000)).convert("RGB"), "JPEG", quality=95)
NO_TIME = DEFAULT_LIMITS._replace(seconds=0.02)


@pytest.fixture(scope="module")
def decoding() -> ModuleType:
    return load_served_module("preprocess", "decoding")


@pytest.fixture(scope="module")
def forking() -> ModuleType:
    return load_served_module("preprocess", "forking")


@pytest.fixture
def opened(decoding: ModuleType) -> Iterator[Any]:
    """Open decoders, and close them after the test."""
    pools = []

    def open_decoders(limits: Any = DEFAULT_LIMITS, **options: Any) -> Any:
        pools.append(decoding.Decoders(SIZE, reduced=False, limits=limits, **options))
        return pools[-1]

    yield open_decoders
    for pool in pools:
        pool.close()


@pytest.fixture
def programs() -> Callable[[], list[psutil.Process]]:
    """List the programs that this test has started, not the servers of the whole run, which are children as well."""
    before = set(psutil.Process().children())
    return lambda: [process for process in psutil.Process().children() if process not in before]


def test_pixels_and_reasons_are_in_the_order_of_the_files(opened: Any) -> None:
    files = [LARGE, SMALL, b"", SMALL[:300], SMALL, LARGE]
    pixels, reasons, *_ = opened(processes=3).decode(files)
    assert [reason[:6] for reason in reasons] == ["", "", "empty:", "broken", "", ""]
    for row in (0, 1, 4, 5):
        np.testing.assert_array_equal(pixels[row], decode_pixels(files[row], SIZE))
    assert not pixels[2:4].any()


def test_image_over_its_time_is_a_row_and_the_others_are_decoded(opened: Any) -> None:
    decoders = opened(NO_TIME)
    for _ in range(2):  # ended processes are replaced
        pixels, reasons, *_ = decoders.decode_request([SMALL, LARGE, SMALL])
        assert reasons == ["", "too slow to decode: more than 0.02 s of processor time", ""]
        assert pixels[0].any()
        assert pixels[2].any()


def test_rows_left_when_a_request_is_over_its_time_have_the_reason(
    opened: Any, decoding: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "REQUEST_SECONDS", 0.01)  # of 4 s
    pixels, reasons, *_ = opened(processes=1).decode_request([LARGE] * 5 + [SMALL])
    assert reasons[-1] == ""  # the shortest file goes first
    assert set(reasons[:-1]) == {
        "too slow to decode: the images of this request take more than 0.04 s of processor time"
    }
    assert pixels[-1].any()


def test_image_over_its_memory_is_a_row_whether_that_was_known_before_or_not(opened: Any) -> None:
    decoders = opened(DEFAULT_LIMITS._replace(pixels=12_000_000))
    progressive = encode(Image.new("CMYK", (4000, 3000)), "JPEG", progressive=True)
    words = b"abc " * 2_000_000 + b"!"  # text that is not base64
    _, reasons, *_ = decoders.decode([progressive, SMALL, words])
    assert reasons[0].startswith("too large to decode: it takes ")
    assert reasons[1] == ""
    assert reasons[2].startswith("no image")


CRASHING = """
import os, sys
sys.path.insert(0, {folder!r})
import decoder_process, preprocessing

def decode(data, *arguments, **options):
    return os.abort() if data == b"crash" else preprocessing.decode(data, *arguments, **options)

decoder_process.decode = decode
decoder_process.main()
"""


def test_file_that_crashes_its_decoder_is_a_row_and_the_others_are_decoded(
    opened: Any, decoding: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(CRASHING.format(folder=str(template_directory() / "preprocess" / "1")))
    monkeypatch.setitem(decoding.Forker._start.__globals__, "PROGRAM", program)
    decoders = opened(processes=2)
    for _ in range(2):  # ended processes are replaced
        pixels, reasons, *_ = decoders.decode([SMALL, b"crash", SMALL, b"crash"])
        assert reasons == ["", "broken file: it crashes its decoder"] * 2
        assert pixels[0].any()
        assert pixels[2].any()


def test_heavy_heic_and_avif_files_are_rows_and_the_others_are_decoded(opened: Any) -> None:
    small, tile = coded(HEIF, 64), coded(HEIF, 512, noisy=True)
    bombs = {
        "too large to decode: 65535 x 65535": grid(small, 2, 2, (65535, 65535)),
        "too large to decode: 60000 x 60000": still(coded(AVIF, 64), (60000, 60000)),
        "too slow to decode: more than 0.02 s": grid(tile, 4, 200, (64, 64)),
        "too slow to decode: more than 4,000 boxes": still(small, None, box(b"free") * 5000),
        "broken or truncated HEIF": still(tile, (8, 8)),
    }
    pixels, reasons, *_ = opened(NO_TIME).decode([SMALL, *bombs.values(), SMALL])
    assert (reasons[0], reasons[-1]) == ("", "")
    for reason, begins in zip(reasons[1:-1], bombs, strict=True):
        assert reason.startswith(begins)
    assert pixels[0].any()
    assert pixels[-1].any()


def test_heic_and_avif_decode_within_the_memory_that_is_reckoned_for_them(opened: Any) -> None:
    files = [grid(coded(kind, 512), 4, 4) for kind in (HEIF, AVIF)]  # 4 megapixels: more than an image may take untold
    _, reasons, *_ = opened().decode(files)
    assert reasons == ["", ""]


def test_heic_decodes_below_a_server_with_a_stack_of_a_gigabyte(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(encode(photograph(), "HEIF"))
    program = "import sys, pathlib, decoding, preprocessing; "
    program += "d = decoding.Decoders(8, reduced=False, limits=preprocessing.DEFAULT_LIMITS); "
    program += "print(d.decode([pathlib.Path(sys.argv[1]).read_bytes()])[1])"
    folder = template_directory() / "preprocess" / "1"
    command = f"ulimit -s 1048576 && exec {sys.executable} -B -c '{program}' {tmp_path / 'image'}"
    said = subprocess.run(["bash", "-c", command], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert said == "['']\n"


def test_process_without_memory_answers_so_and_goes_on(opened: Any, forking: ModuleType) -> None:
    decoder = opened().take()
    for memory_bytes, status in ((2**16, forking.OUT_OF_MEMORY), (2**26, forking.DECODED)):
        decoder.start(encode(photograph(), "TIFF", compression="tiff_lzw"), memory_bytes)
        assert forking.REPLY.unpack(decoder.receive()[: forking.REPLY.size])[0] in (status, forking.EXPENSIVE)
    decoder.end()


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["decoders", "forker"])
def test_processes_that_are_killed_cost_no_image(
    opened: Any, programs: Callable[[], list[psutil.Process]], victims: str
) -> None:
    decoders = opened(processes=2)

    def kill() -> None:
        forkers = programs()
        assert forkers
        for process in forkers if victims == "forker" else [child for forker in forkers for child in forker.children()]:
            process.kill()

    assert decoders.decode([SMALL, SMALL])[1] == ["", ""]
    kill()  # while they have nothing to do
    assert decoders.decode([SMALL, SMALL, SMALL])[1] == ["", "", ""]
    timer = threading.Timer(0.1, kill)  # while they decode
    timer.start()
    assert decoders.decode([LARGE] * 6)[1] == [""] * 6
    timer.join()


@pytest.mark.slow
def test_all_instances_but_one_may_be_slow_and_the_last_one_gives_up(
    opened: Any, decoding: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SLOW_SECONDS", 0.02)
    first, second = (opened(instances=2, name="test-slow") for _ in range(2))
    assert first.slow.hold(1)
    with pytest.raises(decoding.BusyError, match="too many large images are being decoded; try again"):
        second.decode_request([LARGE])
    assert second.decode_request([SMALL])[1] == [""]
    first.slow.hold(0)
    assert second.decode_request([LARGE])[1] == [""]
    assert first.slow.hold(1)  # given back


def test_instance_without_others_may_be_slow(
    opened: Any, decoding: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SLOW_SECONDS", 0.0)
    assert opened(instances=1).decode_request([LARGE])[1] == [""]


@pytest.mark.slow
def test_program_that_answers_late_is_replaced_and_its_answer_is_taken_for_no_other(
    opened: Any, programs: Callable[[], list[psutil.Process]]
) -> None:
    decoders = opened(NO_TIME)
    decoders._forker._control.settimeout(0.5)  # memory of this program, not of its successor
    (program,) = programs()
    program.suspend()
    timer = threading.Timer(1.5, program.resume)
    timer.start()
    for _ in range(3):  # each kills a decoder and starts another
        assert decoders.decode([LARGE, SMALL])[1][0].startswith("too slow to decode")
    timer.join()
    assert not program.is_running()


def test_slow_requests_yield_the_cores_and_later_ones_do_not(
    opened: Any,
    decoding: ModuleType,
    forking: ModuleType,
    programs: Callable[[], list[psutil.Process]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def descendants() -> list[psutil.Process]:
        return [process for program in programs() for process in (program, *program.children(recursive=True))]

    monkeypatch.setattr(decoding, "SLOW_SECONDS", 0.02)
    decoders = opened(instances=2, name="test-nice")
    seen = []

    def decode() -> None:
        with contextlib.suppress(decoding.BusyError):  # beside other work, a slow request may not get its turn
            decoders.decode_request([LARGE] * 2)

    def niceness() -> list[int]:
        values = []
        for process in descendants():
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                values.append(process.nice())
        return values

    thread = threading.Thread(target=decode)
    thread.start()
    while thread.is_alive():
        seen += niceness()
        time.sleep(0.005)
    assert forking.SLOW_NICENESS in seen
    deadline_s = time.monotonic() + 10
    while forking.SLOW_NICENESS in niceness():  # processes that were ended take a moment
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_images_that_take_much_memory_wait_for_each_other(
    opened: Any, decoding: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "LITTLE_MEMORY_BYTES", 2**24 + 1)
    first, second = (opened(instances=3, name="test-memory") for _ in range(2))
    assert first.memory.hold(decoding.MEMORY_TOKENS)
    monkeypatch.setattr(decoding, "REQUEST_TIMEOUT_S", 0.5)
    with pytest.raises(decoding.BusyError, match="not decoded within"):
        second.decode_request([LARGE])
    monkeypatch.undo()
    monkeypatch.setattr(decoding, "LITTLE_MEMORY_BYTES", 2**24 + 1)
    first.memory.hold(0)
    assert second.decode_request([LARGE, LARGE])[1] == ["", ""]
    assert first.memory.hold(decoding.MEMORY_TOKENS)  # given back


def test_token_is_free_again_when_its_process_is_killed(decoding: ModuleType) -> None:
    program = "import sys, time; import decoding; tokens = decoding.Tokens('test-killed', 1); "
    program += "print(tokens.hold(1), flush=True); time.sleep(60)"
    folder = template_directory() / "preprocess" / "1"
    with subprocess.Popen([sys.executable, "-B", "-c", program], cwd=folder, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        tokens = decoding.Tokens("test-killed", 1)
        assert not tokens.hold(1)
        holder.kill()
    assert tokens.hold(1)
    tokens.hold(0)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them() -> None:
    folder = template_directory() / "preprocess" / "1"
    program = "import time, decoding, preprocessing; "
    program += (
        "d = decoding.Decoders(8, reduced=False, limits=preprocessing.DEFAULT_LIMITS); print('open', flush=True); "
    )
    program += "time.sleep(60)"
    with subprocess.Popen([sys.executable, "-B", "-c", program], cwd=folder, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"open\n"
        processes = psutil.Process(owner.pid).children(recursive=True)
        assert len(processes) == 2
        os.kill(owner.pid, signal.SIGKILL)
    assert not psutil.wait_procs(processes, timeout=10)[1]
