"""AVIF and HEIC files: their decoders, where installed, and what such a file says before a decoder sees it.

Both are boxes within boxes (ISO/IEC 14496-12, "ISOBMFF"), which describe items (ISO/IEC 23008-12, "HEIF"). The decoders
allocate what the boxes claim, so this module reads the claims itself: in bounded time, and without recursion.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HEIC, AVIF = "HEIC", "AVIF"
PLUGINS: dict[str, str] = {}  # the format's name in Pillow, for each format that this installation decodes
# For the sender of a file in a format that this installation does not decode.
REMEDIES = {
    HEIC: "install the extra heif on the server (pip install 'classify-triton[heif]'), or convert it to JPEG",
    AVIF: "install Pillow 11.3 or later on the server, or convert it to JPEG",
}
MOST_BOXES = 4000  # a photograph of 48 megapixels has some 250
MOST_FRAMES = 10_000
# Memory for each pixel, and besides for each byte of a pixel as it is coded (1.5 bytes in ordinary photographs).
PIXEL_BYTES = {HEIC: 5.6, AVIF: 8.0}
CODED_BYTES = {HEIC: 1.5, AVIF: 2.0}
METADATA_COPIES = 3

_SEQUENCES = {b"avis": AVIF, b"hevc": HEIC, b"hevx": HEIC, b"hevm": HEIC, b"hevs": HEIC, b"msf1": HEIC}
_STILLS = {b"avif": AVIF, b"heic": HEIC, b"heix": HEIC, b"heim": HEIC, b"heis": HEIC, b"mif1": HEIC}
_CODED = {b"av01": AVIF, b"hvc1": HEIC, b"hev1": HEIC}
_OTHER_CODED = {b"vvc1": "VVC", b"avc1": "H.264", b"jpeg": "JPEG", b"j2k1": "JPEG 2000"}
_DERIVED = (b"grid", b"iovl", b"iden")
_INSIDE = {  # a box's children that are looked into
    b"": (b"meta", b"moov"),
    b"meta": (b"iprp", b"iinf"),
    b"iprp": (b"ipco",),
    b"moov": (b"trak",),
    b"trak": (b"mdia",),
    b"mdia": (b"minf",),
    b"minf": (b"stbl",),
    b"stbl": (b"stsd",),
}
_HEADER_BYTES = {b"meta": 4, b"stsd": 8}  # before a box's children; iinf's depends on its version
_SHORT_NUMBERS, _LONG_NUMBERS = 2, 2  # last version of infe with item numbers of 2 bytes; version of iloc with 4
_MOST_EXTENTS = 32  # of an item; libheif refuses more
_ALPHA = (b":auxiliary:alpha\0", b":auxid:1\0")
_MONOCHROME, _FULL_COLOR = 1.0, 3.0
_HEVC_SAMPLES = (_MONOCHROME, 1.5, 2.0, _FULL_COLOR)


def _install() -> None:
    with contextlib.suppress(ImportError):  # before Pillow 11.3
        from PIL import AvifImagePlugin

        if AvifImagePlugin.SUPPORTED:
            AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a decoder has one core
            if AvifImagePlugin.get_codec_version("dav1d"):
                AvifImagePlugin.DECODE_CODEC_CHOICE = "dav1d"
            PLUGINS[AVIF] = "AVIF"
    with contextlib.suppress(ImportError):
        import pillow_heif

        # No threads, and nothing but the image.
        pillow_heif.register_heif_opener(decode_threads=0, thumbnails=False, depth_images=False, aux_images=False)
        PLUGINS[HEIC] = "HEIF"


_install()


class BrokenBoxesError(ValueError):
    """The boxes of a file contradict each other, or one is cut short."""


class CrowdedError(ValueError):
    """A file has more boxes or frames than any image needs."""


class Claims(NamedTuple):
    """What a file claims to hold.

    Attributes:
        format: ``HEIC`` or ``AVIF``; the name of another coding that the container can hold, such as "HEIF with VVC".
        width: Width in pixels of the largest picture that a decoder may have to hold.
        height: Height of the same picture.
        coded_bytes: Bytes of a pixel as it is coded: 1.5 with colors halved both ways, 3 in full color, twice as many
            where a color has more than 8 bits, more with alpha.
        metadata_bytes: Sum of the lengths of all items that are no images.
    """

    format: str
    width: int
    height: int
    coded_bytes: float
    metadata_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Memory that grows with the file's claims: for pixels and metadata."""
        pixel_bytes = PIXEL_BYTES[self.format] + CODED_BYTES[self.format] * self.coded_bytes
        return int(pixel_bytes * self.width * self.height) + METADATA_COPIES * self.metadata_bytes


class _Box(NamedTuple):
    parent: bytes
    kind: bytes
    start: int  # of its contents
    end: int


def read_claims(data: bytes) -> Claims | None:
    """Read what an AVIF or HEIC file claims; None for any other file.

    Raises:
        BrokenBoxesError: A box is cut short, or the file lacks one that it needs.
        CrowdedError: The file has more than ``MOST_BOXES`` boxes or ``MOST_FRAMES`` frames.
    """
    brand = data[8:12]
    if data[4:8] != b"ftyp" or brand not in _STILLS.keys() | _SEQUENCES.keys():
        return None
    try:
        return _Reader(data, brand).claims()
    except (struct.error, IndexError) as error:
        raise BrokenBoxesError("a box is cut short") from error


class _Reader:
    def __init__(self, data: bytes, brand: bytes) -> None:
        self._data = data
        self._brand = brand
        self._kinds: dict[int, bytes] = {}  # of items
        self._primary: int | None = None
        self._sides: list[tuple[int, int]] = []
        self._samples = _MONOCHROME
        self._is_deep = self._has_alpha = self._has_frames = False
        self._iloc: _Box | None = None
        self._idat = 0

    def claims(self) -> Claims:
        for box in self._boxes():
            self._read(box)
        places, metadata_bytes = self._places()
        for item, kind in self._kinds.items():
            if kind in (b"grid", b"iovl"):
                self._read_canvas(places.get(item, len(self._data)), kind)
        if not self._sides:
            raise BrokenBoxesError("no box has the size of the image")
        width, height = max(self._sides, key=lambda sides: sides[0] * sides[1])
        coded_bytes = (self._samples + self._has_alpha) * (2 if self._is_deep else 1)
        return Claims(self._format(), width, height, coded_bytes, metadata_bytes)

    def _format(self) -> str:
        kind = self._kinds.get(self._primary if self._primary is not None else -1, b"")
        if kind in _DERIVED:
            kind = next((coded for coded in _CODED if coded in self._kinds.values()), b"")
        if kind in _CODED:
            return _CODED[kind]
        if self._has_frames and self._brand in _SEQUENCES:
            return _SEQUENCES[self._brand]
        if not kind:
            raise BrokenBoxesError("no item is the image")
        return f"HEIF with {_OTHER_CODED.get(kind, 'another coding')}"

    def _boxes(self) -> Iterator[_Box]:
        """Yield the boxes that are looked at, outer ones first."""
        todo = [(b"", 0, len(self._data))]
        count = 0
        while todo:
            parent, position, end = todo.pop()
            while position + 8 <= end:
                count += 1
                if count > MOST_BOXES:
                    raise CrowdedError(f"more than {MOST_BOXES:,} boxes")
                box = self._box(parent, position, end)
                yield box
                if box.kind in _INSIDE.get(parent, ()):
                    todo.append((box.kind, box.start + self._skipped(box), box.end))
                position = box.end

    def _box(self, parent: bytes, position: int, end: int) -> _Box:
        size, kind = struct.unpack_from(">I4s", self._data, position)
        start = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", self._data, start)
            start += 8
        elif size == 0:  # to the end
            size = end - position
        # A file's last box, of coded data, may be cut short; its decoder sees to that.
        if position + size < start or (position + size > end and parent):
            raise BrokenBoxesError("a box has an impossible length")
        return _Box(parent, kind, start, min(position + size, end))

    def _skipped(self, box: _Box) -> int:
        if box.kind == b"iinf":
            return 8 if self._data[box.start] else 6
        return _HEADER_BYTES.get(box.kind, 0)

    def _read(self, box: _Box) -> None:
        data, start = self._data, box.start
        if box.kind == b"ispe":
            self._sides.append(struct.unpack_from(">II", data, start + 4))
        elif box.kind == b"infe":
            number_bytes = 2 if data[start] <= _SHORT_NUMBERS else 4
            kind_at = start + 4 + number_bytes + 2
            self._kinds[self._number(start + 4, number_bytes)] = data[kind_at : kind_at + 4]
        elif box.kind == b"pitm":
            self._primary = self._number(start + 4, 4 if data[start] else 2)
        elif box.kind == b"hvcC":
            self._samples = max(self._samples, _HEVC_SAMPLES[data[start + 16] & 3])
            self._is_deep |= bool(data[start + 17] & 7)
        elif box.kind == b"av1C":
            self._read_av1(data[start + 2])
        elif box.kind == b"auxC":
            self._has_alpha |= any(name in data[start : start + 64] for name in _ALPHA)
        elif box.kind == b"iloc":
            self._iloc = box
        elif box.kind == b"idat":
            self._idat = start
        elif box.kind == b"stsz" and self._number(start + 8, 4) > MOST_FRAMES:
            raise CrowdedError(f"more than {MOST_FRAMES:,} frames")
        elif box.parent == b"stsd":
            self._has_frames = True
            self._sides.append(struct.unpack_from(">HH", data, start + 24))
            self._samples, self._is_deep = _FULL_COLOR, True  # the worst, since its own boxes are not looked into
        elif box.kind == b"tkhd":
            width, height = struct.unpack_from(">II", data, box.end - 8)
            self._sides.append((width >> 16, height >> 16))

    def _read_av1(self, bits: int) -> None:
        self._is_deep |= bool(bits & 0x40)
        if not bits & 0x10:  # not monochrome
            self._samples = max(self._samples, 1.5 if bits & 0x04 else 2.0 if bits & 0x08 else _FULL_COLOR)

    def _number(self, position: int, length: int) -> int:
        return int.from_bytes(self._data[position : position + length], "big")

    def _read_canvas(self, position: int, kind: bytes) -> None:
        """Read the size of an image that is put together of others: a grid, or images laid over each other."""
        length = 4 if self._data[position + 1] & 1 else 2
        position += 4 if kind == b"grid" else 10
        self._sides.append((self._number(position, length), self._number(position + length, length)))

    def _places(self) -> tuple[dict[int, int], int]:
        """Return the position of each item's first byte, and the sum of the lengths of the items that are no images."""
        places: dict[int, int] = {}
        metadata_bytes = 0
        if self._iloc is None:
            return places, 0
        position = self._iloc.start
        version, sizes, more_sizes = self._data[position], self._data[position + 4], self._data[position + 5]
        offset_bytes, length_bytes, base_bytes = sizes >> 4, sizes & 15, more_sizes >> 4
        index_bytes = more_sizes & 15 if version else 0
        number_bytes = 4 if version == _LONG_NUMBERS else 2
        position += 6
        count = self._number(position, number_bytes)
        position += number_bytes
        for _ in range(min(count, MOST_BOXES)):
            item = self._number(position, number_bytes)
            position += number_bytes
            in_idat = bool(version) and self._number(position, 2) & 15 == 1
            position += 4 if version else 2
            place = self._number(position, base_bytes) + (self._idat if in_idat else 0)
            position += base_bytes
            extents = self._number(position, 2)
            position += 2
            places[item] = place + self._number(position + index_bytes, offset_bytes)
            extent_bytes = index_bytes + offset_bytes + length_bytes
            if self._kinds.get(item) not in (*_CODED, *_DERIVED):
                for extent in range(min(extents, _MOST_EXTENTS)):
                    end = position + (extent + 1) * extent_bytes
                    metadata_bytes += self._number(end - length_bytes, length_bytes)
            position += extents * extent_bytes
        return places, metadata_bytes
