"""The options of an export: their defaults, values and descriptions, in one place.

The commands make their options from this class (see ``command_options``), descriptions included.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from inference_export.base_set.decoding import DEFAULT_LIMITS
from inference_export.base_set.embedding_cache import default_cache_folder
from inference_export.network.preprocessing import IMAGE_SIZES
from inference_export.network.source import NETWORK_NAME, suggest_name


@dataclass(frozen=True)
class Range:
    """The values that a number may have, both ends included.

    Attributes:
        low: Smallest value.
        high: Largest value.
    """

    low: float
    high: float

    def admits(self, value: Any) -> bool:
        """Say whether a value is a number in this range; nan is not."""
        return isinstance(value, Real) and self.low <= float(value) <= self.high

    def __str__(self) -> str:
        return f"a number of {self.low} to {self.high}"


@dataclass(frozen=True)
class Form:
    """The form that a text must have.

    Attributes:
        admits: Tells whether a text has the form.
        name: The form in words.
        suggest: Guesses from a text without the form what was meant; "": no guess.
    """

    admits: Callable[[str], object]
    name: str
    suggest: Callable[[str], str] = lambda text: ""

    def __str__(self) -> str:
        return self.name


# An option that changes no result, or whose files are recorded instead.
_UNRECORDED = {"recorded": False}
# An option of the base set alone, which a change of the base set may change.
_BASE_SET = {"base_set": True}
_BATCHES = Range(1, 1024)
_LABEL = Form(lambda text: text.strip() and text.isprintable(), "printable text, and not empty")
_NETWORK = Form(
    NETWORK_NAME.fullmatch, "of the form package.module:factory, as in my_networks:make_network", suggest_name
)

_OUTPUTS = Form(re.compile(r"[^,]+,[^,]+").fullmatch, "two names with a comma between them, as in embedding,logits")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and where to.

    The command ``export-repository`` has an option for each attribute, with the same name and default. Folders may
    be text as well.

    Attributes:
        resources: Trained resources: labels, models/ and logs/logs, as the trainer wrote them. Or a checkpoint file,
            with its labels beside it.
        base_data: Base data: a folder for each class, with its reference images inside. With base data the server
            answers in clustering mode, without them in classification mode. A folder that is named and empty is an
            error.
        mode: The mode to export: clustering needs base data, classification takes none. Name it to change the mode of
            an existing repository. Otherwise such an export is refused, so that missing base data change nothing.
        sim_thres: Smallest cosine similarity at which a base image counts as a match. Clustering mode only; a request
            can override it.
        batch_size: Base images embedded at a time during the export. A larger batch takes more memory and changes no
            result.
        model_repository: The model repository to write.
        checkpoint: The checkpoint to serve, where the resources hold several and no logs: a name in models/, or a path.
        checkpoint_key: The key of the weights in a training checkpoint that holds several, such as model_ema, or
            outer.inner.
        network: A network of your own: a function or class of a module that Python can import from the current
            folder. Called with the number of classes, it returns a torch.nn.Module that returns (embedding, logits).
            The export runs the module's code.
        outputs: The outputs of a complete network (.pt2, .onnx) that are the embeddings and the logits, where their
            names and shapes don't tell.
        image_size: Side in pixels of the network's images: the one that the network was trained with.
        preprocessing: A JSON file that says how training brought an image to the network: image_size, mean, std,
            resize, interpolation, orientation and channels, or timm's pretrained_cfg. It replaces the network's own.
            Without this option, a preprocessing.json beside the checkpoint or in the resources is read.
        max_batch_size: Most images in one request to the server, and in one run of the network.
        unknown_label: Label of a query that no base image matches. Clustering mode only; without it such a query gets
            the class of the most similar base image.
        neighbors: Number of most similar base images that an answer names. Clustering mode only.
        skip_unreadable: Leave out base images that do not decode, instead of failing.
        device: Where the server runs the network.
        cpus: Cores that the server may use; 0: all that it finds when it starts. In a container that is limited to
            fewer cores than its machine has, give its limit.
        decode: How JPEGs are decoded. exact: at their full size. reduced: at half of their size or less if both sides
            are at least four times the image size. This is about 1.7 times as fast on photographs of many megapixels,
            and changes their pixels by at most 4 of 255 levels; for patterns as fine as a pixel there is no bound.
        max_image_bytes: Longest file that is decoded. This limit and the next three hold for base images too.
        max_image_pixels: Most pixels, width times height, of an image that is decoded. Decoding may take 7 bytes of
            memory for each pixel, and 50 MB; an image whose format needs more is refused. The default admits
            photographs of 50 megapixels.
        max_jpeg_scans: Most scans of a JPEG that is decoded. Progressive JPEGs have about 10; a file of a few kilobytes
            with hundreds of scans takes seconds.
        max_image_seconds: Most processor time to decode an image, in seconds; the images of a request may take 2.5
            times as long together. A photograph of 50 megapixels takes about 1 s. Raise the limit for a server with
            slow cores.
        precision: What the network computes with. int8: 1.6 to 2.9 times as fast on a CPU, depending on the processor.
            fp16: for GPUs. Both are checked against fp32, on images that took no part in the calibration. auto: int8 on
            a CPU, fp16 on a GPU, if the check passes and this machine is faster with it; otherwise fp32. The summary
            says why.
        calibration: Images like those that will be asked about, at any depth: half of them calibrate int8, the others
            check it. Needed for int8 and fp16 in classification mode.
        accept_loss: Export int8 or fp16 even if labels or embeddings differ from those of fp32 by more than is sound.
        cache: Folder that keeps computed embeddings, so that a grown base set, or an interrupted export, computes only
            what is new.

    Raises:
        ValueError: A value is out of its range, or not one of its choices.
    """

    resources: Path = field(metadata=_UNRECORDED)
    base_data: Path | None = field(default=None, metadata=_UNRECORDED)
    mode: Literal["classification", "clustering"] | None = field(default=None, metadata=_UNRECORDED)
    sim_thres: Annotated[float, Range(-1, 1)] = field(default=0.75, metadata=_BASE_SET)
    batch_size: Annotated[int, _BATCHES] = field(default=32, metadata=_UNRECORDED)
    model_repository: Path = field(default=Path("model_repository"), metadata=_UNRECORDED)
    checkpoint: Path | None = field(default=None, metadata=_UNRECORDED)
    checkpoint_key: str | None = None
    network: Annotated[str | None, _NETWORK] = field(default=None, metadata=_UNRECORDED)
    outputs: Annotated[str | None, _OUTPUTS] = None
    image_size: Annotated[int | None, Range(*IMAGE_SIZES)] = None
    preprocessing: Path | None = field(default=None, metadata=_UNRECORDED)
    max_batch_size: Annotated[int, _BATCHES] = 32
    unknown_label: Annotated[str | None, _LABEL] = field(default=None, metadata=_BASE_SET)
    neighbors: Annotated[int, Range(1, 1000)] = field(default=5, metadata=_BASE_SET)
    skip_unreadable: bool = field(default=False, metadata=_BASE_SET)
    device: Literal["cpu", "gpu"] = "cpu"
    cpus: Annotated[int, Range(0, 1024)] = 0
    decode: Literal["exact", "reduced"] = "exact"
    max_image_bytes: Annotated[int, Range(1, 2**30)] = DEFAULT_LIMITS.file_bytes
    max_image_pixels: Annotated[int, Range(1, 10**9)] = DEFAULT_LIMITS.pixels
    max_jpeg_scans: Annotated[int, Range(1, 10_000)] = DEFAULT_LIMITS.scans
    max_image_seconds: Annotated[float, Range(0.1, 600)] = DEFAULT_LIMITS.seconds
    precision: Literal["fp32", "fp16", "int8", "auto"] = "fp32"
    calibration: Path | None = field(default=None, metadata=_UNRECORDED)
    accept_loss: bool = field(default=False, metadata=_UNRECORDED)
    cache: Path = field(default_factory=default_cache_folder, metadata=_UNRECORDED)

    def __post_init__(self) -> None:
        for option in read_options():
            value = getattr(self, option.name)
            if option.kind is Path and isinstance(value, str):
                object.__setattr__(self, option.name, Path(value))
            if value is not None or option.default is not None:
                option.check(value)


def recorded_options(options: ExportOptions) -> dict[str, Any]:
    """Return the options that an export's result depends on: if one differs, so does the export."""
    return {each.name: getattr(options, each.name) for each in fields(options) if each.metadata.get("recorded", True)}


def base_set_options() -> frozenset[str]:
    """Return the names of the options that a change of the base set may change."""
    return frozenset(each.name for each in fields(ExportOptions) if each.metadata.get("base_set", False))


@dataclass(frozen=True, kw_only=True)
class Option:
    """An attribute of ``ExportOptions``, for a command that offers it.

    Attributes:
        name: The attribute's name.
        kind: Type of the values.
        choices: All allowed values; empty: not limited to some.
        limit: The range or form of allowed values; None: any value of the type.
        default: The default, or a function that returns it; ``MISSING``: there is none.
        description: The attribute's description in the class's docstring.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    limit: Range | Form | None
    default: Any
    description: str

    def check(self, value: Any) -> None:
        """Refuse a value that is not allowed.

        Raises:
            ValueError: The value is out of range, or not one of the choices.
        """
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} is {value!r}, and must be one of {', '.join(self.choices)}.")
        if self.limit is not None and not self.limit.admits(value):
            guess = self.limit.suggest(value) if isinstance(self.limit, Form) else ""
            meant = f" Did you mean {guess}?" if guess else ""
            raise ValueError(f"{self.name} is {value!r}, and must be {self.limit}.{meant}")


@cache
def read_options() -> tuple[Option, ...]:
    """Read the attributes of ``ExportOptions`` from its annotations, defaults and docstring."""
    attributes = (inspect.getdoc(ExportOptions) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    descriptions = re.findall(r"(?ms)^    (\w+): (.*?)(?=^    \w|\Z)", attributes)
    described = {name: " ".join(text.split()) for name, text in descriptions}
    hints = get_type_hints(ExportOptions, include_extras=True)
    return tuple(
        _read_option(
            hints[attribute.name],
            attribute.name,
            attribute.default_factory if attribute.default is MISSING else attribute.default,
            described.get(attribute.name, ""),
        )
        for attribute in fields(ExportOptions)
    )


def _read_option(hint: Any, name: str, default: Any, description: str) -> Option:
    limit = None
    if get_origin(hint) is Annotated:
        hint, limit = get_args(hint)
    if type(None) in get_args(hint):  # `X | None`
        hint = get_args(hint)[0]
    choices = get_args(hint)  # of a Literal
    kind = type(choices[0]) if choices else hint
    return Option(name=name, kind=kind, choices=choices, limit=limit, default=default, description=description)
