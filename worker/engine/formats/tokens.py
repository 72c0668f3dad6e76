"""Token ids for language modelling: windows of a long text, and the token that comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.domain.errors import InvalidFile, InvalidInput
from worker.engine.formats.dataset_checks import Contents
from worker.engine.formats.dataset_labels import IGNORED, read_labels
from worker.engine.formats.dataset_options import TokenOptions
from worker.engine.formats.label_rows import LabelRows, held
from worker.engine.formats.sources import Source, blocks

HEAD = 1024


@dataclass(frozen=True)
class Text:
    """One part's inputs and the token that is wanted at each of its positions.

    `labels[i, t]` is the token after position t of sample i, -100 where there is none.
    """

    arrays: tuple[Any, ...]
    labels: LabelRows
    is_stream: bool


def read_text(
    source: Source, contents: Contents, options: TokenOptions, notes: list[str]
) -> dict[str, Text]:
    """The inputs and labels of every part. Raises InvalidFile, InvalidInput.

    The first input holds token ids, `(samples, length)` or one long text `(tokens,)`, which is cut
    into windows of `options.block`. Labels are those of the file, or the ids moved by one.
    """
    mask = _mask_number(source, contents, options, notes)
    return {part: _part(source, contents, part, mask, options, notes) for part in contents.x}


def next_tokens(
    tokens: Any, mask: Any = None, pad_token: int | None = None, shift: bool = True
) -> LabelRows:
    """Labels `(samples, length)` out of ids: what comes after each position, -100 at the end.

    Tokens that `mask` marks with 0 and tokens equal to `pad_token` are nobody's next token. Without
    `shift` the ids are labels already.
    """

    def read(rows: Any) -> np.ndarray:
        ids = np.asarray(tokens[rows]).astype(np.int64)
        if mask is not None:
            ids[~np.asarray(mask[rows]).astype(bool)] = IGNORED
        if pad_token is not None:
            ids[ids == pad_token] = IGNORED
        if not shift:
            return ids
        labels = np.full_like(ids, IGNORED)
        labels[..., :-1] = ids[..., 1:]
        return labels

    return LabelRows(read, tuple(tokens.shape), np.dtype(np.int64))


def check_tokens(name: str, tokens: Any) -> None:
    """Reads ids through: none may be negative. Raises InvalidFile."""
    if tokens.dtype.kind != "i":
        return
    position = 0
    for block in blocks(tokens):
        if (block < 0).any():
            row = position + int(np.argmax((block < 0).reshape(len(block), -1).any(axis=1)))
            raise InvalidFile(
                f"{name} has negative token ids; the first is in row {row}.",
                "Pad with a token of the vocabulary and name it with the option pad_token.",
            )
        position += len(block)


def _part(
    source: Source,
    contents: Contents,
    part: str,
    mask: int | None,
    options: TokenOptions,
    notes: list[str],
) -> Text:
    names = contents.x[part]
    arrays = tuple(source.array(name) for name in names)
    ids, y = arrays[0], contents.y.get(part)
    given = None
    if y is not None:
        given, _ = read_labels(source, y, "language-modelling")
        if given.shape != ids.shape:
            raise InvalidFile(
                f"{y} has the shape {given.shape}, but {names[0]} has {tuple(ids.shape)}; a "
                "language model predicts one token at each position.",
                f"Leave {y} out: the labels are then made from the ids.",
            )
    is_stream = ids.ndim == 1
    if is_stream:
        ids, left_over = _windows(ids, names[0], options.block, len(arrays))
        arrays = (ids,)
        more = f"; the last {left_over:,} are left out" if left_over else ""
        notes.append(
            f"{names[0]} was read as one text of {source.header(names[0]).shape[0]:,} tokens, in "
            f"{len(ids):,} windows of {options.block}{more}."
        )
    elif ids.shape[1] < 2:
        raise InvalidFile(
            f"The samples of {names[0]} have a single token: there is no next one to predict.",
            "Give rows of several tokens, or one long row without a sample axis.",
        )
    if given is None:
        labels = next_tokens(ids, None if mask is None else arrays[mask], options.pad_token)
    else:
        rows: Any = held(given)
        if is_stream:
            whole = source.array(str(y))
            rows = whole[: ids.size].reshape(ids.shape)
        labels = next_tokens(rows, None, options.pad_token, options.labels == "shift")
    return Text(arrays, labels, is_stream)


def _windows(stream: Any, name: str, block: int, inputs: int) -> tuple[Any, int]:
    if inputs > 1:
        raise InvalidFile(
            f"{name} is one long row, but there are {inputs} inputs.",
            "Cut the text into rows (samples, length) for all inputs alike.",
        )
    count = len(stream) // block
    if not count:
        raise InvalidFile(
            f"{name} has {len(stream):,} tokens, fewer than one window of {block}.",
            'Give more text, or shorter windows with the option {"block": 32}.',
        )
    return stream[: count * block].reshape(count, block), len(stream) - count * block


def _mask_number(
    source: Source, contents: Contents, options: TokenOptions, notes: list[str]
) -> int | None:
    first = next(iter(contents.x.values()))
    header = source.header(first[0])
    if header.dtype.kind not in "iu" or len(header.shape) > 2:
        raise InvalidFile(
            f"{first[0]} holds {header.stored} of the shape {header.shape}; a language model's "
            "first input are token ids, (samples, length) or one long row.",
            "Save the ids with .astype(np.int32).",
        )
    if options.mask is False or contents.y:
        return None
    if options.mask is not None:
        if not 0 < options.mask < len(first):
            raise InvalidInput(
                f"There is no input {options.mask} that could be the mask.",
                "The ids are input 0; give the number of the mask, or leave the option out.",
                fields={"options.mask": "no such input"},
            )
        if source.header(first[options.mask]).shape != header.shape:
            raise InvalidInput(
                f"{first[options.mask]} hasn't the shape of {first[0]}, so it is no mask for it.",
                "Give the number of the mask, or leave the option out.",
                fields={"options.mask": "another shape than the ids"},
            )
        return options.mask
    if len(first) > 1 and _looks_like_mask(source, first[1], header.shape):
        notes.append(
            f"{first[1]} was read as the attention mask: where it is 0 nothing is to be predicted. "
            'The option {"mask": false} turns that off.'
        )
        return 1
    return None


def _looks_like_mask(source: Source, name: str, shape: tuple[int, ...]) -> bool:
    """0 and 1, in each row one run of ones that touches an end (token types don't)."""
    header = source.header(name)
    if header.shape != shape or header.dtype.kind not in "biuf" or len(shape) != 2:
        return False
    head = np.asarray(source.array(name)[:HEAD])
    touches = (head[:, 0] == 1) | (head[:, -1] == 1)
    steps = np.diff(head.astype(np.float32), axis=1)
    broken = (steps > 0).any(axis=1) & (steps < 0).any(axis=1)
    return bool(((head == 0) | (head == 1)).all() and touches.all() and not broken.any())
