"""The files that the arguments of ``classify -l`` name."""

import os

import pytest

from inference_client.command_line.image_paths import PathError, list_images


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "ward/2.webp", "ward/.trash/3.jpg", "ward/deep/1.tiff"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path / "photos"


def files(*arguments, each_once=False):
    return list(list_images(arguments, each_once=each_once).files)


IN_PHOTOS = ["photos/a.PNG", "photos/b.jpg", "photos/ward/2.webp", "photos/ward/deep/1.tiff"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["photos"], IN_PHOTOS, id="folder"),
        pytest.param(["photos/notes.txt"], ["photos/notes.txt"], id="file-of-any-name"),
        pytest.param(["photos/.hidden.jpg"], ["photos/.hidden.jpg"], id="hidden-file-by-name"),
        pytest.param(["photos/**/*.jpg"], ["photos/b.jpg"], id="pattern"),
        pytest.param(
            ["photos/**/*.[tw]*"],
            ["photos/notes.txt", "photos/ward/2.webp", "photos/ward/deep/1.tiff"],
            id="pattern-takes-what-it-matches",
        ),
        pytest.param(["photos/w*"], IN_PHOTOS[2:], id="pattern-that-matches-a-folder"),
        pytest.param(
            ["photos/b.jpg", "photos", "./photos/*.jpg"],
            ["photos/b.jpg", *IN_PHOTOS[:1], *IN_PHOTOS[2:]],
            id="each-once",
        ),
        pytest.param(["photos/b.jpg", "photos/b.jpg"], ["photos/b.jpg"] * 2, id="files-as-they-are-named"),
    ],
)
def test_files_are_found_in_a_fixed_order(arguments, expected, photos):
    assert files(*arguments) == expected


def test_results_that_a_program_keeps_have_each_file_once(photos):
    assert files("photos/b.jpg", "./photos/b.jpg", each_once=True) == ["photos/b.jpg"]


def test_file_with_brackets_in_its_name_is_no_pattern(photos):
    (photos / "x[1].jpg").write_text("")
    (photos / "x1.jpg").write_text("")
    assert files("photos/x[1].jpg") == ["photos/x[1].jpg"]


def test_other_files_of_a_folder_are_counted(photos):
    assert list_images(["photos"], each_once=False).left_out_text() == (
        "1 file was left out, because its name does not end as an image's: 1 .txt"
    )


def test_folder_in_a_circle_of_links_is_read_once(photos):
    (photos / "ward" / "again").symlink_to(photos)
    (photos / "nothing.jpg").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.jpg")
    assert files("photos") == IN_PHOTOS


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("missing.jpg", "'missing.jpg' does not exist. Name a file, a folder or a pattern"),
        ("photos/*.gif", r"the pattern 'photos/\*.gif' matches nothing\. .* for example"),
        ("empty", "folder 'empty' holds no images, but no files"),
        ("texts", "folder 'texts' holds no images, but only other files: 1 .txt"),
        ("photos/pipe", "is no regular file"),
        ("photos/lost", "is a link to nothing"),
        ("\x1b31m", "'\N{REPLACEMENT CHARACTER}31m' does not exist"),
    ],
)
def test_argument_without_an_image_is_explained(argument, says, photos):
    (photos.parent / "empty").mkdir()
    (photos.parent / "texts").mkdir()
    (photos.parent / "texts" / "a.txt").write_text("")
    os.mkfifo(photos / "pipe")
    (photos / "lost").symlink_to("nowhere")
    with pytest.raises(PathError, match=says):
        files(argument)
