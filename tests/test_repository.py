"""The contents of a repository at every moment of an export, with small files in place of large ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from inference_export.errors import RepositoryError
from inference_export.repository.configs import (
    ALL_CORES,
    CONFIG_FILE,
    ENSEMBLE,
    MODELS,
    RepositoryShape,
    Version,
    parse_config,
    read_shape,
    render_configs,
    with_versions,
    without_versions,
)
from inference_export.repository.destination import check_destination, resolve_destination
from inference_export.repository.publishing import previous_path, publish
from inference_export.repository.staging import staging
from inference_export.repository.versions import complete_versions, exported_version
from inference_export.template import template_directory, template_files
from tests.checkout import copy_checkout

SHAPE = RepositoryShape(
    image_size=64, embedding_size=512, network_classes=2, max_batch_size=32, device="cpu", cpus=ALL_CORES
)
OTHER_SHAPE = RepositoryShape(
    image_size=96, embedding_size=512, network_classes=2, max_batch_size=32, device="cpu", cpus=ALL_CORES
)


def _export(repository: Path, content: str, shape: RepositoryShape = SHAPE) -> int:
    with staging(repository) as staged:
        (staged / "classifier" / "model.onnx").write_text(content)
        (staged / "cluster_head" / "settings.json").write_text(content)
        (staged / "preprocess" / "settings.json").write_text(content)
        return publish(staged, repository, shape).number


def _render(shape: RepositoryShape, *numbers: int) -> dict[str, str]:
    """Render configurations for whole exports of these numbers, of which the last one answers."""
    versions = [Version(number=number, network=number) for number in numbers]
    return render_configs(shape, versions=versions, pinned=versions[-1])


def _served(repository: Path) -> str:
    """Read the version that the ensemble answers with, as Triton would find it."""
    version = exported_version(repository)
    assert version is not None
    for model in MODELS:
        loaded = list(parse_config((repository / model / CONFIG_FILE).read_text()).version_policy.specific.versions)
        assert int(version.folder(model)) in loaded
        complete = {int(each.folder(model)) for each in complete_versions(repository)}
        assert set(loaded) <= complete, "Triton hangs on an incomplete version"
    return (repository / "classifier" / version.folder("classifier") / "model.onnx").read_text()


def test_configurations_are_the_templates_with_the_values_of_the_export() -> None:
    shape = RepositoryShape(image_size=96, embedding_size=7, network_classes=3, max_batch_size=5, device="gpu", cpus=2)
    configs = {model: parse_config(text) for model, text in _render(shape, 3, 4).items()}
    template = {model: parse_config((template_directory() / model / CONFIG_FILE).read_text()) for model in configs}
    dims = {"PIXELS": [96, 96, 3], "EMBEDDING": [7], "PROBABILITIES": [3]}
    queue = template["preprocess"].dynamic_batching.default_queue_policy
    assert queue.max_queue_size > 0
    for model, config in configs.items():
        assert config.max_batch_size == 5
        tensors, given = ([*model_config.input, *model_config.output] for model_config in (config, template[model]))
        for tensor, wanted in zip(tensors, given, strict=True):
            assert (tensor.name, tensor.data_type) == (wanted.name, wanted.data_type)
            assert list(tensor.dims) == dims.get(tensor.name, list(wanted.dims)), (model, tensor.name)
        if model == ENSEMBLE:
            assert {step.model_version for step in config.ensemble_scheduling.step} == {4}
        else:
            assert list(config.version_policy.specific.versions) == [3, 4]
            assert config.dynamic_batching.default_queue_policy == queue
    assert configs["preprocess"].parameters["decode_threads"].string_value == "2"
    assert configs["classifier"].parameters["intra_op_thread_count"].string_value == "2"
    (group,) = configs["classifier"].instance_group
    assert group.Kind.Name(group.kind) == "KIND_GPU"


def test_shape_of_a_repository_is_read_from_its_classifier() -> None:
    for shape in (SHAPE, replace(SHAPE, image_size=96, embedding_size=7, network_classes=3, device="gpu", cpus=2)):
        assert read_shape(_render(shape, 1)["classifier"]) == shape
    for text in ("junk", "", _render(SHAPE, 1)["preprocess"]):
        with pytest.raises(ValueError, match="configuration"):
            read_shape(text)


def test_other_versions_change_nothing_else_in_a_configuration() -> None:
    first, second = _render(SHAPE, 1), _render(SHAPE, 1, 2)
    one, two = (Version(number=number, network=number) for number in (1, 2))
    for model, config in first.items():
        assert with_versions(config, [one, two], two) == second[model] != config
        assert without_versions(config) == without_versions(second[model])
    other = _render(OTHER_SHAPE, 1)
    assert without_versions(other["classifier"]) != without_versions(first["classifier"])


def test_the_ensemble_gives_the_outputs_of_cluster_head_but_the_answers_at_other_thresholds() -> None:
    configs = {model: parse_config(text) for model, text in _render(SHAPE, 1).items()}
    head = {output.name: (output.data_type, list(output.dims)) for output in configs["cluster_head"].output}
    del head["CLASS_AT"]
    notes = {output.name: (output.data_type, list(output.dims)) for output in configs["preprocess"].output}
    outputs = {output.name: (output.data_type, list(output.dims)) for output in configs[ENSEMBLE].output}
    assert outputs == head | {"NOTE": notes["NOTE"]}
    assert dict(configs[ENSEMBLE].ensemble_scheduling.step[-1].output_map) == {name: name for name in head}


def test_no_configuration_switches_the_response_cache_on() -> None:
    assert not any("cache" in config for config in _render(SHAPE, 1).values())


def test_first_export_is_version_1(tmp_path: Path) -> None:
    repository = tmp_path / "deep" / "repository"
    check_destination(repository, SHAPE)
    assert _export(repository, "first") == 1
    assert _served(repository) == "first"
    assert [path.name for path in repository.parent.iterdir()] == ["repository"]


def test_export_of_the_same_shape_adds_a_version_and_keeps_the_one_before(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    versions = [_export(repository, f"export {number}") for number in (1, 2, 3)]
    assert versions == [1, 2, 3]
    assert _served(repository) == "export 3"
    assert sorted(path.name for path in (repository / "classifier").iterdir()) == ["2", "3", CONFIG_FILE]
    assert (repository / "classifier" / "2" / "model.onnx").read_text() == "export 2"


def test_export_of_another_shape_replaces_the_repository_and_keeps_the_old_one_beside(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    _export(repository, "small")
    _export(repository, "small again")
    assert _export(repository, "large", OTHER_SHAPE) == 1
    assert _served(repository) == "large"
    assert _served(previous_path(repository)) == "small again"
    _export(repository, "third", SHAPE)
    assert _served(previous_path(repository)) == "large"


def test_replacing_a_repository_keeps_the_users_other_models(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    _export(repository, "small")
    (repository / "mine" / "1").mkdir(parents=True)
    (repository / "mine" / "1" / "model.onnx").write_text("mine")
    (repository / "notes.txt").write_text("note")
    _export(repository, "large", OTHER_SHAPE)
    assert (repository / "mine" / "1" / "model.onnx").read_text() == "mine"
    assert (repository / "notes.txt").read_text() == "note"


def test_hand_edited_configuration_is_not_inherited(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    _export(repository, "first")
    config = repository / "classifier" / CONFIG_FILE
    config.write_text(config.read_text() + "response_cache { enable: true }\n")
    _export(repository, "second")
    assert "cache" not in config.read_text()
    assert "cache" in (previous_path(repository) / "classifier" / CONFIG_FILE).read_text()


def test_template_without_an_export_gets_version_1_and_keeps_its_files(tmp_path: Path) -> None:
    import shutil

    repository = tmp_path / "model_repository"
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=template_directory(), capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(template_directory() / name, repository / name)
    assert exported_version(repository) is None
    assert _export(repository, "first") == 1
    assert {name for name in tracked if not (repository / name).is_file()} == set()
    for model in ("preprocess", "cluster_head"):
        files = template_files(model)
        assert {file.name for file in (repository / model / "1").glob("*.py")} == set(files)
        for name, file in files.items():
            assert (repository / model / "1" / name).read_bytes() == file.read_bytes()


def test_export_into_a_checkout_adds_nothing_that_git_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third export removes the first one, whose folders hold the template's own files."""
    copy_checkout(tmp_path)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    repository = tmp_path / "model_repository"
    monkeypatch.setattr("inference_export.repository.publishing.template_directory", lambda: repository)
    monkeypatch.setattr("inference_export.repository.configs.template_directory", lambda: repository)
    monkeypatch.setattr("inference_export.template.template_directory", lambda: repository)
    versions = [_export(repository, f"export {number}") for number in (1, 2, 3)]
    assert versions == [1, 2, 3]
    assert _served(repository) == "export 3"
    for command in (["diff", "--name-only"], ["ls-files", "--others", "--exclude-standard"]):
        output = subprocess.run(["git", *command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        configs = {f"model_repository/{model}/{CONFIG_FILE}" for model in (*MODELS, ENSEMBLE)}
        assert set(output.split()) == (configs if command[0] == "diff" else set())


@pytest.mark.parametrize("model", ["preprocess", "cluster_head"])
def test_python_writes_no_bytecode_into_a_version_folder(tmp_path: Path, model: str) -> None:
    repository = tmp_path / "repository"
    _export(repository, "first")
    blocker = repository / model / "1" / "__pycache__"
    assert blocker.is_file()
    assert blocker.read_bytes() == b""


def test_failed_export_changes_nothing(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    _export(repository, "first")
    with pytest.raises(RuntimeError), staging(repository):
        raise RuntimeError("the network does not verify")
    assert _served(repository) == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_stale_staging_folder_of_any_name_is_removed(tmp_path: Path) -> None:
    repository = tmp_path / "re[p]o"
    stale = tmp_path / ".re[p]o.staging-old"
    stale.mkdir()
    _export(repository, "first")
    assert not stale.exists()


@pytest.mark.slow
def test_exports_side_by_side_never_take_each_others_staging_for_stale(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from inference_export.repository.staging import staging\n"
        "for _ in range(400):\n"
        "    with staging(Path(sys.argv[1])): pass\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "repository")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[1] for process in processes] == [""] * 3


def test_folder_full_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("1")
    with pytest.raises(RepositoryError, match="holds files, but no model"):
        check_destination(tmp_path / "thesis", SHAPE)


def test_foreign_folder_where_the_replaced_repository_would_go_is_refused(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    _export(repository, "first")
    thesis = previous_path(repository) / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("precious")
    check_destination(repository, SHAPE)  # adds a version, and replaces nothing
    with pytest.raises(RepositoryError, match="is not a model repository, and would be overwritten"):
        check_destination(repository, OTHER_SHAPE)
    assert thesis.read_text() == "precious"


def test_destination_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match="is not a folder"):
        check_destination(tmp_path / "file", SHAPE)


def test_destination_within_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RepositoryError, match=r"file can't be made \(File exists\)"):
        check_destination(tmp_path / "file" / "repository", SHAPE)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    with pytest.raises(RepositoryError, match="leads in a circle"):
        resolve_destination(tmp_path / "one")


def test_mount_point_is_refused_with_a_remedy() -> None:
    mount = Path("/dev/shm")
    assert os.path.ismount(mount)
    with pytest.raises(RepositoryError, match=r"mount point.*--model_repository /dev/shm/model_repository"):
        check_destination(mount, SHAPE)


_EXPORT_FOR_EVER = """
import sys
from pathlib import Path
from tests.test_repository import OTHER_SHAPE, SHAPE, _export
number = 0
while True:
    number += 1
    _export(Path(sys.argv[1]), f"{number} " * 20_000, (SHAPE, SHAPE, OTHER_SHAPE)[number % 3])
    if number == 1:
        print("exported", flush=True)
"""


@pytest.mark.slow
def test_export_killed_while_writing_keeps_a_loadable_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    _export(repository, "0 " * 20_000)
    for attempt in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", _EXPORT_FOR_EVER, str(repository)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"exported\n"
            time.sleep(0.007 * attempt)  # so that the processes are killed at different steps of an export
            process.send_signal(signal.SIGKILL)
        parts = _served(repository).split()
        assert len(parts) == 20_000
        assert len(set(parts)) == 1, "half-written"
        assert int(parts[0]) >= 1, "the killed process has exported something"
    _export(repository, "after")
    assert _served(repository) == "after"
    assert {path.name for path in tmp_path.iterdir()} <= {"repository", "repository.previous"}, (
        "staging was left behind"
    )


def test_ensemble_pins_one_version_of_each_model() -> None:
    steps = parse_config(_render(SHAPE, 3, 4)[ENSEMBLE]).ensemble_scheduling.step
    assert [(step.model_name, step.model_version) for step in steps] == [(model, 4) for model in MODELS]
