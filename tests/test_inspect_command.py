"""``inspect-repository``: findings in a base set, drawings, and refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from inference_export.base_set import analysis as base_analysis
from inference_export.base_set.analysis import analyze
from inference_export.command import main as export_main
from inference_export.inspection.base_map import MAX_NAMED, draw_map, principal_plane
from inference_export.inspection.command import main
from tests.resources import write_faces, write_resources

pytestmark = pytest.mark.slow


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def _json(*arguments: object) -> dict[str, Any]:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def _random_base(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centers = np.repeat(random.normal(size=(len(sizes), 16)), sizes, axis=0)
    embeddings = (centers + 1.2 * random.normal(size=centers.shape)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings, np.cumsum([0, *sizes[:-1]])


@pytest.fixture(scope="module")
def mislabeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose base set has one image in two classes, one image twice, and a class of one image.

    The network is quick to export. Its embedding is the image itself, smaller.
    """
    folder = tmp_path_factory.mktemp("mislabeled")
    write_faces(folder / "base" / "face", range(8), "x")
    write_faces(folder / "base" / "other", range(100, 108), "x")
    write_faces(folder / "base" / "single", [50], "x")
    shutil.copy(folder / "base" / "face" / "x003.png", folder / "base" / "other" / "a_face.png")
    shutil.copy(folder / "base" / "face" / "x004.png", folder / "base" / "face" / "again.png")
    (folder / "thumbnails.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    preprocessing = {'image_size': 32, 'mean': (0.5, 0.5, 0.5)}\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.shrink, self.head = nn.AvgPool2d(4), nn.Linear(192, classes)\n"
        "    def forward(self, x):\n"
        "        embedding = self.shrink(x).flatten(1)\n"
        "        return embedding, self.head(embedding)\n"
    )
    state = {"head.weight": torch.zeros(2, 192), "head.bias": torch.zeros(2)}
    write_resources(folder / "trained", {"model_7": state}, {"a": 0, "b": 1})
    arguments = ["-r", "trained", "-data", "base", "--network", "thumbnails:Net", "--model_repository", "m"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for more in (["--unknown_label", "nobody"], ["-thres", "0.5"]):
            CliRunner().invoke(export_main, [*arguments, *more], catch_exceptions=False)
    return folder / "m"


@pytest.fixture
def copy(mislabeled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mislabeled, tmp_path / "copy"))


@pytest.mark.parametrize("unknown", [False, True], ids=["nearest-answers", "unknown-label"])
@pytest.mark.parametrize("sizes", [[5, 7, 1, 9], [40, 41], [6]], ids=["four", "two", "one"])
def test_findings_equal_a_plain_comparison_of_every_pair(
    sizes: list[int], unknown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_analysis, "_BLOCK_VALUES", 100)  # several blocks
    monkeypatch.setattr(base_analysis, "DUPLICATE_SIMILARITY", 0.8)
    embeddings, starts = _random_base(sizes)
    class_of = np.repeat(range(len(sizes)), sizes)
    analysis = analyze(embeddings, starts, threshold=0.52, has_unknown_label=unknown)
    misplaced, same, conflicts = set(), 0, 0
    for row in range(len(embeddings)):
        similarities = embeddings @ embeddings[row]
        others = np.arange(len(embeddings)) != row
        own = similarities[others & (class_of == class_of[row])].max(initial=-np.inf)
        foreign = np.where(class_of == class_of[row], -np.inf, similarities)
        assert analysis.own[row] == pytest.approx(own, abs=1e-6)
        assert analysis.other[row] == pytest.approx(foreign.max(), abs=1e-6)
        if np.isfinite(foreign.max()):
            assert analysis.other_class[row] == class_of[foreign.argmax()]
        if np.isfinite(own) and foreign.max() > own:
            misplaced.add(row)
        pairs = np.flatnonzero(similarities[row + 1 :] >= 0.8) + row + 1
        same += np.count_nonzero(class_of[pairs] == class_of[row])
        conflicts += np.count_nonzero(class_of[pairs] != class_of[row])
    assert set(analysis.misplaced.tolist()) == misplaced
    assert (analysis.same_class.count, analysis.conflicts.count) == (same, conflicts)
    assert len(analysis.same_class.pairs) == same
    by_threshold = {outcome.threshold: outcome for outcome in analysis.thresholds}
    assert {0.5, 0.52, 0.95} <= by_threshold.keys()
    for threshold, outcome in by_threshold.items():
        right = unmatched = 0
        for row in range(len(embeddings)):
            others = np.arange(len(embeddings)) != row
            similarities = np.where(others, embeddings @ embeddings[row], -np.inf)
            counts = [np.count_nonzero(similarities[class_of == name] >= threshold) for name in range(len(sizes))]
            best = [similarities[class_of == name].max() for name in range(len(sizes))]
            unmatched += not any(counts)
            label = max(range(len(sizes)), key=lambda name: (counts[name], best[name]))
            right += label == class_of[row] and (any(counts) or not unknown)
        assert outcome.right == pytest.approx(right / len(embeddings))
        assert outcome.unmatched == pytest.approx(unmatched / len(embeddings))


def test_base_set_too_large_for_every_pair_is_sampled_and_it_says_so(
    mislabeled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_analysis, "MAX_QUERIES", 7)
    result = _run(mislabeled)
    assert "of 7 base images (compared: 7 evenly spaced base images)" in result.stdout
    assert _json(mislabeled)["compared_images"] == 7


def test_near_duplicates_are_counted_all_and_listed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_analysis, "MAX_PAIRS", 5)
    analysis = analyze(np.ones((20, 4), np.float32) / 2, np.array([0, 10]), threshold=0.5)
    assert (analysis.same_class.count, analysis.conflicts.count) == (90, 100)
    assert (len(analysis.same_class.pairs), len(analysis.conflicts.pairs)) == (5, 5)
    assert len(analysis.misplaced) == 0, "as close to its own class as to another is not closer to another"


def test_findings_of_a_repository_are_named(mislabeled: Path) -> None:
    report = _json(mislabeled)
    assert (report["version"], report["pinned_version"], report["versions"]) == (2, 2, [1, 2])
    assert (report["mode"], report["threshold"], report["unknown_label"]) == ("clustering", pytest.approx(0.5), None)
    assert (report["image_size"], report["embedding_size"], report["max_batch_size"]) == (32, 192, 32)
    assert report["base_images"] == {"face": 9, "other": 9, "single": 1}
    assert (report["network"], report["checkpoint"], report["precision"]) == (
        "thumbnails:Net",
        "model_7",
        "fp32",
    )
    (conflict,) = report["near_duplicates"]["label_conflicts"]["pairs"]
    assert conflict["images"] == ["face/x003.png", "other/a_face.png"]
    assert conflict["similarity"] == pytest.approx(1, abs=1e-5)
    assert ["face/again.png", "face/x004.png"] in [
        pair["images"] for pair in report["near_duplicates"]["same_class"]["pairs"]
    ]
    closer = {entry["image"]: entry for entry in report["closer_to_another_class"]}
    assert closer["other/a_face.png"]["other_class"] == "face"
    assert closer["other/a_face.png"]["other_similarity"] > closer["other/a_face.png"]["own_similarity"]
    margins = [entry["other_similarity"] - entry["own_similarity"] for entry in closer.values()]
    assert margins == sorted(margins, reverse=True)
    assert not any(image.startswith("single") for image in closer), "the only image of a class has no other to compare"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["exported"])
    before = _json(mislabeled, "--version", 1)
    assert (before["version"], before["pinned_version"], before["unknown_label"]) == (1, 2, "nobody")


def test_text_is_aligned_and_progress_stays_off_it(mislabeled: Path) -> None:
    result = _run(mislabeled)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "version           2, which the ensemble answers with; also there: 1" in lines
    assert "base images       face: 9" in lines
    assert "                  other: 9" in lines
    assert "classes of fewer than 3 base images: single" in lines
    table = lines[lines.index(next(line for line in lines if line.startswith("label conflicts"))) + 1 :][:2]
    assert [line.index(cell) for line, cell in zip(table, ("similarity", "1.0000"), strict=True)].count(
        table[0].index("similarity")
    ) == 2
    assert any(re.fullmatch(r"  0\.5 +\d+\.\d% +\d+\.\d% +as exported(, best)?", line) for line in lines)
    assert "comparing base images: 19 of 19" in result.stderr
    assert "comparing" not in result.stdout
    old = _run(mislabeled, "--version", 1).stdout
    assert "version           1, which does not answer; also there: 2" in old
    assert "unknown label     nobody" in old


def test_classification_repository_is_described_without_a_base_set(small_classification: Path, tmp_path: Path) -> None:
    report = _json(small_classification)
    assert (report["mode"], report["network"]) == ("classification", "ResNet-50 with two heads")
    assert report["classes"] == ["autistic", "non_autistic", "other"]
    assert "base_images" not in report
    assert "classes           autistic, non_autistic, other" in _run(small_classification).stdout
    result = _run(small_classification, "--map", tmp_path / "map.png")
    assert result.exit_code == 1
    assert "has no base set to map" in result.stderr


def test_map_is_a_png_with_a_point_for_each_class(mislabeled: Path, tmp_path: Path) -> None:
    file = tmp_path / "map.png"
    result = _run(mislabeled, "--map", file)
    assert result.exit_code == 0, result.output
    assert f"drew {file}" in result.stderr
    pixels = np.array(Image.open(file).convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 800
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)):
        assert (np.abs(pixels - color).sum(axis=2) < 12).sum() > 20, "legend and points show the class's color"


def test_map_of_many_classes_with_awkward_names_is_drawn(tmp_path: Path) -> None:
    embeddings, starts = _random_base([3] * (MAX_NAMED + 5))
    classes = ["_private", "$x_{", "ä" * 90, *(f"class {number}" for number in range(MAX_NAMED + 2))]
    draw_map(tmp_path / "map.png", embeddings, starts, classes, misplaced=np.array([0, 5]), title="$100 and _more_")
    with Image.open(tmp_path / "map.png") as image:
        image.verify()


def test_map_shows_the_two_directions_of_most_variance(tmp_path: Path) -> None:
    embeddings, _ = _random_base([30, 30, 30])
    file = tmp_path / "embeddings.npy"
    np.save(file, embeddings)
    plane, shares = principal_plane(np.load(file, mmap_mode="r"))
    centered = embeddings - embeddings.mean(axis=0)
    left, singular, _ = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    assert shares == pytest.approx((singular**2 / (singular**2).sum())[:2], rel=1e-4)
    assert np.abs(plane) == pytest.approx(np.abs(left[:, :2] * singular[:2]), abs=1e-4)
    assert np.array_equal(np.load(file), embeddings)


def test_map_of_equal_embeddings_is_drawn(tmp_path: Path) -> None:
    none = np.array([], np.intp)
    draw_map(tmp_path / "m.png", np.ones((4, 1), np.float32), np.array([0, 2]), ["a", "b"], misplaced=none, title="t")
    assert (tmp_path / "m.png").stat().st_size > 0


def _write(path: str, content: str) -> Callable[[Path], object]:
    return lambda repository: (repository / path).write_text(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda folder: shutil.rmtree(folder / "ensemble"), "holds no export", id="none"),
        pytest.param(_write("ensemble/config.pbtxt", "junk"), "does not name one version", id="ensemble"),
        pytest.param(
            lambda folder: (folder / "classifier/2/model.onnx").unlink(),
            "version 2 is incomplete, classifier/2/model.onnx is missing. Complete are: 1.", id="incomplete",
        ),
        pytest.param(
            _write("classifier/2/model.onnx", "another"), "computed with another classifier (graph", id="graph"
        ),
        pytest.param(
            _write("preprocess/2/preprocessing.py", "another"), "another preprocessing (file", id="preprocessing"
        ),
        pytest.param(_write("cluster_head/2/settings.json", "{"), "it is no JSON, Expecting", id="settings"),
        pytest.param(_write("cluster_head/2/base_embeddings.npy", "x"), "npy is damaged", id="embeddings"),
        pytest.param(_write("cluster_head/2/base_class_sizes.json", "[9, 10]"), "2 class sizes of 3", id="sizes"),
        pytest.param(_write("cluster_head/2/base_images.txt", "a\n"), "1 names of 19 embeddings", id="names"),
        pytest.param(
            lambda folder: np.save(folder / "cluster_head/2/base_embeddings.npy", np.ones((19, 7), np.float32)),
            "holds float32 [19, 7], and must hold float32 embeddings of 192", id="length",
        ),
        pytest.param(_write("classifier/config.pbtxt", "x"), "was not written by an export", id="config"),
    ],
)  # fmt: skip
def test_damaged_repository_is_refused_with_the_reason(copy: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(copy)
    result = _run(copy)
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stdout == ""


def _edit(name: str, **changes: object) -> Callable[[Path], object]:
    """Change entries of a JSON file; Ellipsis removes one."""

    def edit(repository: Path) -> None:
        file = repository / "cluster_head/2" / name
        entries = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in entries.items() if value is not ...}))

    return edit


def _embeddings(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    def edit(repository: Path) -> None:
        file = repository / "cluster_head/2/base_embeddings.npy"
        np.save(file, change(np.load(file)))

    return edit


_SETTINGS, _PROVENANCE = "settings.json", "provenance.json"
_SIZES, _NAMES, _EMBEDDINGS = "base_class_sizes.json", "base_images.txt", "base_embeddings.npy"


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        *(
            pytest.param(name, _write(f"cluster_head/2/{name}", text), says, id=f"{name}-{text[:9]}")
            for name, text, says in (
                (_SETTINGS, "[]", "holds list, no object"),
                (_SETTINGS, "null", "holds NoneType, no object"),
                (_SETTINGS, "{}", "lacks mode"),
                (_SETTINGS, "[" * 100_000, "is no JSON"),
                (_PROVENANCE, "5", "holds int, no object"),
                (_SIZES, "[9.0, 9.0, 1.0]", "whole numbers"),
                (_SIZES, "[NaN, 9, 1]", "whole numbers"),
                (_SIZES, "[true, 9, 9]", "whole numbers"),
                (_SIZES, "{}", "whole numbers"),
                (_SIZES, "[9, 8, 1]", "3 class sizes of 3 classes, 18 images of 19"),
                (_EMBEDDINGS, "PK\3\4", "no .npy file of version 1.0"),
            )
        ),
        *(
            pytest.param(_SETTINGS, _edit(_SETTINGS, **{key: value}), says, id=f"{key}-{value}")
            for key, value, says in (
                ("threshold", ..., "lacks threshold"),
                ("threshold", "x", "its threshold is 'x'"),
                ("threshold", float("nan"), "its threshold is nan"),
                ("threshold", True, "its threshold is True"),
                ("classes", ..., "lacks classes"),
                ("classes", {"a": 1, "b": 2, "c": 3}, "its classes is {"),
                ("classes", ["face", None, 1], "its classes is ["),
                ("classes", ["face", "\ud800", "x"], "its classes is ["),
                ("classes", ["face", "face", "x"], "its classes is ["),
                ("mode", "zzz", "its mode is 'zzz'"),
                ("mode", [], "its mode is []"),
                ("unknown_label", 5, "its unknown_label is 5"),
                ("neighbors", "5", "its neighbors is '5'"),
            )
        ),
        *(
            pytest.param(_PROVENANCE, _edit(_PROVENANCE, **{key: value}), f"its {key} is", id=f"{key}-{value}")
            for key, value in (("graph", 5), ("graph", None), ("options", []), ("network", 5), ("checkpoint", []))
        ),
        *(
            pytest.param(_EMBEDDINGS, _embeddings(change), says, id=f"embeddings-{name}")
            for name, change, says in (
                ("0d", lambda found: found[0, 0], "holds float32 []"),
                ("objects", lambda found: found.astype(object), "ValueError"),
                ("twice", lambda found: found * np.where(np.arange(19) == 7, 2, 1)[:, None].astype("f"), "in row 7"),
                ("nan", lambda found: found * np.float32("nan"), "in row 0 is not L2-normalized"),
                ("huge", lambda found: found * np.float32(1e30), "in row 0 is not L2-normalized"),
            )
        ),
        pytest.param(
            _NAMES, lambda folder: (folder / "cluster_head/2/base_images.txt").write_bytes(b"\xff\n" * 19),
            "no text in UTF-8", id="names",
        ),
    ],
)  # fmt: skip
def test_file_that_no_export_wrote_is_named(copy: Path, file: str, damage: Callable[[Path], object], says: str) -> None:
    damage(copy)
    result = _run(copy)
    assert result.exit_code == 1
    assert f"{copy / 'cluster_head' / '2' / file} is damaged" in result.stderr
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("value", [..., 5, [1], []])
def test_classification_without_usable_classes_is_refused(
    small_classification: Path, tmp_path: Path, value: object
) -> None:
    copy = shutil.copytree(small_classification, tmp_path / "copy")
    file = copy / "cluster_head" / "1" / _SETTINGS
    settings = json.loads(file.read_text()) | {"classes": value}
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))
    result = _run(copy)
    assert result.exit_code == 1
    assert f"{file} is damaged" in result.stderr


@pytest.mark.parametrize(
    "file",
    [
        *(f"cluster_head/2/{name}" for name in (_PROVENANCE, _SETTINGS, _SIZES, _EMBEDDINGS, _NAMES)),
        "classifier/config.pbtxt",
        "ensemble/config.pbtxt",
    ],
)
@pytest.mark.timeout(20)
def test_pipe_in_place_of_a_file_is_not_waited_for(copy: Path, file: str) -> None:
    (copy / file).unlink()
    os.mkfifo(copy / file)
    assert _run(copy).exit_code == 1


@pytest.mark.parametrize(
    "file",
    [
        *(f"cluster_head/2/{name}" for name in (_PROVENANCE, _SETTINGS, _SIZES, _EMBEDDINGS, _NAMES)),
        "classifier/config.pbtxt",
        "classifier/2/model.onnx",
        "preprocess/2/preprocessing.py",
    ],
)
@pytest.mark.timeout(20)
def test_file_far_too_long_is_refused_before_it_is_read(copy: Path, file: str) -> None:
    os.truncate(copy / file, 2**40)
    result = _run(copy)
    assert result.exit_code == 1
    assert f"{file} is damaged: " in result.stderr
    assert "has 1099511627776 bytes, and may have " in result.stderr


@pytest.mark.timeout(20)
def test_embeddings_with_a_header_as_long_as_the_file_are_refused_before_it_is_read(copy: Path) -> None:
    file = copy / "cluster_head" / "2" / _EMBEDDINGS
    file.write_bytes(b"\x93NUMPY\2\0" + (2**32 - 1).to_bytes(4, "little"))
    os.truncate(file, 2**33)
    result = _run(copy)
    assert result.exit_code == 1
    assert "no .npy file of version 1.0" in result.stderr


def test_control_characters_of_names_do_not_reach_the_terminal(copy: Path) -> None:
    _edit(_SETTINGS, classes=["a\x1b[31m", "b\nmode  x", "c\u202e"])(copy)
    names = copy / "cluster_head" / "2" / _NAMES
    names.write_text("".join(f"\x1b]0;{line}\n" for line in names.read_text().splitlines()))
    output = _run(copy).stdout
    assert not set("\x1b\u202e") & set(output)
    assert "base images       a\N{REPLACEMENT CHARACTER}[31m: 9" in output
    assert "b\N{REPLACEMENT CHARACTER}mode  x: 9" in output
    assert "\N{REPLACEMENT CHARACTER}]0;face/x003.png" in output


def test_version_that_is_not_there_is_refused(mislabeled: Path) -> None:
    result = _run(mislabeled, "--version", 9)
    assert result.exit_code == 1
    assert "holds no version 9. Complete are: 1, 2." in result.stderr


def test_repository_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert _run(tmp_path / "absent").exit_code == 2


def test_full_disk_is_told_from_a_damaged_repository(mislabeled: Path) -> None:
    result = _run(mislabeled, "--map", "/dev/full")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--map /dev/full can't be written: No space left on device" in result.stderr
    command = [sys.executable, "-m", "inference_export.inspection.command", str(mislabeled)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "Error: standard output can't be written: No space left on device."


def test_reader_that_is_gone_ends_the_command_without_a_word(mislabeled: Path) -> None:
    command = [sys.executable, "-m", "inference_export.inspection.command", str(mislabeled)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert "rror" not in said


def test_inspection_imports_no_network_package(mislabeled: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from inference_export.inspection.command import main\n"
        "main(standalone_mode=False)\n"
        "print({'torch', 'onnx', 'onnxruntime'} & sys.modules.keys(), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, str(mislabeled), "--map", str(tmp_path / "map.png")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "set()"
