"""Changes of a base set without a server: what they write, what they refuse, and what stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from inference_export.repository import config_files
from inference_export.repository.config_files import read_config, write_config
from inference_export.repository.configs import Version, parse_config
from inference_export.repository.versions import complete_versions, exported_version
from inference_server.base_set.command import FOUND_EXIT_CODE, main
from inference_server.base_set.image_folder import move
from tests.base_set.conftest import Living
from tests.chaos.base_sets import kill_syncs
from tests.resources import write_faces

pytestmark = pytest.mark.slow

Contents = Callable[[Path], dict[str, bytes]]


def _loaded(living: Living, model: str) -> list[int]:
    return list(parse_config(read_config(living.repository, model)).version_policy.specific.versions)


def test_sync_follows_the_folder_and_writes_what_a_full_export_would(living: Living, contents: Contents) -> None:
    write_faces(living.base / "other", [104], "new")
    (living.base / "face" / "x001.png").unlink()
    shutil.copy(living.base / "face" / "x002.png", living.base / "face" / "x003.png")
    network = contents(living.repository / "classifier" / "1")
    found = living.ask("sync")
    assert (found["version_before"], found["version"]) == (1, 2)
    assert found["added"] == ["other/new104.png"]
    assert found["removed"] == ["face/x001.png"]
    assert found["replaced"] == ["face/x003.png"]
    assert found["base_images"] == {"face": 3, "other": 4}
    assert found["servers"] == []
    assert exported_version(living.repository) == Version(number=2, network=1)
    assert (_loaded(living, "cluster_head"), _loaded(living, "classifier")) == ([1, 2], [1])
    assert contents(living.repository / "classifier" / "1") == network
    exported = living.export(repository=living.folder / "exported")
    synced, wanted = contents(living.head(2)), contents(exported / "cluster_head" / "1")
    recorded, described = (json.loads(files.pop("provenance.json")) for files in (synced, wanted))
    assert synced == wanted
    for provenance in (recorded, described):
        del provenance["exported"], provenance["network version"]
    assert recorded == described


def test_nothing_to_do_is_said_and_adds_no_version(living: Living) -> None:
    done = living.run("sync")
    assert done.exit_code == 0
    assert "nothing to change: version 1 is what was asked for" in done.stdout
    assert complete_versions(living.repository) == [Version(number=1, network=1)]


def test_older_versions_go_and_their_networks_stay_as_long_as_they_are_needed(living: Living) -> None:
    for number in (2, 3):
        living.ask("set", "-thres", number / 10, images=False)
    assert sorted(folder.name for folder in (living.repository / "cluster_head").glob("[0-9]*")) == ["2", "3"]
    living.export()
    assert complete_versions(living.repository) == [Version(number=3, network=1), Version(number=4, network=4)]
    living.ask("set", "-thres", 0.5, images=False)
    assert complete_versions(living.repository) == [Version(number=4, network=4), Version(number=5, network=4)]
    for model in ("preprocess", "classifier"):
        assert _loaded(living, model) == [4]
        assert [folder.name for folder in (living.repository / model).glob("[0-9]*")] == ["4"]


def test_older_version_that_cannot_be_removed_is_named_and_the_change_is_made(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = shutil.rmtree

    def refuse(folder: Path, **options: Any) -> None:
        if folder == living.head(1):  # as if it were another user's
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "model.py")
        rmtree(folder, **options)

    living.ask("set", "-thres", 0.2, images=False)
    with monkeypatch.context() as patch:
        patch.setattr("inference_export.repository.publishing.shutil.rmtree", refuse)
        (note,) = living.ask("set", "-thres", 0.3, images=False)["notes"]
    assert "unused: cluster_head/1. Remove" in note
    assert exported_version(living.repository) == Version(number=3, network=1)
    assert living.ask("set", "-thres", 0.4, images=False)["notes"] == []
    assert not living.head(1).exists()


def test_add_copies_into_the_folder_and_a_refused_one_leaves_nothing(living: Living, contents: Contents) -> None:
    (image,) = write_faces(living.folder / "elsewhere", [50], "y")
    found = living.ask("add", "face", image)
    assert found["added"] == ["face/y050.png"]
    assert (living.base / "face" / "y050.png").read_bytes() == image.read_bytes()
    assert living.run("add", "face", image).exit_code == 0, "the same file again changes nothing"
    before = contents(living.folder)
    broken = living.folder / "elsewhere" / "broken.png"
    broken.write_bytes(image.read_bytes()[:100])
    before[str(broken.relative_to(living.folder))] = broken.read_bytes()
    for arguments, says in (
        (("new_class", broken), "do not decode"),
        (("face", shutil.copy(living.base / "other" / "x101.png", living.folder / "x001.png")), "exists with another"),
        ((".hidden", image), "is no name of a class"),
        (("face", shutil.copy(image, living.folder / ".hidden.png")), "is no name of a class or an image"),
        (("a/b", image), "is no name of a class"),
    ):
        done = living.run("add", *arguments)
        assert (done.exit_code, says in done.stderr) == (1, True), done.output
    for name in ("x001.png", ".hidden.png"):
        (living.folder / name).unlink()
    assert contents(living.folder) == before
    assert not (living.base / "new_class").exists()


def test_remove_moves_images_aside_and_a_refused_one_moves_them_back(living: Living, contents: Contents) -> None:
    found = living.ask("remove", "face/x001.png")
    assert found["removed"] == ["face/x001.png"]
    assert (living.folder / "base.removed" / "face" / "x001.png").is_file()
    (living.folder / "kept").mkdir()
    before = contents(living.folder)
    names = [f"other/{file.name}" for file in (living.base / "other").iterdir()]
    for arguments, says in (
        (names, "has only one class, face"),
        (["face/none.png"], "holds no base image face/none.png"),
        (["../trained/labels"], "is no name of a base image"),
        (["other/x101.png", "--to", living.base / "aside"], "would be taken for a class"),
        ([*names, "--to", living.folder / "kept"], "has only one class, face"),
        ([*names, "--to", living.folder / "made"], "has only one class, face"),
    ):
        done = living.run("remove", *arguments, "--yes")
        assert (done.exit_code, says in done.stderr) == (1, True), done.output
    assert contents(living.folder) == before
    assert [folder.name for folder in (living.folder / "base.removed").iterdir()] == ["face"]
    assert not list((living.folder / "kept").iterdir()), "a folder of the user stays, and empty"
    assert not (living.folder / "made").exists()


def test_file_that_cannot_be_taken_away_is_not_copied_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, target = tmp_path / "file", tmp_path / "target"
    file.write_bytes(b"image")

    def refuse(code: int) -> Callable[..., None]:
        def raise_error(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        return raise_error

    monkeypatch.setattr(Path, "rename", refuse(errno.EACCES))
    with pytest.raises(PermissionError):
        move(file, target)
    assert not target.exists()
    monkeypatch.setattr(Path, "rename", refuse(errno.EXDEV))
    move(file, target)
    assert (file.exists(), target.read_bytes()) == (False, b"image")
    unlink = Path.unlink
    refuse_target = refuse(errno.EACCES)
    monkeypatch.setattr(Path, "unlink", lambda self, **how: refuse_target() if self == target else unlink(self, **how))
    with pytest.raises(PermissionError):
        move(target, file)
    assert not file.exists()

    def copy_half(_: Path, copy: Path, **__: object) -> None:
        copy.write_bytes(b"im")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copy2", copy_half)
    with pytest.raises(OSError, match="No space left"):
        move(target, file)
    assert (file.exists(), target.read_bytes()) == (False, b"image")


def test_settings_change_and_the_images_stay(living: Living) -> None:
    found = living.ask("set", "-thres", 0.9, "--unknown_label", "other", "--neighbors", 2, images=False)
    assert (found["threshold"], found["unknown_label"], found["neighbors"]) == (0.9, "other", 2)
    assert not (found["added"])
    assert not (found["removed"])
    assert not (found["replaced"])
    old, new = (np.load(living.head(version) / "base_embeddings.npy") for version in (1, 2))
    assert np.array_equal(old, new)
    assert living.ask("sync")["version"] == 2, "a sync keeps the settings"
    assert living.ask("set", "--unknown_label", "", images=False)["unknown_label"] is None
    assert "threshold 0.7, unknown label none, 2 neighbors" in living.run("set", "-thres", 0.7, images=False).stdout
    assert living.run("set", images=False).exit_code == 2
    assert living.run("set", "-thres", "nan", images=False).exit_code == 2


def test_rollback_goes_back_and_the_next_change_goes_on_from_there(living: Living) -> None:
    write_faces(living.base / "face", [5], "new")
    living.ask("sync")
    found = living.ask("rollback", images=False)
    assert (found["version_before"], found["version"]) == (2, 1)
    assert exported_version(living.repository) == Version(number=1, network=1)
    done = living.run("rollback", images=False)
    assert (done.exit_code, "none to go back to" in done.stderr) == (1, True)
    assert living.ask("sync")["version"] == 3


@pytest.mark.parametrize("written", range(7))
def test_pinning_killed_at_any_moment_leaves_a_version_that_the_models_list(
    living: Living, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """As when the server dies that refused the new version, and the command soon after it."""
    living.ask("set", "-thres", 0.5, images=False)
    old, new = complete_versions(living.repository)

    def write_some(*arguments: Any) -> None:
        nonlocal written
        if not written:
            raise KeyboardInterrupt
        written -= 1
        write_config(*arguments)

    monkeypatch.setattr(config_files, "write_config", write_some)
    with pytest.raises(KeyboardInterrupt):
        config_files.pin_version(living.repository, old, others=[])
    pinned = exported_version(living.repository)
    assert pinned in (old, new)
    for model in ("preprocess", "classifier", "cluster_head"):
        assert int(pinned.folder(model)) in _loaded(living, model)
    monkeypatch.undo()
    config_files.pin_version(living.repository, old, others=[])
    assert exported_version(living.repository) == old
    assert _loaded(living, "cluster_head") == [1]


def test_list_tells_classes_settings_and_what_changed(living: Living) -> None:
    write_faces(living.base / "face", [5], "new")
    living.ask("sync")
    found = living.ask("list", images=False)
    assert (found["version"], found["network_version"], found["versions"]) == (2, 1, [1, 2])
    assert found["base_images"] == {"face": 5, "other": 3}
    assert found["since_version_before"]["added"] == ["face/new005.png"]
    assert "face/new005.png" in found["images"]
    text = living.run("list", "--images", images=False).stdout
    assert "images: 1 added" in text
    assert "other/x103.png" in text


def test_list_tells_what_every_kept_version_changed_newest_first(living: Living) -> None:
    write_faces(living.base / "face", [5], "new")
    living.ask("sync")
    newest, oldest = living.ask("list", images=False)["changes"]
    assert (newest["version"], newest["added"], newest["removed"]) == (2, ["face/new005.png"], [])
    assert (oldest["version"], oldest["added"], oldest["exported"] is None) == (1, None, False)
    living.ask("set", "-thres", "0.5", images=False)
    newest, older = living.ask("list", images=False)["changes"]
    assert (newest["version"], newest["added"], newest["network_version"]) == (3, [], 1)
    assert newest["settings"] == {"threshold": {"before": 0.75, "now": 0.5}}
    assert (older["version"], older["added"]) == (2, None)
    text = living.run("list", images=False).stdout
    assert "since before   threshold 0.75 -> 0.5" in text
    assert "version 2" in text


def test_list_leaves_a_damaged_older_version_out(living: Living) -> None:
    living.ask("set", "-thres", "0.5", images=False)
    (living.head(1) / "settings.json").write_text("damaged")
    assert [change["version"] for change in living.ask("list", images=False)["changes"]] == [2]


def test_progress_is_printed_as_often_as_asked(living: Living) -> None:
    write_faces(living.base / "face", range(10, 60), "new")
    given = ["--progress_interval", "0", "sync", "-data", living.base, "--cache", living.cache]
    done = CliRunner().invoke(main, [*map(str, given), "--model_repository", str(living.repository)])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("reading base images: ")]
    assert len(lines) > 1


def test_check_names_doubtful_images_and_flips_and_changes_nothing(living: Living, contents: Contents) -> None:
    queries = living.folder / "queries"
    write_faces(queries / "face", [10, 11, 12], "q")
    write_faces(queries / "other", [110, 111], "q")
    found = living.ask("check", "--queries", queries)
    assert (found["added"], found["queries"]["flips"], found["queries"]["p_value"]) == ([], [], 1.0)
    shutil.copy(queries / "face" / "q010.png", living.base / "other" / "wrong.png")
    shutil.copy(living.base / "face" / "x001.png", living.base / "other" / "twice.png")
    (living.base / "face" / "broken.png").write_text("no image")
    cached = contents(living.cache)
    before = contents(living.repository)
    found = living.ask("check", "--queries", queries, exit_code=FOUND_EXIT_CODE)
    assert contents(living.repository) == before
    assert sorted(found["added"]) == ["other/twice.png", "other/wrong.png"]
    assert list(found["undecodable"]) == ["face/broken.png"]
    assert {"images": ["face/x001.png", "other/twice.png"], "similarity": 1.0} in [
        {"images": sorted(pair["images"]), "similarity": round(pair["similarity"], 3)}
        for pair in found["label_conflicts"]
    ]
    assert (found["base_images_before"]["other"], found["base_images_after"]["other"]) == (3, 5)
    assert [each["image"] for each in found["new_images"]] == ["other/twice.png", "other/wrong.png"]
    for each in found["new_images"]:  # the image itself is the nearest, or its double is
        assert each["before"]["similarity"] <= each["after"]["similarity"] == pytest.approx(1, abs=1e-5)
    text = living.run("check", "--queries", queries).stdout
    assert "undecodable: 1" in text
    assert "McNemar" in text
    assert cached.keys() == contents(living.cache).keys()


def test_check_asks_new_images_as_queries_which_are_answered_so_after_the_change(living: Living) -> None:
    shutil.copy(living.base / "face" / "x001.png", living.base / "other" / "twice.png")
    (found,) = living.ask("check", exit_code=FOUND_EXIT_CODE)["new_images"]
    assert (found["before"]["label"], found["after"]["label"]) == ("face", "face")
    assert "as queries: 1\n  image            label" in living.run("check").stdout
    queries = living.folder / "queries"
    (queries / "other").mkdir(parents=True)
    shutil.copy(living.base / "other" / "twice.png", queries / "other")
    living.ask("sync")
    assert living.ask("check", "--queries", queries)["queries"]["right_after"] == 0


def test_check_says_that_a_sync_would_change_no_image(living: Living) -> None:
    assert "a sync would change no image: version 1 has those of the folder" in living.run("check").stdout
    (living.base / "face" / "x001.png").unlink()
    assert "a sync would change version 1: images: 1 removed" in living.run("check").stdout


def test_flips_are_those_of_the_two_versions_that_answer(living: Living) -> None:
    """The comparison says the same as the served code does with each version's own files."""
    queries = sorted(write_faces(living.folder / "queries", range(10, 40), "q"))
    shutil.copytree(living.base / "other", living.folder / "spare")
    write_faces(living.base / "other", range(120, 130), "more")
    found = living.ask("check", "--queries", living.folder / "queries", exit_code=FOUND_EXIT_CODE)["queries"]
    assert (found["compared"], found["right_before"]) == (len(queries), None)
    assert found["flips"]
    assert {flip["after"]["label"] for flip in found["flips"]} <= {"face", "other"}
    assert all(flip["before"]["label"] != flip["after"]["label"] for flip in found["flips"])
    living.ask("sync")
    back = living.ask("check", "--queries", living.folder / "queries")["queries"]
    assert back["flips"] == []
    shutil.rmtree(living.base / "other")
    shutil.move(living.folder / "spare", living.base / "other")
    reverse = living.ask("check", "--queries", living.folder / "queries")["queries"]
    assert [(flip["query"], flip["before"], flip["after"]) for flip in reverse["flips"]] == [
        (flip["query"], flip["after"], flip["before"]) for flip in found["flips"]
    ]


def test_strict_refuses_what_check_finds(living: Living) -> None:
    shutil.copy(living.base / "face" / "x001.png", living.base / "other" / "twice.png")
    done = living.run("sync", "--strict")
    assert (done.exit_code, "near-duplicates" in done.stderr) == (1, True)
    assert exported_version(living.repository) == Version(number=1, network=1)
    assert living.run("sync").exit_code == 0


def test_folder_that_disappears_is_no_change(living: Living, contents: Contents) -> None:
    before = contents(living.repository)
    aside = living.folder / "aside"
    living.base.rename(aside)
    assert "can't be read" in living.run("sync").stderr
    living.base.mkdir()
    assert "Is a volume not mounted there?" in living.run("sync").stderr
    shutil.copytree(aside / "other", living.base / "other")
    (living.base / "face").mkdir()
    assert "holds no image" in living.run("sync").stderr
    shutil.copy(aside / "face" / "x001.png", living.base / "face")
    for name in ("x102.png", "x103.png"):
        (living.base / "other" / name).unlink()
    done = living.run("sync")
    assert (done.exit_code, "5 of 7 base images would go" in done.stderr) == (1, True)
    assert contents(living.repository) == before
    assert living.ask("sync", "--yes")["base_images"] == {"face": 1, "other": 1}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda living: shutil.rmtree(living.repository), "holds no export"),
        (lambda living: _edit_provenance(living, "graph", "0" * 64), "computed with another classifier"),
        (lambda living: _edit_provenance(living, "software", ["0.0.1", "0"]), "Export it again with export-repository"),
    ],
    ids=["no-repository", "another-network", "other-software"],
)
def test_repository_that_can_not_be_changed_is_named(
    living: Living, damage: Callable[[Living], object], says: str
) -> None:
    damage(living)
    done = living.run("sync")
    assert (done.exit_code, says in done.stderr) == (1, True), done.output


def test_mount_point_is_refused_before_any_work_with_the_remedy(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == living.repository)
    done = living.run("sync")
    assert (done.exit_code, "Mount the folder that holds the repository instead" in done.stderr) == (1, True)


def test_repository_whose_folder_is_not_writable_is_refused_before_any_work(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda folder, _: folder != living.folder)  # root may write everywhere
    done = living.run("sync")
    assert (done.exit_code, f"{living.folder} is not writable." in done.stderr) == (1, True)


def _edit_provenance(living: Living, key: str, value: object) -> None:
    file = living.head(1) / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))


def test_base_set_works_without_torch_and_onnx(living: Living) -> None:
    write_faces(living.base / "face", [5], "new")
    script = (
        "import sys; from inference_server.base_set.command import main\n"
        "main(standalone_mode=False)\n"
        "print({'torch', 'onnx', 'onnxscript'} & sys.modules.keys(), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, "sync", "-data", str(living.base), "--cache", str(living.cache),
               "--model_repository", str(living.repository)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "set()"


def test_command_killed_at_any_moment_leaves_the_old_or_the_new_base_set(living: Living) -> None:
    (extra,) = write_faces(living.folder / "extra", [60], "z")
    kill_syncs(living.repository, living.base, extra, cache=living.cache, times=8)
    assert not list(living.folder.glob(".model_repository*"))
