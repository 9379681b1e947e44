"""Event files for TensorBoard, written without TensorFlow: record framing and the protocol buffers of a scalar.

A record is its length (uint64), the masked CRC-32C of the length, the bytes, and the masked CRC-32C of the bytes, all
little-endian. The bytes are an `Event`:

    Event:      1 wall_time (double)   2 step (int64)   3 file_version   5 summary   7 session_log
    Summary:    1 value (repeated)     Value: 1 tag (string), 2 simple_value (float)
    SessionLog: 1 status (START = 1)
"""

import os
import socket
import struct
import time
from pathlib import Path
from typing import BinaryIO, Self, final

from flan_jax.train.writers import Values, Writer


@final
class TensorBoardWriter(Writer):
    """Scalars `<kind>/<name>`, in one event file per process. A resumed run hides the steps that it repeats."""

    def __init__(self, directory: Path | str, *, resumed_step: int = 0):
        """Stores the settings; the file is opened on entering.

        Args:
          directory: Created when absent.
          resumed_step: The step that the run was resumed at; TensorBoard then ignores later steps of earlier files.
        """
        self._directory = Path(directory)
        self._resumed_step = resumed_step
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**6}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(self._directory / name, "wb")
        self._append(_text(3, "brain.Event:2"), step=0)
        self._append(_message(7, _varint(1 << 3) + _varint(1)), step=self._resumed_step + 1)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, step: int, *, kind: str, values: Values) -> None:
        """Appends one event with all numbers and flushes the file."""
        scalars = [
            _message(1, _text(1, f"{kind}/{name}") + _varint(2 << 3 | 5) + struct.pack("<f", value))
            for name, value in values.items()
            if value is not None
        ]
        self._append(_message(5, b"".join(scalars)), step=step)

    def _append(self, content: bytes, *, step: int) -> None:
        assert self._file is not None, "entered first"
        event = _varint(1 << 3 | 1) + struct.pack("<d", time.time()) + _varint(2 << 3) + _varint(step) + content
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked_crc(length) + event + _masked_crc(event))
        self._file.flush()


def _message(field: int, content: bytes) -> bytes:
    """Encodes a field of length-delimited bytes: wire type 2."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _varint(number: int) -> bytes:
    """Encodes seven bits per byte, lowest first, with the high bit set on all bytes except the last.

    >>> _varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli) of a byte string.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    """Returns the checksum as the framing stores it: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
