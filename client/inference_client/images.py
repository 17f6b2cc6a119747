"""The kinds of images that a caller may pass, and the bytes to send for each."""

import errno
import io
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeAlias, Union

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

ImageInput: TypeAlias = Union["str | os.PathLike[str] | bytes", "PIL.Image.Image", "NDArray[np.uint8]"]

# The modes that PNG has. Older versions of Pillow also write mode I, as 16 bits; I;16 gives that file in every version.
PNG_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "P", "RGB", "RGBA"})
# Lossless at every level: the fastest.
PNG_COMPRESS_LEVEL = 1
RGB_CHANNELS = 3
IMAGE_DIMENSIONS = 3

# Encoding may read the image's file, which Pillow does not allow in two threads at once.
_encoding = threading.Lock()


def _forget_encoding_after_fork() -> None:
    global _encoding  # noqa: PLW0603  (no thread of the child would release the parent's lock)
    _encoding = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_encoding_after_fork)


class UnreadableImageError(Exception):
    """An image passed the check at the start of the call, but can't be read."""


class Image(Protocol):
    """One image of a call."""

    @property
    def size_bytes(self) -> int:
        """Size of the file to send, bytes; an upper bound for pixels."""

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            UnreadableImageError: The image can't be read; the message says why.
        """


class FileImage:
    """A file on disk, sent unchanged. It is read when its request is sent."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        status = os.stat(path)  # noqa: PTH116 - Path would accept what open() refuses, a null byte for one
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "It is a folder: pass the paths of its images", os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{os.fspath(path)!r} is not a regular file: read it, and pass the bytes")
        os.close(os.open(path, os.O_RDONLY))
        self.path = path
        self.size_bytes = status.st_size

    def read(self) -> bytes:
        """Return the file's bytes."""
        try:
            with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123 - quicker than Path
                return file.readall()
        except OSError as error:
            raise UnreadableImageError(
                f"{os.fspath(self.path)} could no longer be read when its turn came: {error.strerror or error}"
            ) from error


class BytesImage:
    """The bytes of a file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size_bytes = len(content)

    def read(self) -> bytes:
        """Return the bytes."""
        return self.content


class PixelImage:
    """A PIL image, sent as PNG."""

    def __init__(self, image: "PIL.Image.Image") -> None:
        self.image = image
        width, height = image.size
        if not width or not height:
            raise ValueError(f"an image of {width}x{height} pixels has nothing to classify")
        self.size_bytes = width * height * (len(image.getbands()) + 1)

    def read(self) -> bytes:
        """Return the PNG file's bytes."""
        file = io.BytesIO()
        try:
            with _encoding:
                image = self.image
                if image.mode == "I":
                    image = image.convert("I;16")
                elif image.mode == "La":
                    image = image.convert("LA")
                elif image.mode not in PNG_MODES:
                    image = image.convert("RGB")
                image.save(file, format="PNG", compress_level=PNG_COMPRESS_LEVEL)
        except Exception as error:  # Pillow raises almost any type for an image that it can't decode or encode
            raise UnreadableImageError(f"Pillow could not read the image: {error}") from error
        return file.getvalue()


class MissingImage:
    """Stands for an image that can't be sent, so that the other images still get their results."""

    size_bytes = 0

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def read(self) -> bytes:
        """Raise the reason."""
        raise UnreadableImageError(self.reason)


def collect(images: "ImageInput | Iterable[ImageInput]") -> list[Image]:
    """Check one image or several, before anything is sent.

    Args:
        images: A path, the bytes of a file, a PIL image, a uint8 array [height, width, 3] in RGB order, or an iterable
            of these.

    Returns:
        One item per image, in the caller's order.

    Raises:
        OSError: A path can't be read: FileNotFoundError, IsADirectoryError, PermissionError.
        TypeError: Not an image; the message shows what to pass.
        ValueError: An array of another shape, or a file that is not a regular one.
    """
    one = _image(images)
    if one is not None:
        return [one]
    if isinstance(images, (Mapping, Set)) or not isinstance(images, Iterable):
        _refuse(images)
    return [_image(item) or _refuse(item) for item in images]


def collect_to_send(images: "ImageInput | Iterable[ImageInput]") -> list[Image]:
    """Check images as ``collect`` does, and read the image if there is only one.

    For a single small image, the step to another thread would take about as long as reading the file.
    """
    collected = collect(images)
    if len(collected) != 1:
        return collected
    try:
        return [BytesImage(collected[0].read())]
    except UnreadableImageError as error:
        return [MissingImage(str(error))]


def collect_lazily(images: "Iterable[ImageInput]") -> Iterator[Image]:
    """Check images one by one, each when it is taken.

    Args:
        images: Any iterable of images as ``collect`` takes them.

    Returns:
        One item per image, in the caller's order. An image that can't be sent raises the reason when it is read.

    Raises:
        TypeError: ``images`` is not an iterable of images, raised at once; or an item is not an image, raised when the
            item is taken.
    """
    one = (str, os.PathLike, bytes, bytearray, memoryview)
    if isinstance(images, (*one, Mapping, Set)) or not isinstance(images, Iterable):
        raise TypeError(
            f"a stream of images can't be read from {type(images).__name__}: pass an iterable of paths, bytes of "
            "files, PIL images or uint8 arrays, for example target_server.stream(Path('photos').rglob('*.jpg'))"
        )
    return (_image_or_reason(item) for item in images)


def _image_or_reason(item: object) -> Image:
    try:
        return _image(item) or _refuse(item)
    except OSError as error:
        return MissingImage(f"{error.filename} can't be read: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        return MissingImage(str(error))


def _image(item: object) -> Image | None:
    if isinstance(item, (str, os.PathLike)):
        return FileImage(item)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return BytesImage(bytes(item))
    # An image of either kind means that its package is imported already; importing it here would be slow.
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(item, pillow.Image):
        return PixelImage(item)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(item, numpy.ndarray):
        return _array(item)
    return None


def _array(pixels: "NDArray[np.uint8]") -> PixelImage:
    from PIL import Image as PillowImage

    shape = "x".join(map(str, pixels.shape)) or "no dimensions"
    if pixels.dtype != "uint8":
        raise TypeError(
            f"an array of dtype {pixels.dtype} is no image: pass uint8 pixels of 0 to 255; for values of 0 to 1, pass "
            "(array * 255).round().astype('uint8')"
        )
    if pixels.ndim != IMAGE_DIMENSIONS or pixels.shape[2] != RGB_CHANNELS:
        instead = {
            2: "for a grey image, pass np.stack([array] * 3, axis=-1)",
            3: "for RGBA, pass array[..., :3]; for channels first, array.transpose(1, 2, 0)",
            4: "for several images, pass list(array)",
        }.get(pixels.ndim, "pass one image at a time")
        raise ValueError(f"an array of shape {shape} is no image: pass height x width x 3 in RGB order; {instead}")
    return PixelImage(PillowImage.fromarray(pixels))


def _refuse(item: object) -> NoReturn:
    raise TypeError(
        f"{type(item).__name__} is no image: pass a path, the bytes of a file, a PIL image, a uint8 array "
        "[height, width, 3], or a list of these, for example target_server(['a.jpg', 'b.jpg'])"
    )
