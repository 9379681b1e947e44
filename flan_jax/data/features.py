"""Tokens of examples -> the arrays of a batch: shift right, loss weights, segments, positions, padding.

As SeqIO's encoder-decoder feature converter lays them out, except that segments and positions are always present (an
unpacked row is segment 1). `packing` decides which examples share a row.
"""

from collections.abc import Sequence

import numpy as np

from flan_jax.data.manifest import Lengths
from flan_jax.errors import UserError
from flan_jax.shapes import DECODER_START_ID, PAD_ID

Tokens = Sequence[int] | np.ndarray
Example = tuple[Tokens, Tokens]
"""Token ids of (inputs, targets), both with their end-of-sequence token, without padding."""

InputsWithOptions = tuple[Tokens, Sequence[Tokens]]
"""Token ids of (inputs, options)."""


def packed_batch(rows: Sequence[Sequence[Example]], *, lengths: Lengths) -> dict[str, np.ndarray]:
    """Lays out rows of several examples each; segments count from 1, positions restart and so does the shift.

    >>> row = [([7, 8, 5, 1], [3, 9, 1]), ([8, 4, 9, 3, 1], [4, 1])]
    >>> show(packed_batch([row], lengths={"inputs": 10, "targets": 7}))
    encoder_input_tokens   7 8 5 1 8 4 9 3 1 0
    encoder_segment_ids    1 1 1 1 2 2 2 2 2 0
    encoder_positions      0 1 2 3 0 1 2 3 4 0
    decoder_input_tokens   0 3 9 0 4 0 0
    decoder_target_tokens  3 9 1 4 1 0 0
    decoder_loss_weights   1 1 1 1 1 0 0
    decoder_segment_ids    1 1 1 2 2 0 0
    decoder_positions      0 1 2 0 1 0 0

    Returns:
      The eight arrays of `shapes.BATCH_KEYS`: int32 [B, S] or [B, T], the loss weights float32.

    Raises:
      UserError: The examples of a row have more tokens than the row.
    """
    batch = _lay_out_pairs(rows, lengths)
    # The shift crosses segments: without this the last target of one example would start the next one.
    batch["decoder_input_tokens"][batch["decoder_positions"] == 0] = DECODER_START_ID
    return batch


def unpacked_batch(examples: Sequence[Example], *, lengths: Lengths) -> dict[str, np.ndarray]:
    """Lays out one example per row. As in SeqIO, the shift moves the last target to the first position after the end.

    >>> show(unpacked_batch([([9, 4, 3, 8, 1], [3, 9, 4, 1])], lengths={"inputs": 7, "targets": 5}))
    encoder_input_tokens   9 4 3 8 1 0 0
    encoder_segment_ids    1 1 1 1 1 0 0
    encoder_positions      0 1 2 3 4 0 0
    decoder_input_tokens   0 3 9 4 1
    decoder_target_tokens  3 9 4 1 0
    decoder_loss_weights   1 1 1 1 0
    decoder_segment_ids    1 1 1 1 0
    decoder_positions      0 1 2 3 0

    Returns:
      As `packed_batch`.

    Raises:
      UserError: An example has more tokens than a row.
    """
    return _lay_out_pairs([[example] for example in examples], lengths)


def options_batch(rows: Sequence[Sequence[InputsWithOptions]], *, lengths: Lengths) -> dict[str, np.ndarray]:
    """Lays out rows of several inputs, each with its options: a decoder segment is one option.

    `decoder_example_ids` is the encoder segment that a decoder position attends to, so that options of the same inputs
    share them and see no other option.

    >>> row = [([7, 8, 1], [[3, 9, 1], [4, 1]]), ([8, 4, 9, 1], [[5, 1]])]
    >>> show(options_batch([row], lengths={"inputs": 8, "targets": 8}))
    encoder_input_tokens   7 8 1 8 4 9 1 0
    encoder_segment_ids    1 1 1 2 2 2 2 0
    encoder_positions      0 1 2 0 1 2 3 0
    decoder_input_tokens   0 3 9 0 4 0 5 0
    decoder_target_tokens  3 9 1 4 1 5 1 0
    decoder_segment_ids    1 1 1 2 2 3 3 0
    decoder_positions      0 1 2 0 1 0 1 0
    decoder_example_ids    1 1 1 1 1 2 2 0

    Returns:
      int32 arrays [B, S] or [B, T].

    Raises:
      UserError: A row has more tokens than it holds.
    """
    batch = _lay_out(
        [[inputs for inputs, _ in row] for row in rows],
        [[option for _, options in row for option in options] for row in rows],
        lengths=lengths,
    )
    del batch["decoder_loss_weights"]
    batch["decoder_input_tokens"][batch["decoder_positions"] == 0] = DECODER_START_ID
    segments = batch["decoder_segment_ids"]
    example_of_segment = np.zeros((len(rows), segments.max(initial=0) + 1), np.int32)
    for numbers, row in zip(example_of_segment, rows, strict=True):
        owners = [example for example, (_, options) in enumerate(row, start=1) for _ in options]
        numbers[1 : len(owners) + 1] = owners
    return batch | {"decoder_example_ids": np.take_along_axis(example_of_segment, segments, axis=1)}


def show(batch: dict[str, np.ndarray], *, row: int = 0) -> None:
    """Prints one row of a batch, one feature per line."""
    for name, array in batch.items():
        print(f"{name:<22}", *(f"{number:g}" for number in array[row]))


def _lay_out_pairs(rows: Sequence[Sequence[Example]], lengths: Lengths) -> dict[str, np.ndarray]:
    inputs, targets = ([[example[side] for example in row] for row in rows] for side in (0, 1))
    return _lay_out(inputs, targets, lengths=lengths)


def _lay_out(
    inputs: Sequence[Sequence[Tokens]], targets: Sequence[Sequence[Tokens]], *, lengths: Lengths
) -> dict[str, np.ndarray]:
    encoder = _place(inputs, length=lengths["inputs"], side="input")
    decoder = _place(targets, length=lengths["targets"], side="target")
    shifted = np.full_like(decoder[0], DECODER_START_ID)
    shifted[:, 1:] = decoder[0][:, :-1]
    return {
        "encoder_input_tokens": encoder[0],
        "encoder_segment_ids": encoder[1],
        "encoder_positions": encoder[2],
        "decoder_input_tokens": shifted,
        "decoder_target_tokens": decoder[0],
        # By segment and not, as in SeqIO, by token: an id 0 within a target has a loss like every other.
        "decoder_loss_weights": (decoder[1] > 0).astype(np.float32),
        "decoder_segment_ids": decoder[1],
        "decoder_positions": decoder[2],
    }


def _place(rows: Sequence[Sequence[Tokens]], *, length: int, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns tokens, segments and positions of the sequences of each row, int32 [B, length]."""
    shape = (len(rows), length)
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    sequences = [sequence for row in rows for sequence in row]
    counts = np.array(list(map(len, sequences)), np.int64)
    used = np.bincount(row_of, weights=counts, minlength=shape[0]).astype(np.int64)
    if used.max(initial=0) > shape[1]:
        row = int(used.argmax())
        raise UserError(
            f"Row {row} has {used[row]} {side} tokens; a row holds {shape[1]}. Shorten its examples when exporting, or "
            "raise the length."
        )
    starts = np.cumsum(counts) - counts
    first = np.searchsorted(row_of, np.arange(shape[0]))  # The first sequence of each row.
    begin = starts - starts[first[row_of]] + row_of * shape[1]
    slots = np.repeat(begin - starts, counts) + np.arange(counts.sum())
    tokens, segments, positions = (np.full(shape, empty, np.int32) for empty in (PAD_ID, 0, 0))
    # The empty array keeps a batch without examples, and its type, valid.
    tokens.reshape(-1)[slots] = np.concatenate([*sequences, np.zeros(0, np.int32)])
    segments.reshape(-1)[slots] = np.repeat(np.arange(len(counts)) - first[row_of] + 1, counts)
    positions.reshape(-1)[slots] = np.arange(counts.sum()) - np.repeat(starts, counts)
    return tokens, segments, positions
