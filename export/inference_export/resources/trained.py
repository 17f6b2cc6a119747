"""Where the files that training left lie: in a folder of trained resources, or around one checkpoint file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference_export.errors import ResourcesError
from inference_export.resources.preprocessing_file import PREPROCESSING_FILE

MODELS = "models"
LOGS = "logs/logs"
LABELS = ("labels", "labels.json", "labels.txt")
# What may lie beside checkpoints, and is none.
_BESIDE = frozenset({*LABELS, PREPROCESSING_FILE})
_EXTERNAL_DATA = (".onnx.data", ".onnx_data")


@dataclass(frozen=True, kw_only=True)
class TrainedResources:
    """The places of trained resources.

    Attributes:
        folder: The folder of ``labels``, ``models/`` and ``logs/logs``, or that of the checkpoint.
        named: The checkpoint that the user names; None: one of ``models/`` is selected.
        labels_folders: The folders in which labels are looked for.
    """

    folder: Path
    named: Path | None
    labels_folders: tuple[Path, ...]

    def labels_files(self) -> list[Path]:
        """List the files of labels that exist."""
        return [path for folder in self.labels_folders for name in LABELS if (path := folder / name).exists()]


def locate(resources: Path, checkpoint: Path | None = None) -> TrainedResources:
    """Locate trained resources, without reading any file.

    Args:
        resources: The folder of the trained resources, or a checkpoint file.
        checkpoint: The checkpoint: a path, or a name in ``models/``; None: not named.

    Raises:
        ResourcesError: There is no such file, or ``resources`` names another checkpoint.
    """
    if resources.is_dir():
        named = None if checkpoint is None else _find(resources, checkpoint)
        return TrainedResources(folder=resources, named=named, labels_folders=(resources,))
    if checkpoint is not None:
        raise ResourcesError(
            f"-r names the file {resources}, and --checkpoint {checkpoint}. Name one checkpoint: leave --checkpoint "
            f"out, or name the folder of the trained resources with -r.",
            checkpoint,
        )
    if not resources.exists():
        raise ResourcesError(f"{resources} does not exist. Name the trained resources with -r.", resources)
    folder = resources.parent
    folders = (folder, folder.parent) if folder.absolute().name == MODELS else (folder,)
    return TrainedResources(folder=folders[-1], named=resources, labels_folders=folders)


def list_checkpoints(resources: Path) -> list[Path]:
    """List the files in ``models/``, sorted by name, except hidden ones and those that accompany a checkpoint.

    Args:
        resources: Folder of the trained resources.

    Raises:
        ResourcesError: The folder is missing, holds no file, or holds a link that leads nowhere.
    """
    folder = resources / MODELS
    if not folder.is_dir():
        if (resources / "saved_model.pb").exists():
            raise ResourcesError(
                f"{resources} is a TensorFlow SavedModel. Convert the network to an .onnx file that returns "
                f"(embedding, logits), for example with tf2onnx, and name that file with -r.",
                resources,
            )
        raise ResourcesError(
            f"{folder} is missing. It must hold one or more checkpoints. A single checkpoint can be named itself: "
            f"-r FILE.",
            folder,
        )
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in visible:
        if not path.exists():
            raise ResourcesError(f"{path} is a link that leads nowhere. Mend or remove it.", path)
    files = [
        path
        for path in visible
        if path.is_file() and path.name not in _BESIDE and not path.name.endswith(_EXTERNAL_DATA)
    ]
    if not files:
        raise ResourcesError(f"{folder} holds no file. It must hold one or more checkpoints.", folder)
    return files


def _find(resources: Path, checkpoint: Path) -> Path:
    for path in (resources / MODELS / checkpoint, checkpoint):
        if path.exists():
            return path
    raise ResourcesError(
        f"--checkpoint {checkpoint}: there is no such file, neither in {resources / MODELS} nor here ({Path.cwd()}).",
        checkpoint,
    )
