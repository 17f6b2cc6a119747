"""Folders of labelled images."""

from __future__ import annotations

from pathlib import Path

from inference_evaluation.labelled_images import read_labelled_images


def test_images_are_listed_by_class_and_omissions_are_reported(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a/3.png", "stray.png", ".hidden/4.png", "a/.DS_Store", "a/deeper/5.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "circle.png").symlink_to("circle.png")
    labelled = read_labelled_images(tmp_path)
    assert [image.name for image in labelled.images] == ["a/3.png", "b/1.png", "b/2.png"]
    assert labelled.classes == ["a", "b", "empty"]
    assert labelled.notes == [
        "Left out, hidden: .hidden, a/.DS_Store.",
        "Left out, within a class folder, but not regular files: a/deeper, b/circle.png.",
        "Left out, beside the class folders: stray.png.",
    ]
