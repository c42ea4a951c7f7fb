"""The door for texts: what is counted, what is refused, how tokens are padded."""

from __future__ import annotations

import pytest
import torch

from headstart.core import Backbone, Domain, InputError, Task, TextInput
from headstart.modality import text


def task(*texts: str, labels: str = "ab") -> Task:
    y = [labels[i % 2] for i in range(len(texts))]
    return Task("classification", "text", Domain("mails.csv", list(texts), y), tuple(sorted(set(y))), columns={"text": "body"})


def test_an_inspection_counts_words_and_copies_have_one_digest() -> None:
    same, found = text.inspect(task("a b", "a", "c d e", "a b", "x", "y", "z", "w"))
    assert found.facts == {"Words": "1 to 3, median 1"}
    assert found.digests[0] == found.digests[3] != found.digests[1]
    assert len(same.target) == 8


def test_an_empty_text_is_refused_by_row_or_left_out() -> None:
    mails = task("a", "b", " \n", "c", "d", "e", "f", "g", "h", "i")
    with pytest.raises(InputError) as caught:
        text.inspect(mails)
    assert str(caught.value) == ("mails.csv, row 3: 'body' is empty; 1 of 10 are. Fill them in or remove the rows, or leave them out with --skip-unreadable.")
    kept, found = text.inspect(mails, skip_unreadable=True)
    assert (len(kept.target), found.unreadable) == (9, ("row 3",))


def test_too_few_texts_of_a_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"Class 'a' has only 3 text\(s\) after 1 empty ones were left out; at least 4 are needed"):
        text.inspect(task("", "b", "c", "d", "e", "f", "g", "h"), skip_unreadable=True)


def test_a_report_shows_the_beginning_on_one_line() -> None:
    assert text.show("one\n\n two") == ("", "one two")
    assert len(text.show("x" * 999)[1]) == text.SHOWN


def test_batches_are_padded_at_the_right_with_mask_0() -> None:
    body = Backbone({}, dim=1, preprocess=TextInput(4))
    batch = text.collate([torch.ones(1, 2, dtype=torch.int64), torch.full((3, 2), 1)], body)
    assert batch[..., 1].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert text.widened(torch.ones(2, 3, 5), body).shape == (2, 4, 5)


def test_a_backbone_for_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"This backbone takes no texts \(its input is Preprocess\)"):
        text.encode("a", Backbone({}, dim=1))
