"""Images that are copies of base images."""

from __future__ import annotations

from pathlib import Path

from inference_evaluation.base_image_copies import find_copies
from inference_evaluation.labelled_images import LabelledImage


def test_copies_are_found_by_their_bytes_under_any_name_and_class(tmp_path: Path) -> None:
    base, queries = tmp_path / "base", tmp_path / "queries"
    for file, content in (
        (base / "a" / "1.png", b"same"),
        (base / "a" / "2.png", b"other size"),
        (base / "stray.png", b"near"),
        (queries / "b" / "renamed.png", b"same"),
        (queries / "a" / "1.png", b"size"),  # the name and size of a base image
        (queries / "a" / "near.png", b"near"),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    images = [LabelledImage(path=file, truth=file.parent.name) for file in sorted(queries.rglob("*.png"))]
    assert find_copies(images, base) == {queries / "b" / "renamed.png"}
