"""``tritonserver``: the binary that it starts, the arguments that it adds, and its refusals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference_client import Classify
from inference_client.command_line import extras
from inference_export.template import template_directory
from inference_server.errors import ServerError
from inference_server.triton import arguments as triton_arguments
from inference_server.triton import pip_package
from inference_server.triton.access_folders import make_folder
from inference_server.triton.arguments import added_arguments, body_limit
from inference_server.triton.backend_directory import assemble_backends
from inference_server.triton.launch import prepare_launch
from inference_server.triton.limits import LEAST_OPEN_FILES
from inference_server.triton.pip_package import pytriton_folder
from inference_server.triton.process import running_server
from inference_server.triton.scheduling import schedule_as_batch

SCRIPT = Path(sys.executable).parent / "tritonserver"
OWN_MOUNTS = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


def test_pips_binary_is_started_with_backends_loopback_and_client_id_header() -> None:
    launch = prepare_launch(["--model-repository=x"])
    assert launch.arguments[0].endswith("pytriton/tritonserver/bin/tritonserver")
    assert launch.arguments[1] == "--model-repository=x"
    backends = Path(launch.arguments[launch.arguments.index("--backend-directory") + 1])
    assert {path.name for path in backends.iterdir()} == {"python", "onnxruntime"}
    for option in ("http", "grpc", "metrics"):
        assert f"--{option}-address=127.0.0.1" in launch.arguments
    assert "--http-header-forward-pattern=(?i)^x-client-id$" in launch.arguments
    assert launch.environment["PATH"].startswith(str(Path(sys.prefix) / "bin"))
    assert "127.0.0.1" in launch.notes[0]


@pytest.mark.parametrize("form", [["--http-address", "0.0.0.0"], ["--http-address=0.0.0.0"]], ids=["two", "one"])
def test_given_addresses_are_left_alone(form: list[str]) -> None:
    added = added_arguments(form)
    assert not any(argument.startswith("--http-address") for argument in added)
    assert "--grpc-address=127.0.0.1" in added


def test_native_binary_on_path_is_started_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("/bin/echo", tmp_path / "tritonserver")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    output = subprocess.run([SCRIPT, "--model-repository", "x"], capture_output=True, text=True, check=True)
    assert output.stdout == "--model-repository x\n"


@pytest.mark.parametrize(("chosen", "expected"), [("--other", "SCHED_BATCH"), ("--idle", "SCHED_IDLE")])
def test_binary_is_scheduled_as_batch_work_unless_somebody_chose_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, expected: str
) -> None:
    shutil.copy("/usr/bin/chrt", tmp_path / "tritonserver")  # it tells the policy that it runs under
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    command = ["chrt", chosen, "0", str(SCRIPT), "--pid", "0"]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    assert expected in output.stdout


def test_system_that_forbids_another_policy_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        refusals.append(PermissionError())
        raise refusals[-1]

    refusals: list[PermissionError] = []
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_OTHER)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    schedule_as_batch()
    assert refusals


def test_scripts_on_path_are_never_taken_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SCRIPT, tmp_path / "tritonserver")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), str(SCRIPT.parent)]))
    assert "pytriton" in prepare_launch([]).arguments[0]


def test_folder_of_the_name_on_path_is_never_taken_for_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tritonserver").mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), str(SCRIPT.parent)]))
    assert "pytriton" in prepare_launch([]).arguments[0]


def test_backends_are_assembled_once_by_starts_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    triton = pytriton_folder() / "tritonserver"
    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(assemble_backends, [triton] * 4))
    (folder,) = folders
    assert list(folder.parent.iterdir()) == [folder], "nothing temporary is left"
    assert folder.is_relative_to(tmp_path / "environment")
    assert os.access(folder / "python" / "triton_python_backend_stub", os.X_OK)
    assert (folder / "onnxruntime" / "model.py").is_file()


def test_backends_go_to_the_users_cache_if_the_environment_is_read_only_and_a_read_only_cache_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files where folders should be made: root can write anywhere else.
    (tmp_path / "share").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    triton = pytriton_folder() / "tritonserver"
    umask = os.umask(0o002)  # as where each user has a group
    try:
        assert assemble_backends(triton).is_relative_to(tmp_path / "cache")
    finally:
        os.umask(umask)
    make_folder(tmp_path / "cache" / "inference-server")  # also for keys, unless XDG_RUNTIME_DIR is set
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "share"))
    with pytest.raises(ServerError, match=r"(?s)share: Not a directory.*Set XDG_CACHE_HOME to a writable folder"):
        assemble_backends(triton)


def test_place_that_runs_no_programs_is_passed_over_and_named(tmp_path: Path) -> None:
    """Docker mounts its tmpfs so; the loader would only say `failed to map segment`."""
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets us mount nothing")
    script = """
import os, subprocess, sys
from pathlib import Path
from inference_server.errors import ServerError
from inference_server.triton.backend_directory import assemble_backends
from inference_server.triton.pip_package import pytriton_folder
place = Path(sys.argv[1])
triton = pytriton_folder() / "tritonserver"
for name in ("environment", "cache"):
    (place / name).mkdir()
sys.prefix, os.environ["XDG_CACHE_HOME"] = str(place / "environment"), str(place / "cache")
mount = ["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs"]
subprocess.run([*mount, place / "environment"], check=True)
print(assemble_backends(triton).is_relative_to(place / "cache"))
subprocess.run([*mount, place / "cache"], check=True)
try:
    assemble_backends(triton)
except ServerError as error:
    print(error)
"""
    result = subprocess.run(
        [*OWN_MOUNTS, sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    passed_over, *refusal = result.stdout.splitlines()
    assert passed_over == "True"
    assert [f"{tmp_path}/environment/share: mounted noexec" in line for line in refusal].count(True) == 1
    assert [f"{tmp_path}/cache: mounted noexec" in line for line in refusal].count(True) == 1


def test_address_option_cut_short_is_not_overridden() -> None:
    assert not any(argument.startswith("--http-address") for argument in added_arguments(["--http-addr=0.0.0.0"]))


def test_help_says_what_the_command_adds_and_shows_tritons_own() -> None:
    output = subprocess.run([SCRIPT, "-h"], capture_output=True, text=True, check=False).stdout
    assert output.startswith("Usage: tritonserver")
    assert "127.0.0.1" in output


def test_template_without_an_export_is_refused(tmp_path: Path) -> None:
    for model in ("preprocess", "classifier", "cluster_head", "ensemble"):
        (tmp_path / model).mkdir()
        shutil.copy(template_directory() / model / "config.pbtxt", tmp_path / model)
    for arguments in (["--model-repository", str(tmp_path)], [f"--model-store={tmp_path}"]):
        done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "holds no export yet. Run export-repository" in done.stderr


@pytest.mark.parametrize("arguments", [["tritonserver"], ["inference-server", "--model_repository", "none"]], ids=str)
def test_too_low_a_limit_of_open_files_is_refused(arguments: list[str]) -> None:
    limits = f"--nofile={LEAST_OPEN_FILES - 1}"
    done = subprocess.run(
        ["prlimit", limits, SCRIPT.with_name(arguments[0]), *arguments[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"at most {LEAST_OPEN_FILES - 1} files may be open here" in done.stderr
    assert "LimitNOFILE=" in done.stderr


def test_bodies_are_limited_where_the_installed_binary_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "tritonserver"
    monkeypatch.setattr(triton_arguments, "find_installed_binary", lambda: binary)
    option = "--http-max-input-size"
    for known, added in ((f"{option} <integer>", [f"{option}={96 << 20}"]), ("--http-port <integer>", [])):
        binary.write_text(f"#!/bin/sh\necho '{known}' >&2\nexit 1\n")
        binary.chmod(0o755)
        assert body_limit([]) == added
    assert body_limit([f"{option}=1"]) == []


def test_exporting_and_serving_keep_no_identifier_of_the_machine_to_send(clustering_server: object) -> None:
    assert not (Path(os.environ["XDG_CACHE_HOME"]) / "Microsoft").exists()


def test_numpy_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_package, "version", lambda name: "2.1.0")
    with pytest.raises(ServerError, match=r"(?s)numpy 2.1.0.*pip install 'numpy<2'"):
        prepare_launch([])


def test_unsupported_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_package, "SUPPORTED_PYTHONS", ((3, 99),))
    with pytest.raises(ServerError, match=r"CPython 3.99; this is Linux"):
        prepare_launch([])


def test_missing_libpython_is_refused_with_the_package_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: None)
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.1.0")
    folders = prepare_launch([]).environment["LD_LIBRARY_PATH"].split(os.pathsep)
    assert folders[0].endswith("nvidia_pytriton.libs")
    assert "" not in folders
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(ServerError, match=r"apt-get install libpython3\.\d+"):
        prepare_launch([])


def test_damaged_pytriton_is_refused_with_the_command_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_package, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match="pip install --force-reinstall nvidia-pytriton"):
        prepare_launch([])


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_installed", lambda name: name not in ("nvidia-pytriton", None))
    monkeypatch.setattr(extras, "refuse_two_onnxruntimes", lambda: None)
    with pytest.raises(extras.MissingExtraError, match=r"(?s)missing: nvidia-pytriton\..*\[server\]"):
        prepare_launch([])


def test_two_onnxruntimes_are_refused_with_the_command_to_remove_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_installed", lambda name: True)
    with pytest.raises(extras.MissingExtraError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        prepare_launch([])


def test_server_that_cannot_start_says_why(tmp_path: Path, small_classification: Path) -> None:
    repository = Path(shutil.copytree(small_classification, tmp_path / "repository"))
    config = repository / "classifier" / "config.pbtxt"
    config.write_text(config.read_text().replace("intra_op_thread_count", "what_is_this"))
    with (
        pytest.raises(ServerError, match=r"parameters.what_is_this is set"),
        running_server(repository, log=tmp_path / "log"),
    ):
        pass


def test_server_killed_in_a_request_leaves_a_clear_answer_and_no_process(
    tmp_path: Path, small_clustering: Path, query_images: list[Path]
) -> None:
    with (
        running_server(small_clustering, log=tmp_path / "log") as server,
        Classify(server.url, timeout_s=5) as classify,
    ):
        assert classify(query_images[0])[1] == 200
        killer = threading.Timer(0.3, server.process.kill)
        killer.start()
        _, status = classify(query_images * 60)
        killer.join()
        assert status in (207, 503)
        assert classify(query_images[0])[1] == 503
    time.sleep(1)
    group = ["pgrep", "-r", "R,S,D,T", "-g", str(server.process.pid)]
    left = subprocess.run(group, capture_output=True, text=True, check=False).stdout
    assert left == ""
