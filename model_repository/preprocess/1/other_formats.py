"""Names what was sent in place of a supported image, and says what to do about it. Looks at the first bytes only."""

from __future__ import annotations

import re
from typing import NamedTuple

import base64_text

FIRST_BYTES = 2048
CONVERT = "convert it to JPEG or PNG"
_TEXT = re.compile(rb"[\t\n\r\f\x20-\x7e\x80-\xff]+")
_URL = re.compile(rb"\s*(https?|ftp|file|s3|gs|blob):", re.IGNORECASE)
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<")
_JSON = re.compile(rb"\s*[\[{]")


class Found(NamedTuple):
    """What was found: its name, and the remedy."""

    name: str
    remedy: str


_ARCHIVE = "send the images in it one by one"
_PAGES = "send its page as an image"
_VIDEO = "send a frame of it as JPEG or PNG"
# Name, remedy, position and first bytes of each format.
_SIGNATURES = (
    ("a PDF document", _PAGES, 0, b"%PDF-"),
    ("PostScript", CONVERT, 0, b"%!PS"),
    ("JPEG XL", CONVERT, 0, b"\xff\x0a"),
    ("JPEG XL", CONVERT, 4, b"JXL \r\n\x87\n"),
    ("JPEG 2000", CONVERT, 0, b"\xff\x4f\xff\x51"),
    ("JPEG 2000", CONVERT, 4, b"jP  \r\n\x87\n"),
    ("JPEG XR", CONVERT, 0, b"II\xbc"),
    ("a Photoshop file", CONVERT, 0, b"8BPS"),
    ("a GIMP file", CONVERT, 0, b"gimp xcf"),
    ("an icon (ICO)", CONVERT, 0, b"\0\0\1\0"),
    ("QOI", CONVERT, 0, b"qoif"),
    ("OpenEXR", CONVERT, 0, b"\x76\x2f\x31\x01"),
    ("Radiance HDR", CONVERT, 0, b"#?R"),
    ("a DDS texture", CONVERT, 0, b"DDS "),
    ("DICOM", CONVERT, 128, b"DICM"),
    ("camera RAW (CR2)", CONVERT, 8, b"CR\2\0"),
    ("camera RAW (CR3)", CONVERT, 4, b"ftypcrx "),
    ("camera RAW (RAF)", CONVERT, 0, b"FUJIFILMCCD-RAW"),
    ("camera RAW (ORF)", CONVERT, 0, b"IIRO"),
    ("camera RAW (ORF)", CONVERT, 0, b"IIRS"),
    ("camera RAW (ORF)", CONVERT, 0, b"MMOR"),
    ("camera RAW (RW2)", CONVERT, 0, b"IIU\0"),
    ("camera RAW (X3F)", CONVERT, 0, b"FOVb"),
    ("an old Office document", _PAGES, 0, b"\xd0\xcf\x11\xe0"),
    ("a gzip archive", _ARCHIVE, 0, b"\x1f\x8b"),
    ("a 7z archive", _ARCHIVE, 0, b"7z\xbc\xaf\x27\x1c"),
    ("a RAR archive", _ARCHIVE, 0, b"Rar!\x1a\x07"),
    ("a tar archive", _ARCHIVE, 257, b"ustar"),
    ("an MP4 or MOV video", _VIDEO, 4, b"ftyp"),
    ("a MOV video", _VIDEO, 4, b"moov"),
    ("a MOV video", _VIDEO, 4, b"wide"),
    ("a Matroska or WebM video", _VIDEO, 0, b"\x1a\x45\xdf\xa3"),
    ("an AVI video", _VIDEO, 8, b"AVI LIST"),
    ("a sound file", "send an image", 8, b"WAVEfmt "),
    ("a sound file", "send an image", 0, b"ID3"),
    ("a NumPy array", "save it as PNG", 0, b"\x93NUMPY"),
    ("a Git LFS pointer in place of the file", "run: git lfs pull", 0, b"version https://git-lfs"),
)  # fmt: skip


def find(data: bytes) -> Found | None:
    """Name a file that is no supported image; None if it is nothing known."""
    start = data[:FIRST_BYTES]
    if (signed := find_signature(start)) is not None:
        return signed
    if start.startswith(b"PK\3\4"):
        is_office = b"[Content_Types].xml" in start or b"mimetypeapplication" in start
        return Found("an Office document", _PAGES) if is_office else Found("a ZIP archive", _ARCHIVE)
    if re.match(rb"P[1-7]\s", start):
        return Found("Netpbm (PPM, PGM or PBM)", CONVERT)
    if start and not start.strip(b"\0"):
        return Found("zero bytes", "the file may not have been written or copied to its end: send it again")
    return _find_text(start) if _TEXT.fullmatch(start) else None


def find_signature(data: bytes) -> Found | None:
    """Name a file by the first bytes that its format prescribes; None if they are those of no format known here."""
    for name, remedy, position, signature in _SIGNATURES:
        if data.startswith(signature, position):
            return Found(name, remedy)
    return None


def _find_text(start: bytes) -> Found:
    if base64_text.is_data_url(start):
        return Found("a data URL without base64", "write the data as base64, after ';base64,'")
    if _MARKUP.match(start):
        return _find_markup(start.lower())
    if _URL.match(start):
        return Found("the address of a file", "send the file itself, or its base64 text: the server fetches nothing")
    if _JSON.match(start):
        return Found("JSON", "send the image itself: its base64 text alone, if it is in JSON")
    return Found("text", "send the image's bytes, or their base64 text")


def _find_markup(start: bytes) -> Found:
    if b"<svg" in start:
        return Found("an SVG drawing", CONVERT)
    if b"<html" in start or b"<!doctype html" in start:
        return Found("an HTML page", "the download may have answered with an error or a login page: look at it")
    return Found("XML", "send an image")
