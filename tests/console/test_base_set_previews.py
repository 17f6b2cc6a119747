"""The folder of base images as a change would leave it, and the names of uploaded files."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_console.base_set.previews import (
    NameTakenError,
    NoSuchImageError,
    in_words,
    keep_files,
    preview_addition,
    preview_path,
    preview_removal,
    remove_preview,
)
from inference_export.base_set.base_images import find_base_images
from inference_export.errors import BaseDataError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    for name in ("cat/a.jpg", "cat/b.jpg", "dog/a.jpg", "dog/.hidden"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(name)
    return base


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "private"


def test_addition_is_seen_beside_what_is_there_and_copies_nothing(base: Path, private: Path) -> None:
    addition = keep_files(private, base, "cat", [("new.jpg", b"new")], rename=False)
    preview_addition(private, base, addition)
    preview = preview_path(private)
    assert find_base_images(preview).classes == {"cat": ["a.jpg", "b.jpg", "new.jpg"], "dog": ["a.jpg"]}
    assert (preview / "cat" / "new.jpg").read_bytes() == b"new"
    assert (preview / "cat" / "a.jpg").stat() == (base / "cat" / "a.jpg").stat()
    assert (preview / "dog").is_symlink()
    remove_preview(private)
    assert [path.name for path in private.iterdir()] == ["files"]
    assert addition.files[0].read_bytes() == b"new"
    assert (base / "cat" / "a.jpg").exists()
    assert (base / "dog" / "a.jpg").exists()


def test_new_class_is_seen(base: Path, private: Path) -> None:
    preview_addition(private, base, keep_files(private, base, "owl", [("a.jpg", b"owl")], rename=False))
    assert find_base_images(preview_path(private)).classes == {
        "cat": ["a.jpg", "b.jpg"], "dog": ["a.jpg"], "owl": ["a.jpg"]
    }  # fmt: skip


def test_removal_is_seen_and_the_class_goes_with_its_last_image(base: Path, private: Path) -> None:
    preview_removal(private, base, ["cat/a.jpg", "dog/a.jpg"])
    assert find_base_images(preview_path(private)).classes == {"cat": ["b.jpg"]}
    assert (base / "dog" / "a.jpg").exists()


def test_removal_of_what_is_not_there_is_refused(base: Path, private: Path) -> None:
    with pytest.raises(NoSuchImageError, match=r"no base image cat/z\.jpg"):
        preview_removal(private, base, ["cat/z.jpg"])
    with pytest.raises(BaseDataError, match="no name of a base image"):
        preview_removal(private, base, ["cat/../dog/a.jpg"])
    with pytest.raises(NoSuchImageError, match="no base image cat/xxx"):
        preview_removal(private, base, [f"cat/{'x' * 300}"])


@pytest.mark.parametrize("given", ["/etc/a.jpg", "../../a.jpg", "C:\\pictures\\a.jpg", "a.jpg"])
def test_only_the_last_part_of_an_uploaded_name_counts(base: Path, private: Path, given: str) -> None:
    (file,) = keep_files(private, base, "owl", [(given, b"new")], rename=False).files
    assert file == private / "files" / "a.jpg"


@pytest.mark.parametrize(
    "given",
    ["", ".", "..", "../..", ".hidden.jpg", "a\n.jpg", "a\0.jpg", "\u202egpj.exe", "\udcff.jpg", "x" * 252 + ".jpg"],
)
def test_name_that_is_none_is_refused_and_nothing_is_kept(base: Path, private: Path, given: str) -> None:
    with pytest.raises(BaseDataError, match="name"):
        keep_files(private, base, "owl", [("good.jpg", b"good"), (given, b"new")], rename=True)
    assert not private.exists()


@pytest.mark.parametrize("class_name", ["", ".", "..", "../cat", "/etc", "cat/dog", ".cat", "c\nat"])
def test_class_that_is_none_is_refused(base: Path, private: Path, class_name: str) -> None:
    with pytest.raises(BaseDataError, match="no name of a class"):
        keep_files(private, base, class_name, [("a.jpg", b"new")], rename=True)
    assert not private.exists()


def test_class_name_that_no_folder_can_have_is_refused(base: Path, private: Path) -> None:
    with pytest.raises(BaseDataError, match="longer than 255 bytes"):
        keep_files(private, base, "ü" * 128, [("a.jpg", b"new")], rename=True)
    assert not private.exists()


def test_taken_name_is_refused_unless_another_is_wished(base: Path, private: Path) -> None:
    uploads = [("a.jpg", b"one"), ("a.jpg", b"two"), ("b.jpg", b"three")]
    with pytest.raises(NameTakenError, match=r"cat holds another image of the name a\.jpg"):
        keep_files(private, base, "cat", uploads, rename=False)
    with pytest.raises(NameTakenError, match=r"Two of the files are called a\.jpg"):
        keep_files(private, base, "owl", uploads, rename=False)
    addition = keep_files(private, base, "cat", uploads, rename=True)
    assert {file.name: file.read_bytes() for file in addition.files} == {
        "a-2.jpg": b"one", "a-3.jpg": b"two", "b-2.jpg": b"three"
    }  # fmt: skip


def test_long_name_that_is_taken_is_shortened(base: Path, private: Path) -> None:
    name = "ü" * 125 + ".jpg"
    uploads = [(name, b"one"), (name, b"two")]
    names = [file.name for file in keep_files(private, base, "owl", uploads, rename=True).files]
    assert names == [name, "ü" * 124 + "-2.jpg"]


def test_image_that_is_there_already_is_not_added_again(base: Path, private: Path) -> None:
    held = [("a.jpg", (base / "cat" / "a.jpg").read_bytes())]
    assert keep_files(private, base, "cat", [*held, ("c.jpg", b"c"), ("c.jpg", b"c")], rename=True).names == [
        "cat/c.jpg"
    ]
    with pytest.raises(NameTakenError, match="cat holds these images already"):
        keep_files(private, base, "cat", held, rename=False)


def test_name_that_was_taken_meanwhile_is_refused_and_an_equal_file_is_not(base: Path, private: Path) -> None:
    addition = keep_files(private, base, "cat", [("c.jpg", b"c")], rename=False)
    (base / "cat" / "c.jpg").write_bytes(b"c")
    preview_addition(private, base, addition)
    (base / "cat" / "c.jpg").write_bytes(b"another")
    with pytest.raises(NameTakenError):
        preview_addition(private, base, addition)


def test_messages_name_the_folder_that_people_know(base: Path, private: Path) -> None:
    words = in_words(private, base)
    assert words(f"{preview_path(private)}/cat holds no image") == f"{base}/cat holds no image"
    assert words(f"Rename {private}/files/a.jpg.") == "Rename a.jpg."
