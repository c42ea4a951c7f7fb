"""Texts become token ids with their mask: (n, t, 2), padded at the right."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from headstart.core import MIN_PER_CLASS, Backbone, Domain, InputError, Inspection, Task, TextInput

SHOWN = 240  # letters of a text in a report
WORD = re.compile(r"\w+")
SPACES = re.compile(r"\s+")


def digest(item: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(item.encode("utf-8", "surrogatepass")).hexdigest()


def inspect(task: Task, *, skip_unreadable: bool = False, progress: Callable[[int], None] | None = None) -> tuple[Task, Inspection]:
    """Count words, and find texts that are empty.

    Raises
    ------
    InputError
        a text is empty and ``skip_unreadable`` is false, or too few of a class are left.
    """
    texts = [str(item) for item in task.target.x]
    empty = [i for i, text in enumerate(texts) if not text.strip()]
    column = task.columns.get("text", "text")
    if empty and not skip_unreadable:
        raise InputError(
            f"{task.target.name}, row {empty[0] + 1}: {column!r} is empty; {len(empty)} of {len(texts)} are. "
            "Fill them in or remove the rows, or leave them out with --skip-unreadable."
        )
    gone = set(empty)
    kept = [i for i in range(len(texts)) if i not in gone]
    task = replace(task, target=_strings(task.target.take(kept)))
    _check_counts(task, len(empty))
    lengths = sorted(len(text.split()) for text in task.target.x)
    facts = {"Words": f"{lengths[0]} to {lengths[-1]}, median {lengths[len(lengths) // 2]}"}
    if progress is not None:
        progress(len(texts))
    return task, Inspection(tuple(digest(text) for text in task.target.x), facts, tuple(f"row {i + 1}" for i in empty))


def show(item: str) -> tuple[str, str]:
    """Return no picture, and the beginning of the text."""
    line = SPACES.sub(" ", item).strip()
    return "", line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def encode(item: str, backbone: Backbone) -> Tensor:
    """Return int64 (t, 2): token ids and ones; what lies behind the backbone's ``max_length`` tokens is cut off."""
    prefix = _look(backbone).prefix
    ids = _tokenizer(backbone).encode(prefix + str(item)).ids or [_padding(backbone)]
    return torch.stack([torch.tensor(ids, dtype=torch.int64), torch.ones(len(ids), dtype=torch.int64)], dim=1)


def collate(encoded: Sequence[Tensor], backbone: Backbone) -> Tensor:
    """Return int64 (n, t, 2), padded at the right to the longest, with mask 0 there."""
    longest = max(len(one) for one in encoded)
    batch = torch.zeros(len(encoded), longest, 2, dtype=torch.int64)
    batch[..., 0] = _padding(backbone)
    for row, one in zip(batch, encoded, strict=True):
        row[: len(one)] = one
    return batch


def widened(activation: Tensor, backbone: Backbone) -> Tensor:
    """Return (n, max_length, d + 1): states of tokens padded with zeros, mask included, so that the store holds rows of one shape.

    >>> widened(torch.ones(1, 2, 3), Backbone({}, dim=2, preprocess=TextInput(max_length=4)))[0, :, -1].tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    if activation.ndim != 3:
        return activation
    return functional.pad(activation, (0, 0, 0, _look(backbone).max_length - activation.shape[1]))


def cut_off(items: Sequence[str], backbone: Backbone) -> int:
    """Return how many of the texts are longer than the backbone reads."""
    most = _look(backbone).max_length
    return sum(len(one.overflowing) > 0 for one in (_tokenizer(backbone).encode(str(item)) for item in items if len(item) > most))


@dataclass(frozen=True)
class Reading:
    """How a backbone's tokenizer reads texts.

    ``tokens``: median of a text, uncut; ``cut_off``: share of texts longer than the backbone reads; ``read``: share of all tokens that it reads;
    ``whole_words``: share of running words that are one token; ``tokens_per_word``: their mean; ``unknown``: share of all tokens that stand for
    what the vocabulary lacks (Rust et al. 2021, "How good is your tokenizer?", call the first's complement continued words and the second fertility).
    """

    texts: int
    tokens: int
    cut_off: float
    read: float
    whole_words: float
    tokens_per_word: float
    unknown: float


def reading(items: Sequence[str], backbone: Backbone, *, most: int = 200) -> Reading:
    """Return how the backbone's tokenizer reads at most ``most`` of the texts, evenly spaced over the list.

    A word is a run of letters and digits; a script that puts no spaces between words is one long word, and only ``unknown`` says much of it.
    """
    tokenizer, unknown_id, look = _tokenizer(backbone), getattr(backbone.tokenizer, "unk_token_id", None), _look(backbone)
    texts = [str(items[i]) for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]
    lengths, kept, unknown = [], [], 0
    for one in tokenizer.encode_batch([look.prefix + text for text in texts]):
        parts = (one, *one.overflowing)  # why counted: what a call of the tokenizer itself leaves behind may or may not cut texts off
        lengths.append(sum(_own(part) for part in parts))
        kept.append(min(lengths[-1], look.max_length - len(one.ids) + _own(one)))
        unknown += sum(part.ids.count(unknown_id) for part in parts)
    words = Counter(word for text in texts for word in WORD.findall(text))
    pieces = {word: _pieces(word, tokenizer) for word in words}
    total, running = max(1, sum(lengths)), max(1, words.total())
    return Reading(
        texts=len(texts),
        tokens=int(np.median(lengths)),
        cut_off=sum(k < length for k, length in zip(kept, lengths, strict=True)) / len(texts),
        read=sum(kept) / total,
        whole_words=sum(n for word, n in words.items() if pieces[word] == 1) / running,
        tokens_per_word=sum(n * pieces[word] for word, n in words.items()) / running,
        unknown=unknown / total,
    )


def _own(encoding: Any) -> int:
    """Return the tokens that stand for the text, not for its beginning or end."""
    return int(encoding.special_tokens_mask.count(0))


def _pieces(word: str, tokenizer: Any) -> int:
    """Return the fewest tokens of a word, at the beginning of a text or behind a space: many vocabularies hold both forms, or one."""
    return min(len(tokenizer.encode(form, add_special_tokens=False).ids) for form in (word, f" {word}"))


def _look(backbone: Backbone) -> TextInput:
    if not isinstance(backbone.preprocess, TextInput):
        raise InputError(f"This backbone takes no texts (its input is {type(backbone.preprocess).__name__}). Choose one for text: headstart sources.")
    return backbone.preprocess


def _tokenizer(backbone: Backbone) -> Any:
    if backbone.tokenizer is None:
        raise InputError("This backbone has no tokenizer. Load it from a folder that holds one.")
    return backbone.tokenizer.backend_tokenizer


def _padding(backbone: Backbone) -> int:
    return int(getattr(backbone.tokenizer, "pad_token_id", None) or 0)


def _strings(domain: Domain) -> Domain:
    return replace(domain, x=[str(item) for item in domain.x])


def _check_counts(task: Task, left_out: int) -> None:
    counts = Counter(str(v) for v in task.target.y or ())
    for label in task.labels:
        if counts[label] < MIN_PER_CLASS:
            behind = f" after {left_out} empty ones were left out" if left_out else ""
            raise InputError(f"Class {label!r} has only {counts[label]} text(s){behind}; at least {MIN_PER_CLASS} are needed. Add texts, or leave it out.")
