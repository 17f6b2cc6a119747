"""An export's provenance is true even if files are replaced during the export."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from inference_export import regular_files
from inference_export.base_set import image_files
from inference_export.command import main
from inference_export.errors import BaseDataError, ChangedError, ExportError
from inference_export.export_options import ExportOptions
from inference_export.exporting import export_repository
from inference_export.repository.provenance import what_changed
from inference_export.repository.reading import Export, read_export
from tests import tiny_network
from tests.resources import write_faces

pytestmark = pytest.mark.slow

IMAGES = 12  # more than the comparison with PyTorch reads


@pytest.fixture
def when_made() -> Iterator[list[Callable[[], object]]]:
    yield tiny_network.when_made
    tiny_network.when_made.clear()


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return tiny_network.write_tiny_resources(tmp_path / "trained")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for number, name in enumerate("ab"):
        write_faces(tmp_path / "base" / name, range(100 * number, 100 * number + IMAGES), "x")
    return tmp_path / "base"


def _options(trained: Path, repository: Path, *arguments: object) -> ExportOptions:
    given = ["-r", trained, "--network", tiny_network.NETWORK, "--model_repository", repository, "--cache",
             repository.with_name("cache"), *arguments]  # fmt: skip
    return ExportOptions(**main.make_context("export-repository", [str(argument) for argument in given]).params)


def _export(
    options: ExportOptions, do: Callable[[], object] = lambda: None, *, before: str = "embedding base images"
) -> Export:
    """Export, and do something before a step."""

    @contextlib.contextmanager
    def progress(label: str, _total: int) -> Iterator[Callable[[int], None]]:
        if label == before:
            do()
        yield lambda _: None

    export_repository(options, progress)
    export = read_export(options.model_repository)
    assert export is not None
    return export


def _saved(state: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


OTHER_CHECKPOINT = _saved(tiny_network.make_state(1))


def _rename_over(file: Path, content: bytes) -> None:
    new = file.with_name(".new")
    new.write_bytes(content)
    new.replace(file)


@pytest.mark.parametrize(
    ("name", "content", "replace"),
    [
        pytest.param("models/model_1", OTHER_CHECKPOINT, _rename_over, id="checkpoint-renamed-over"),
        pytest.param("models/model_1", OTHER_CHECKPOINT, Path.write_bytes, id="checkpoint-rewritten"),
        pytest.param("labels", pickle.dumps({"b": 0, "a": 1}), Path.write_bytes, id="labels-rewritten"),
    ],
)
def test_resource_replaced_after_it_was_read_is_recorded_as_it_was_and_exported_again(
    trained: Path,
    tmp_path: Path,
    when_made: list[Callable[[], object]],
    name: str,
    content: bytes,
    replace: Callable[[Path, bytes], Any],
) -> None:
    options = _options(trained, tmp_path / "repository")
    old = hashlib.sha256((trained / name).read_bytes()).hexdigest()
    when_made.append(lambda: replace(trained / name, content))
    export = _export(options)
    assert old in str(export.provenance.resources)
    assert export.settings.classes == ["a", "b"]
    assert _holds_weights(tmp_path / "repository", tiny_network.make_state(0)["conv.weight"])
    assert what_changed(export.provenance, options) == ["resources"]


def _holds_weights(repository: Path, wanted: torch.Tensor) -> bool:
    weights = onnx.load(repository / "classifier" / "1" / "model.onnx").graph.initializer
    arrays = [numpy_helper.to_array(weight) for weight in weights]
    return any(array.shape == wanted.shape and np.array_equal(array, wanted.numpy()) for array in arrays)


def test_logs_replaced_after_they_were_read_are_recorded_as_they_were(
    trained: Path, tmp_path: Path, when_made: list[Callable[[], object]]
) -> None:
    shutil.copyfile(trained / "models" / "model_1", trained / "models" / "model_2")
    logs = trained / "logs" / "logs"
    validation = {"epoch": [1, 2], "classificationAccuracy": [0.9, 0.1], "embeddingAccuracy": [0.1, 0.9]}
    logs.write_bytes(pickle.dumps({"epochBased": {"validation": validation}}))
    options = _options(trained, tmp_path / "repository")
    validation["classificationAccuracy"] = [0.1, 0.9]
    when_made.append(lambda: logs.write_bytes(pickle.dumps({"epochBased": {"validation": validation}})))
    export = _export(options)
    assert export.provenance.checkpoint == "model_1"
    assert what_changed(export.provenance, options) == ["resources"]
    assert _export(options).provenance.checkpoint == "model_2"


def test_base_image_replaced_before_it_is_read_is_recorded_as_it_was_embedded(
    trained: Path, base: Path, tmp_path: Path
) -> None:
    options = _options(trained, tmp_path / "repository", "-data", base)
    image = max((base / "b").iterdir())
    old, new = image.read_bytes(), write_faces(tmp_path / "other", [150], "x")[0].read_bytes()
    export = _export(options, lambda: _rename_over(image, new), before="reading base images")
    assert what_changed(export.provenance, options) == []
    embeddings = np.load(tmp_path / "repository" / "cluster_head" / "1" / "base_embeddings.npy")
    _rename_over(image, old)
    assert what_changed(export.provenance, options) == ["base data"]
    _export(options)
    after = np.load(tmp_path / "repository" / "cluster_head" / "2" / "base_embeddings.npy")
    assert (embeddings != after).any(axis=1).tolist() == [False] * (2 * IMAGES - 1) + [True]


def test_base_image_replaced_after_it_was_read_is_recorded_and_embedded_as_it_was_read(
    trained: Path, base: Path, tmp_path: Path
) -> None:
    options = _options(trained, tmp_path / "repository", "-data", base, "--cache", tmp_path / "cache1")
    image = max((base / "b").iterdir())
    old, new = image.read_bytes(), write_faces(tmp_path / "other", [150], "x")[0].read_bytes()
    export = _export(options, lambda: _rename_over(image, new))
    assert what_changed(export.provenance, options) == ["base data"]
    _rename_over(image, old)
    assert what_changed(export.provenance, options) == []
    _export(_options(trained, tmp_path / "again", "-data", base, "--cache", tmp_path / "cache2"))
    embeddings, again = (
        np.load(tmp_path / name / "cluster_head" / "1" / "base_embeddings.npy") for name in ("repository", "again")
    )
    np.testing.assert_allclose(embeddings, again, atol=1e-5)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
def test_base_image_that_is_another_when_it_is_read_again_ends_the_export(
    trained: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replaced: bool
) -> None:
    monkeypatch.setattr(image_files, "MAX_KEPT_BYTES", 0)  # so that the file is read again
    image = min((base / "a").iterdir())
    new = write_faces(tmp_path / "other", [150], "x")[0].read_bytes()
    with pytest.raises(ChangedError, match=r"x000\.png changed while it was being exported\. Export again"):
        _export(
            _options(trained, tmp_path / "repository", "-data", base),
            lambda: image.write_bytes(new) if replaced else image.unlink(),
        )
    assert not (tmp_path / "repository").exists()


def test_base_image_that_vanishes_ends_the_export(trained: Path, base: Path, tmp_path: Path) -> None:
    image = max((base / "b").iterdir())
    with pytest.raises(BaseDataError, match=r"x111\.png: No such file"):
        _export(_options(trained, tmp_path / "repository", "-data", base), image.unlink, before="reading base images")


def test_base_images_that_do_not_decode_are_all_listed_before_the_network_is_exported(
    trained: Path, base: Path, tmp_path: Path
) -> None:
    for name in "ab":
        (base / name / "broken.png").write_bytes(b"broken")
    started: list[str] = []
    with pytest.raises(BaseDataError, match=r"(?s)2 of 26 base images do not decode:.*a/broken\.png.*b/broken\.png"):
        _export(
            _options(trained, tmp_path / "repository", "-data", base),
            lambda: started.append("export"),
            before="exporting the network",
        )
    assert started == []


def test_base_images_are_read_once(trained: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[Path] = Counter()
    read = regular_files.read_regular_file

    def counting(path: Path, max_bytes: int) -> bytes:
        reads[path] += 1
        return read(path, max_bytes)

    monkeypatch.setattr(regular_files, "read_regular_file", counting)
    _export(_options(trained, tmp_path / "repository", "-data", base, "--precision", "int8", "--accept_loss"))
    assert {reads[image] for image in base.glob("*/*")} == {1}


def test_base_image_that_appears_is_left_to_the_next_export(trained: Path, base: Path, tmp_path: Path) -> None:
    options = _options(trained, tmp_path / "repository", "-data", base)
    export = _export(options, lambda: write_faces(base / "a", [50], "x"))
    assert what_changed(export.provenance, options) == ["base data"]


def test_base_image_that_is_too_long_is_not_read_and_does_not_export_again_and_again(
    trained: Path, base: Path, tmp_path: Path
) -> None:
    with (base / "a" / "long.png").open("wb") as file:
        file.truncate(2**40)
    options = _options(trained, tmp_path / "repository", "-data", base)
    with pytest.raises(ExportError, match=r"long\.png: has 1099511627776 bytes, and may have"):
        _export(options)
    options = _options(trained, tmp_path / "repository", "-data", base, "--skip_unreadable")
    assert what_changed(_export(options).provenance, options) == []


def test_calibration_image_replaced_during_an_export_is_recorded_as_it_was_read(
    trained: Path, base: Path, tmp_path: Path
) -> None:
    images = write_faces(tmp_path / "calibration", range(40, 60), "x")
    options = _options(trained, tmp_path / "repository", "-data", base, "--calibration", tmp_path / "calibration",
                       "--precision", "int8", "--accept_loss")  # fmt: skip
    other = images[4].read_bytes()
    export = _export(options, lambda: images[3].write_bytes(other), before="exporting the network")
    assert what_changed(export.provenance, options) == []
    images[3].write_bytes(images[5].read_bytes())
    assert what_changed(export.provenance, options) == ["calibration"]


def test_source_of_a_network_that_changes_while_it_is_loaded_ends_the_export(
    trained: Path, tmp_path: Path, when_made: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "changing_network.py"
    source.write_text("from tests.tiny_network import TinyNetwork as make\n")
    when_made.append(lambda: source.write_text("from tests.tiny_network import TinyNetwork as make  # changed\n"))
    options = _options(trained, tmp_path / "repository", "--network", "changing_network:make")
    with pytest.raises(ChangedError, match=r"the source of --network changing_network:make changed"):
        _export(options)
