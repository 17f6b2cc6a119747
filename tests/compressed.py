"""Small bodies that decompress to enormous ones."""

from __future__ import annotations

import struct
import zlib

_MIB = 1 << 20
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # gzip without a name


def compressed_spaces(mebibytes: int) -> bytes:
    """Compress this many MiB of spaces with gzip to a thousandth of the size, within seconds."""
    spaces = b" " * _MIB
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = compressor.compress(spaces) + compressor.flush(zlib.Z_FULL_FLUSH)  # which stands alone
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(spaces, checksum)
    length = mebibytes * _MIB % 2**32
    return b"".join([_HEADER, *[block] * mebibytes, compressor.flush(), struct.pack("<II", checksum, length)])
