"""The private folder of a console, and what a killed one leaves."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from inference_console.base_set.private_folder import private_folder

_WAITING = """
import sys
from inference_console.base_set.private_folder import private_folder
with private_folder() as folder:
    (folder / "face.jpg").write_text("secret")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_folder_is_private_and_goes_with_its_context(temporary: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("text")
    assert list(temporary.iterdir()) == []


def test_folder_of_a_killed_console_is_removed_at_the_next_start_and_that_of_a_running_one_stays(
    temporary: Path,
) -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        theirs = Path(other.stdout.readline().decode().strip())
        with private_folder():
            assert (theirs / "face.jpg").exists()
        other.kill()
        other.wait()
    assert (theirs / "face.jpg").exists()
    with private_folder():
        assert not theirs.exists()


def test_link_in_the_temporary_folder_leads_nobody_astray(temporary: Path) -> None:
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "file").write_text("text")
    (temporary / "inference-console-trap").symlink_to(precious)
    with private_folder():
        assert (precious / "file").exists()
