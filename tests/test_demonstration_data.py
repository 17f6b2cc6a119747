"""The demonstration's pure parts: the split, the form of the trained resources, the lines it prints."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.demonstration.augmentation import augment_images
from examples.demonstration.data import CLASSES, list_part, read_images, split_images, write_images
from examples.demonstration.held_out import Answer, explain_shortfall, format_accuracy, format_answers
from examples.demonstration.settings import TrainingSettings
from examples.demonstration.train import similarity_loss
from examples.demonstration.trained_resources import (
    TrainingLogs,
    are_complete,
    staged_resources,
    write_checkpoint,
    write_labels,
    write_logs,
)
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoints import select_checkpoint
from inference_export.resources.labels import read_labels
from inference_export.resources.trained import locate

SIZES = {"train": 60, "base": 10, "query": 30}
EPOCHS = (3, 6, 9)
SETTINGS = {"epochs": 9, "checkpoint_epochs": EPOCHS}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demonstration")
    write_images(folder)
    return folder


@pytest.fixture
def resources(tmp_path: Path) -> Path:
    """Trained resources whose two heads were best after different epochs."""
    destination = tmp_path / "resources"
    with staged_resources(destination) as staging:
        _write_resources(staging)
    return destination


def test_split_is_the_same_every_time() -> None:
    assert split_images() == split_images()


def test_split_changes_with_the_seed() -> None:
    assert split_images(seed=1) != split_images(seed=2)


def test_split_has_the_documented_sizes_in_each_class() -> None:
    sizes = {
        part: {name: len(positions) for name, positions in classes.items()} for part, classes in split_images().items()
    }
    assert sizes == {part: dict.fromkeys(CLASSES, size) for part, size in SIZES.items()}


def test_split_uses_every_image_once() -> None:
    positions = [
        position for classes in split_images().values() for of_class in classes.values() for position in of_class
    ]
    assert sorted(positions) == list(range(200))


def test_split_takes_faces_from_the_first_hundred_images_and_the_rest_from_the_second() -> None:
    for classes in split_images().values():
        assert max(classes["face"]) < 100 <= min(classes["not_face"])


def test_no_image_of_one_part_has_the_pixels_of_another() -> None:
    images = read_images()
    pixels = {
        part: {images[position].tobytes() for of_class in classes.values() for position in of_class}
        for part, classes in split_images().items()
    }
    assert all(not pixels[one] & pixels[other] for one, other in combinations(pixels, 2))


def test_written_parts_are_image_files_in_a_folder_for_each_class(parts: Path) -> None:
    for part, size in SIZES.items():
        listed = list_part(parts / part)
        assert listed.class_indices == [0] * size + [1] * size
        assert {file.parent.name for file in listed.files} == set(CLASSES)
        for file in listed.files:
            with Image.open(file) as image:
                assert (image.size, image.mode) == ((25, 25), "L")


def test_written_png_holds_the_pixels_of_the_image_its_name_says(parts: Path) -> None:
    images = read_images()
    for file in (parts / "train").rglob("*.png"):
        position = int(file.stem.rsplit("_", 1)[1])
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(image), images[position])


def test_half_of_the_query_images_are_jpegs(parts: Path) -> None:
    starts = [file.read_bytes()[:2] for file in list_part(parts / "query").files]
    assert (starts.count(b"\xff\xd8"), starts.count(b"\x89P")) == (30, 30)


def test_writing_images_again_leaves_them_alone(tmp_path: Path) -> None:
    write_images(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    write_images(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_writing_images_again_removes_an_image_that_belongs_to_another_part(tmp_path: Path) -> None:
    write_images(tmp_path)
    query = list_part(tmp_path / "query").files[0]
    stray = tmp_path / "train" / query.parent.name / query.name
    stray.write_bytes(query.read_bytes())
    write_images(tmp_path)
    assert not stray.exists()
    assert len(list_part(tmp_path / "train").files) == 120


def test_resources_name_the_classes_in_index_order(resources: Path) -> None:
    assert pickle.loads((resources / "labels").read_bytes()) == {"face": 0, "not_face": 1}
    assert read_labels(locate(resources), FileReader()) == ["face", "not_face"]


def test_resources_hold_a_state_dict_for_each_validated_epoch(resources: Path) -> None:
    assert sorted(file.name for file in (resources / "models").iterdir()) == ["model_3", "model_6", "model_9"]
    state = torch.load(resources / "models" / "model_6", weights_only=True)
    assert state["classifier.bias"].tolist() == [6.0]


def test_logs_have_the_form_that_the_original_trainer_left(resources: Path) -> None:
    logs = pickle.loads((resources / "logs" / "logs").read_bytes())
    validation = logs["epochBased"]["validation"]
    assert validation == {
        "epoch": [3, 6, 9],
        "classificationAccuracy": [0.5, 0.75, 1.0],
        "embeddingAccuracy": [0.5, 1.0, 0.75],
    }
    accuracies = [*validation["classificationAccuracy"], *validation["embeddingAccuracy"]]
    assert all(isinstance(value, np.generic) for value in accuracies)
    assert all(isinstance(loss, torch.Tensor) for loss in logs["batchBased"]["train"]["loss"])


@pytest.mark.parametrize(("mode", "best"), [("classification", "model_9"), ("clustering", "model_6")])
def test_export_selects_the_checkpoint_that_the_logs_call_best(resources: Path, mode: str, best: str) -> None:
    assert select_checkpoint(locate(resources), mode, FileReader()).path.name == best


def test_written_resources_are_complete_for_their_settings(resources: Path) -> None:
    assert are_complete(resources, SETTINGS)


def test_settings_of_the_training_survive_the_logs(tmp_path: Path) -> None:
    settings = asdict(TrainingSettings())
    write_labels(tmp_path, CLASSES)
    write_logs(tmp_path, TrainingLogs(settings=settings))
    assert are_complete(tmp_path, settings)


def test_resources_of_other_settings_are_trained_again(resources: Path) -> None:
    assert not are_complete(resources, {**SETTINGS, "epochs": 10})


@pytest.mark.parametrize("missing", ["labels", "models/model_3", "logs/logs"])
def test_resources_without_one_of_their_files_are_trained_again(resources: Path, missing: str) -> None:
    (resources / missing).unlink()
    assert not are_complete(resources, SETTINGS)


def test_resources_with_damaged_logs_are_trained_again(resources: Path) -> None:
    (resources / "logs" / "logs").write_bytes(b"half a pickle")
    assert not are_complete(resources, SETTINGS)


def test_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupt_training(tmp_path / "resources")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_training_keeps_the_resources_of_the_one_before(resources: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupt_training(resources)
    assert are_complete(resources, SETTINGS)


def test_training_again_replaces_resources_as_a_whole(resources: Path) -> None:
    with staged_resources(resources) as staging:
        write_labels(staging, CLASSES)
    assert [file.name for file in resources.iterdir()] == ["labels"]


def test_augmentation_of_no_extent_mirrors_at_most() -> None:
    images = torch.rand(16, 3, 8, 8)
    settings = TrainingSettings(
        max_shift_pixels=0, max_rotation_degrees=0, max_scale=1, max_contrast=1, max_brightness=0
    )
    for image, changed in zip(images, augment_images(images, settings), strict=True):
        assert any(torch.allclose(changed, expected, atol=1e-5) for expected in (image, image.flip(2)))


def test_augmentation_keeps_shape_and_changes_each_image() -> None:
    images = torch.rand(1, 3, 8, 8).repeat(4, 1, 1, 1)
    changed = augment_images(images, TrainingSettings())
    assert changed.shape == images.shape
    assert len({image.numpy().tobytes() for image in changed}) == len(images)


@pytest.mark.parametrize(
    ("embeddings", "loss"),
    [
        ([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]], 0.0),
        ([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], 4 / 9),
        ([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], 4 / 9),
    ],
)
def test_similarity_loss_wants_one_direction_a_class_at_right_angles(
    embeddings: list[list[float]], loss: float
) -> None:
    assert similarity_loss(torch.tensor(embeddings), torch.tensor([0, 0, 1])).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(
    ("right", "total", "line"),
    [
        (59, 60, "held-out accuracy: 0.983 (59 of 60)"),
        (60, 60, "held-out accuracy: 1.000 (60 of 60)"),
        (57, 60, "held-out accuracy: 0.950 (57 of 60)"),
        (0, 60, "held-out accuracy: 0.000 (0 of 60)"),
    ],
)
def test_accuracy_line_has_three_decimals_and_both_counts(right: int, total: int, line: str) -> None:
    assert format_accuracy(right, total) == line


def test_table_marks_the_wrong_answers() -> None:
    table = format_answers(
        [
            _answer("a.png", "face", truth="face", neighbor="face/x.png"),
            _answer("b.jpg", "face", truth="not_face", neighbor="face/y.png"),
        ]
    )
    assert table.splitlines() == [
        "file   label  probability  nearest base image   truth",
        "a.png  face   0.9876       face/x.png (0.9876)  face",
        "b.jpg  face   0.9876       face/y.png (0.9876)  not_face  <- wrong",
    ]


def test_table_without_base_images_has_no_column_for_them() -> None:
    table = format_answers([_answer("a.png", "face", truth="face", neighbor=None)])
    assert table.splitlines() == ["file   label  probability  truth", "a.png  face   0.9876       face"]


def test_table_shows_an_image_without_an_answer_as_wrong() -> None:
    answer = Answer(file="a.png", label=None, probability=None, neighbor=None, similarity=None, truth="face")
    assert format_answers([answer]).splitlines()[1] == "a.png  -      -            face  <- wrong"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("clustering", "model_6 was served: the best of 3 epochs, with a validation embeddingAccuracy of 1"),
        ("classification", "model_9 was served: the best of 3 epochs, with a validation classificationAccuracy of 1"),
    ],
)
def test_too_low_an_accuracy_is_explained_by_the_validation(resources: Path, mode: str, said: str) -> None:
    message = explain_shortfall(resources, mode)
    assert said in message
    assert f"To train again, remove {resources}." in message


def _write_resources(folder: Path) -> None:
    write_labels(folder, CLASSES)
    for epoch in EPOCHS:
        write_checkpoint(folder, epoch, {"classifier.bias": torch.tensor([float(epoch)])})
    logs = TrainingLogs(
        settings=SETTINGS,
        batch_loss=[torch.tensor(0.7), torch.tensor(0.5)],
        epoch=list(EPOCHS),
        classification_accuracy=[0.5, 0.75, 1.0],
        embedding_accuracy=[0.5, 1.0, 0.75],
    )
    write_logs(folder, logs)


def _interrupt_training(resources: Path) -> None:
    with staged_resources(resources) as staging:
        write_labels(staging, CLASSES)
        raise KeyboardInterrupt


def _answer(file: str, label: str, *, truth: str, neighbor: str | None) -> Answer:
    similarity = None if neighbor is None else 0.9876
    return Answer(file=file, label=label, probability=0.9876, neighbor=neighbor, similarity=similarity, truth=truth)
