"""One example as bytes: a few integer features and, for evaluation, a JSON object. Knows no file format.

    uint32 n | n x uint32 lengths | int32 payloads, one after the other | UTF-8 JSON, absent when there is none

All little-endian. `flan_jax.tasks.exporting.export` writes records, `flan_jax.data.source` reads them.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.errors import UserError

_PAIR, _INT32 = struct.Struct("<3I"), np.dtype("<i4")


def encode_record(features: Sequence[Sequence[int] | np.ndarray], meta: Mapping[str, Any] | None = None) -> bytes:
    """Writes integer features and an optional JSON object as one record.

    >>> encode_record([[5, 1], [9]]).hex(" ", 4)
    '02000000 02000000 01000000 05000000 01000000 09000000'
    >>> decode_record(encode_record([[5, 1], []], {"gold": 0}))
    ([array([5, 1], dtype=int32), array([], dtype=int32)], {'gold': 0})

    Args:
      features: Any number of integer sequences; values within int32.
      meta: A JSON object; None and {} are the same.
    """
    if len(features) == 2 and type(features[0]) is type(features[1]) is list:
        # What an export writes by the million: lists of 100-odd ids, packed at once twice as fast as by NumPy. Lengths
        # are unsigned by the format, and never so long that it matters.
        inputs, targets = features
        i, t = len(inputs), len(targets)
        record = struct.pack(f"<{3 + i + t}i", 2, i, t, *inputs, *targets)
    else:
        header = struct.pack(f"<{1 + len(features)}I", len(features), *map(len, features))
        record = b"".join((header, *map(_packed, features)))
    return record + json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode() if meta else record


def _packed(feature: Sequence[int] | np.ndarray) -> bytes:
    if isinstance(feature, np.ndarray):
        return feature.astype("<i4", casting="same_kind").tobytes()
    return struct.pack(f"<{len(feature)}i", *feature)


def decode_record(record: bytes) -> tuple[list[np.ndarray], dict[str, Any] | None]:
    """Reads a record back: the features (read-only views, int32) and the JSON object or None.

    Raises:
      UserError: The bytes are not a record.
    """
    features, end = _features(record)
    return features, json.loads(record[end:].decode()) if end < len(record) else None


def decode_features(record: bytes) -> list[np.ndarray]:
    """Reads a record's features alone, without parsing its JSON.

    Raises:
      UserError: The bytes are not a record.
    """
    return _features(record)[0]


def decode_pair(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Reads the two features of an example: all that training needs, on the path that it waits for.

    >>> decode_pair(encode_record([[5, 1], [9]]))
    (array([5, 1], dtype=int32), array([9], dtype=int32))

    Raises:
      UserError: The bytes are not a record of two features.
    """
    try:
        count, inputs, targets = _PAIR.unpack_from(record)
        # A view of the record: nothing is copied until the batch is laid out.
        ids = np.frombuffer(record, _INT32, inputs + targets, _PAIR.size)
    except (struct.error, ValueError):
        count = 0
    if count != 2:
        features, _ = _features(record)  # Raises for what is no record at all.
        raise UserError(f"A record of {len(features)} features is not an example, which has inputs and targets.")
    return ids[:inputs], ids[inputs:]


def _features(record: bytes) -> tuple[list[np.ndarray], int]:
    """Returns the features and where the JSON begins."""
    try:
        (count,) = struct.unpack_from("<I", record)
        lengths = struct.unpack_from(f"<{count}I", record, 4)
        payload = np.frombuffer(record, "<i4", count=sum(lengths), offset=4 + 4 * count)
    except (struct.error, ValueError) as error:
        raise UserError(
            f"Not a record ({len(record)} bytes: {error}). The shard is damaged or was written by something else: "
            "delete its folder and export again."
        ) from None
    features, start = [], 0
    for length in lengths:
        features.append(payload[start : start + length])
        start += length
    return features, 4 * (1 + count + start)
