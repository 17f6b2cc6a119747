"""``export-repository`` as a user types it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from inference_export.command import main
from inference_export.regular_files import hash_file
from tests import tiny_network
from tests.conftest import LABELS, SMALL, Trained
from tests.resources import write_faces, write_resources

pytestmark = pytest.mark.slow


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def _tree(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): hash_file(file, 2**30) for file in folder.rglob("*") if file.is_file()}


def test_summary_says_mode_checkpoint_classes_and_parity(
    small: Trained, base_data: dict[str, list[Path]], tmp_path: Path
) -> None:
    base = next(iter(base_data.values()))[0].parents[1]
    result = _run("-r", small.folder, "-data", base, "--model_repository", tmp_path / "out", "--image_size", SMALL)
    assert result.exit_code == 0
    for expected in (
        "version 1",
        "clustering",
        "model_7 (the only one)",
        "autistic, non_autistic, other",
        "alpha",
        ": 7",
        "ONNX - PyTorch",
    ):
        assert expected in result.stdout
    assert "embedding base images: 21 of 21" in result.stderr
    assert "embedding" not in result.stdout, "progress belongs on stderr"


def test_graph_keeps_to_what_older_containers_read(small_classification: Path) -> None:
    graph = small_classification / "classifier" / "1" / "model.onnx"
    model = onnx.load(graph)
    assert model.ir_version <= 10
    assert all(opset.version <= 21 for opset in model.opset_import)
    assert not list(small_classification.rglob("*.data"))
    assert b"inference_export/" not in graph.read_bytes(), "paths of this machine are nobody's business"


def test_base_embeddings_are_those_of_unsorted_folders_by_sorted_name(small_clustering: Path) -> None:
    folder = small_clustering / "cluster_head" / "1"
    names = (folder / "base_images.txt").read_text().splitlines()
    assert names == sorted(names)
    embeddings = np.load(folder / "base_embeddings.npy")
    assert embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(len(names)), abs=1e-5)


def test_help_shows_its_examples_line_by_line() -> None:
    assert "  Examples:\n    export-repository -r trained/        " in _run("-h").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-thres", "nan"], id="nan"),
        pytest.param(["-thres", "1.5"], id="threshold-range"),
        pytest.param(["-btch", "0"], id="batch-size"),
        pytest.param(["--image_size", "16"], id="image-size"),
        pytest.param(["-data", "no/such/folder"], id="no-base-data"),
        pytest.param(["--device", "tpu"], id="device"),
        pytest.param(["--unknown_label", ""], id="empty-unknown-label"),
        pytest.param(["--unknown_label", "a\nb"], id="unknown-label-of-two-lines"),
        pytest.param(["--unknown_label", "\udcff"], id="unknown-label-no-utf-8"),
    ],
)
def test_wrong_usage_ends_with_code_2(small: Trained, arguments: list[str]) -> None:
    assert _run("-r", small.folder, *arguments).exit_code == 2


def test_threshold_in_percent_is_wrong_usage_that_names_the_share(small: Trained) -> None:
    result = _run("-r", small.folder, "-thres", "75")
    assert result.exit_code == 2
    assert "For 75 percent, write 0.75." in result.stderr


def test_resources_and_base_data_that_are_swapped_are_told_apart(small: Trained, tmp_path: Path) -> None:
    write_faces(tmp_path / "base" / "a", [1, 2], "x")
    result = _run("-r", tmp_path / "base", "-data", small.folder, "--model_repository", tmp_path / "out")
    assert result.exit_code == 1
    assert "Swap the two" in result.stderr
    assert not (tmp_path / "out").exists()


def test_export_without_resources_names_the_missing_option() -> None:
    result = _run()
    assert result.exit_code == 2
    assert "Missing option '-r'" in result.output


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_a_manual_page(flag: str) -> None:
    result = _run(flag)
    assert result.exit_code == 0
    for expected in ("Examples:", "Exit status:", "-thres, --sim_thres", "-btch, --batch_size", "-data, --base_data"):
        assert expected in result.output


def _no_labels(folder: Path, base: Path) -> None:
    (folder / "labels").unlink()


def _labels_with_code(folder: Path, base: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (eval, ("1",))

    (folder / "labels").write_bytes(pickle.dumps(Code()))


def _other_class_count(folder: Path, base: Path) -> None:
    (folder / "labels").write_bytes(pickle.dumps({"a": 0}))


def _no_models(folder: Path, base: Path) -> None:
    (folder / "models" / "model_7").unlink()


def _one_class(folder: Path, base: Path) -> None:
    for file in (base / "b").iterdir():
        file.unlink()
    (base / "b").rmdir()


def _empty_class(folder: Path, base: Path) -> None:
    (base / "c").mkdir()


def _unreadable_image(folder: Path, base: Path) -> None:
    (base / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (base / "b" / "dangling.jpg").symlink_to("nowhere")


def _circular_link_and_empty_file(folder: Path, base: Path) -> None:
    (base / "a" / "loop.png").symlink_to("loop.png")
    (base / "b" / "nothing.png").touch()


def _circular_class(folder: Path, base: Path) -> None:
    (base / "c").symlink_to("c")


def _class_that_is_its_own_parent(folder: Path, base: Path) -> None:
    (base / "a" / "up").symlink_to("..")


def _dangling_checkpoint(folder: Path, base: Path) -> None:
    (folder / "models" / "model_7").unlink()
    (folder / "models" / "model_7").symlink_to("nowhere")


def _circular_labels(folder: Path, base: Path) -> None:
    (folder / "labels").unlink()
    (folder / "labels").symlink_to("labels")


def _pipe_and_endless_file(folder: Path, base: Path) -> None:
    os.mkfifo(base / "a" / "pipe.png")
    (base / "b" / "zero.png").symlink_to("/dev/zero")


def _nested_folder(folder: Path, base: Path) -> None:
    (base / "a" / "more").mkdir()


def _name_that_is_not_utf8(folder: Path, base: Path) -> None:
    Path(os.fsdecode(os.fsencode(base) + b"/\xff")).mkdir()
    write_faces(base / "a", [3], "y")
    (base / "a" / "y003.png").rename(os.fsdecode(os.fsencode(base) + b"/\xff/y.png"))


def _loose_images(folder: Path, base: Path) -> None:
    for name in ("a", "b"):
        for file in (base / name).iterdir():
            file.rename(base / file.name)
        (base / name).rmdir()


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        pytest.param(_no_labels, ["labels is missing"], id="no-labels"),
        pytest.param(_labels_with_code, ["builtins.eval", "A pickle can run code"], id="labels-with-code"),
        pytest.param(_other_class_count, ["trained for 3 classes", "names 1"], id="class-count"),
        pytest.param(_no_models, ["models holds no file"], id="no-models"),
        pytest.param(_one_class, ["has only one class, a", "--unknown_label"], id="one-class"),
        pytest.param(_empty_class, ["holds no image"], id="empty-class"),
        pytest.param(
            _unreadable_image,
            ["2 of 6 base", "broken.jpg", "dangling.jpg", "--skip_unreadable"],
            id="unreadable",
        ),
        pytest.param(_circular_link_and_empty_file, ["2 of 6 base", "loop.png", "nothing.png: empty"], id="circular"),
        pytest.param(_circular_class, ["c is a link that leads nowhere"], id="circular-class"),
        pytest.param(_class_that_is_its_own_parent, ["folder inside a class folder"], id="own-parent"),
        pytest.param(_dangling_checkpoint, ["model_7 is a link that leads nowhere"], id="dangling-checkpoint"),
        pytest.param(_circular_labels, ["labels"], id="circular-labels"),
        pytest.param(_pipe_and_endless_file, ["2 of 6 base", "pipe.png", "zero.png", "device"], id="pipe"),
        pytest.param(_nested_folder, ["folder inside a class folder"], id="nested"),
        pytest.param(_name_that_is_not_utf8, ["not printable UTF-8"], id="not-utf-8"),
        pytest.param(_loose_images, ["files but no folder"], id="loose-images"),
    ],
)
def test_unusable_input_is_named_and_nothing_is_written(
    small: Trained, tmp_path: Path, spoil: Callable[[Path, Path], None], messages: list[str]
) -> None:
    import shutil

    folder = tmp_path / "trained"
    shutil.copytree(small.folder, folder, copy_function=os.link)
    base = tmp_path / "base"
    write_faces(base / "a", [1, 2], "x")
    write_faces(base / "b", [101, 102], "x")
    labels = (folder / "labels").read_bytes()
    (folder / "labels").unlink()  # a link to the shared one
    (folder / "labels").write_bytes(labels)
    spoil(folder, base)
    result = _run(
        "-r", folder, "-data", base, "--model_repository", tmp_path / "out" / "repository", "--image_size", SMALL
    )
    assert result.exit_code == 1
    for message in messages:
        assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("out/*"))


def test_unreadable_base_images_are_left_out_with_a_note_on_request(tmp_path: Path) -> None:
    trained = tiny_network.write_tiny_resources(tmp_path / "trained")
    base = tmp_path / "base"
    write_faces(base / "a", [1, 2], "x")
    write_faces(base / "b", [101], "x")
    (base / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (base / "a" / ".hidden").write_bytes(b"hidden")
    (base / "notes.txt").write_text("beside")
    out = tmp_path / "out"
    result = _run(
        "-r", trained, "--network", tiny_network.NETWORK, "-data", base, "--model_repository", out, "--skip_unreadable"
    )
    assert result.exit_code == 0
    folder = out / "cluster_head" / "1"
    assert (folder / "base_images.txt").read_text().splitlines() == ["a/x001.png", "a/x002.png", "b/x101.png"]
    assert json.loads((folder / "base_class_sizes.json").read_text()) == [2, 1]
    assert np.load(folder / "base_embeddings.npy").shape == (3, tiny_network.TinyNetwork.embedding_size)
    for noted in ("broken.jpg", ".hidden", "notes.txt"):
        assert noted in result.stdout


@pytest.mark.parametrize("hidden", [False, True], ids=["empty", "hidden-files-only"])
def test_named_base_folder_that_holds_nothing_is_refused(small: Trained, tmp_path: Path, hidden: bool) -> None:
    base = tmp_path / "base"
    base.mkdir()
    if hidden:
        (base / ".DS_Store").write_bytes(b"x")
    result = _run("-r", small.folder, "-data", base, "--model_repository", tmp_path / "out", "--image_size", SMALL)
    assert result.exit_code == 1
    assert "base is named as base data, and holds " in result.stderr
    assert "Is a volume not mounted there?" in result.stderr
    assert not (tmp_path / "out").exists()


def _tiny(tmp_path: Path, *arguments: object) -> Result:
    """Export a network of a few weights."""
    if not (tmp_path / "trained").exists():
        tiny_network.write_tiny_resources(tmp_path / "trained")
        for name in "ab":
            write_faces(tmp_path / "base" / name, [1, 2], "x")
    return _run("-r", tmp_path / "trained", "--network", tiny_network.NETWORK, "--model_repository", tmp_path / "out",
                *arguments)  # fmt: skip


def test_mode_of_a_repository_changes_only_where_that_was_said(tmp_path: Path) -> None:
    base = ("-data", tmp_path / "base")
    assert "mode              clustering\n" in _tiny(tmp_path, *base).stdout
    before = _tree(tmp_path / "out")
    refused = _tiny(tmp_path)
    assert refused.exit_code == 1
    assert "out answers in clustering mode, and this export would change that to classification" in refused.stderr
    assert "say --mode classification" in refused.stderr
    assert _tree(tmp_path / "out") == before
    said = _tiny(tmp_path, "--mode", "classification")
    assert "mode              classification (before: clustering)\n" in said.stdout
    assert "note              the mode has changed: clustering before, classification now" in said.stdout
    assert "say --mode clustering" in _tiny(tmp_path, *base).stderr
    assert "clustering (before: classification)" in _tiny(tmp_path, *base, "--mode", "clustering").stdout


@pytest.mark.parametrize(
    ("mode", "named", "says"),
    [
        pytest.param("clustering", False, "--mode clustering needs base data, and none are named", id="none"),
        pytest.param("classification", True, "--mode classification contradicts the base data", id="some"),
    ],
)
def test_mode_that_contradicts_the_base_data_is_refused(tmp_path: Path, mode: str, named: bool, says: str) -> None:
    result = _tiny(tmp_path, "--mode", mode, *(["-data", tmp_path / "base"] if named else []))
    assert result.exit_code == 1
    assert says in result.stderr


def test_image_size_that_is_not_the_networks_own_is_noted(tmp_path: Path) -> None:
    assert "--image_size" not in _tiny(tmp_path, "--image_size", tiny_network.IMAGE_SIZE).stdout
    assert "--image_size 64 replaces the network's own 32" in _tiny(tmp_path, "--image_size", 64).stdout


def test_class_folders_of_one_name_in_two_spellings_are_refused(small: Trained, tmp_path: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        write_faces(tmp_path / "base" / name, [1], "x")
    result = _run("-r", small.folder, "-data", tmp_path / "base", "--model_repository", tmp_path / "out")
    assert result.exit_code == 1
    assert "'cafe\\u0301' and 'caf\\xe9', which are the same text in two spellings" in result.stderr


_EXPORT_ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size} tmpfs {folder} && exec {python} -m inference_export -r {trained} -data {base} \
  --network {network} --model_repository {folder}/repository --cache {cache}
"""


@pytest.mark.parametrize("size", [pytest.param("400k", id="graph"), pytest.param("1500k", id="embeddings")])
def test_full_disk_is_told_from_a_network_that_cannot_be_exported(tmp_path: Path, size: str) -> None:
    trained = tiny_network.write_tiny_resources(tmp_path / "trained", network=tiny_network.WideNetwork)
    for name in "ab":
        write_faces(tmp_path / "base" / name, range(10), "x")
    (tmp_path / "disk").mkdir()
    script = _EXPORT_ON_A_SMALL_DISK.format(
        size=size, folder=tmp_path / "disk", python=sys.executable, trained=trained, base=tmp_path / "base",
        network=tiny_network.WIDE_NETWORK, cache=tmp_path / "cache",
    )  # fmt: skip
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*command, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be made here: allow user namespaces (kernel.unprivileged_userns_clone=1)")
    done = subprocess.run([*command, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "repository can't be written: the disk is full. Free some space there" in done.stderr


def test_limit_on_the_length_of_files_is_named(tmp_path: Path) -> None:
    trained = tiny_network.write_tiny_resources(tmp_path / "trained", network=tiny_network.WideNetwork)
    command = ["sh", "-c", 'ulimit -f 300; exec "$@"', "sh", sys.executable, "-m", "inference_export", "-r", trained,
               "--network", tiny_network.WIDE_NETWORK, "--model_repository", tmp_path / "out"]  # fmt: skip
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "out can't be written: files may not be that long (see ulimit -f)" in done.stderr


def test_summary_of_a_second_export_says_what_became_of_the_first(tmp_path: Path) -> None:
    assert "restart" not in _tiny(tmp_path).stdout
    second = _tiny(tmp_path).stdout
    assert "version 2" in second
    assert "run reload-repository, or restart it, to serve this one" in second
    third = _tiny(tmp_path, "--image_size", 96).stdout
    assert "version 1" in third
    assert "image size        96 x 96" in third
    assert f"is kept in {tmp_path / 'out.previous'}" in third


def _spoil(small: Trained, folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    state = {key: value.clone() for key, value in small.state.items()}
    return write_resources(folder, {"model_1": change(state)}, {name: index for index, name in enumerate(LABELS)})


def _with(key: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {**state, key: value(state[key])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            _with("classifier.weight", lambda weight: weight.double() * 1e300), "not finite, in classifier", id="huge"
        ),
        pytest.param(_with("resnet.bn1.running_var", lambda var: var - 1e6), "network computes values", id="variance"),
        pytest.param(_with("classifier.weight", lambda weight: weight.to_sparse()), "unusual kind", id="sparse"),
        pytest.param(_with("classifier.weight", lambda weight: weight.to(torch.int32)), "unusual kind", id="integers"),
    ],
)
def test_checkpoint_that_is_no_plain_state_dict_is_named_with_a_remedy(
    small: Trained, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder = _spoil(small, tmp_path / "trained", change)
    result = _run("-r", folder, "--model_repository", tmp_path / "out", "--image_size", SMALL)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_embedding_of_zeros_is_exported(tmp_path: Path) -> None:
    state = {key: torch.zeros_like(value) for key, value in tiny_network.make_state(0).items()}
    write_resources(tmp_path / "trained", {"model_1": state}, {"a": 0, "b": 1})
    result = _tiny(tmp_path)
    assert result.exit_code == 0, result.output


_EXPORT_THAT_PAUSES = """
import sys, time
from inference_export import exporting
from inference_export.command import main
def pause(*_, **__):
    print("paused", flush=True)
    time.sleep(3600)
setattr(exporting, sys.argv.pop(1), pause)
main()
"""


@pytest.mark.parametrize("before", ["export_network", "publish"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_export_that_is_stopped_leaves_the_repository_as_it_was(
    tmp_path: Path, before: str, how: signal.Signals
) -> None:
    assert _tiny(tmp_path).exit_code == 0
    tree = _tree(tmp_path / "out")
    command = [sys.executable, "-c", _EXPORT_THAT_PAUSES, before, "-r", tmp_path / "trained",
               "--network", tiny_network.NETWORK, "--model_repository", tmp_path / "out"]  # fmt: skip
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"paused\n"
        process.send_signal(how)
        assert process.wait() != 0
    assert _tree(tmp_path / "out") == tree
    assert (how == signal.SIGKILL) == bool(list(tmp_path.glob(".out.staging-*"))), "only a killed export leaves files"
