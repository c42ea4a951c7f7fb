"""Fine-tuning on mixed cases and on stored copies: the settings are the method's own, copies stay on their case's side, and predictions look at no copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.activations.store import Store
from headstart.contract_method import tiny_source
from headstart.core import Backbone, InputError, Net, Preprocess, Source
from headstart.keeping import Settings
from headstart.learner import Candidate, learn
from headstart.methods import CutMix, FineTune, FineTuneViews, MixUp
from headstart.methods.method import View
from headstart.methods.needs import unmet
from headstart.modality import image
from headstart.views import Looks, Views


def world(root: Path, n: int = 24) -> tuple[Views, np.ndarray, Source]:
    rng, y = np.random.default_rng(0), np.arange(n) % 2
    items = list(np.clip(rng.normal(100, 40, (n, 10, 10, 3)) + 50 * y[:, None, None, None], 0, 255).astype(np.uint8))
    source = tiny_source()
    return Views(items, [image.digest(item) for item in items], {source.name: source}, Store(root)), y, source


def bits(method: FineTune, views: Views, y: np.ndarray, source: Source, *, rows: np.ndarray | None = None, settings: Settings | None = None) -> bytes:
    given = {"classes": 2, "seed": 0, "settings": settings or Settings(batch=8)}
    model = learn(Candidate(method, source), views, np.arange(len(y)) if rows is None else rows, y, **given).model
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


@pytest.mark.parametrize(("method", "name", "value"), [(MixUp, "mixup", 0.4), (CutMix, "cutmix", 0.3)])
def test_a_mixing_method_is_lp_ft_with_that_setting(method: type[FineTune], name: str, value: float, tmp_path: Path) -> None:
    views, y, source = world(tmp_path)
    mixed = bits(method(steps=6, **{name: value}), views, y, source)
    assert mixed == bits(FineTune(steps=6), views, y, source, settings=Settings(batch=8, **{name: value}))
    assert mixed != bits(FineTune(steps=6), views, y, source)


def test_copies_are_trained_on_and_nothing_of_the_other_side_is(tmp_path: Path) -> None:
    views, y, source = world(tmp_path)
    method, rows = FineTuneViews(steps=6, copies=2), np.arange(16)
    looks = views.array(method.view(source))
    assert isinstance(looks, Looks)
    assert looks[rows].shape[:2] == (16, 3)
    np.testing.assert_array_equal(looks[rows][:, 0], views.array(method.served(source))[rows])
    assert not np.array_equal(looks[rows][:, 1], looks[rows][:, 2])
    trained = bits(method, views, y, source, rows=rows)
    assert trained == bits(method, views, y, source, rows=rows)
    assert trained != bits(FineTune(steps=6), views, y, source, rows=rows)
    whole = looks[np.arange(24)]
    whole[16:] = np.nan
    views._made[method.view(source)] = whole
    assert trained == bits(method, views, np.where(np.arange(24) < 16, y, 1 - y), source, rows=rows)


def test_copies_equal_to_their_case_are_the_case_again(tmp_path: Path) -> None:
    """With the batch as large as all cases, and each case there three times, the loss of a step is that of the cases alone."""
    views, y, source = world(tmp_path)
    method = FineTuneViews(steps=1, copies=2, dropout=0.0)
    own = np.asarray(views.array(method.served(source)))
    views._made[method.view(source)] = np.repeat(own[:, None], 3, axis=1)
    once = learn(Candidate(FineTune(steps=1, dropout=0.0), source), views, np.arange(24), y, classes=2, seed=0, settings=Settings(batch=24)).model
    thrice = learn(Candidate(method, source), views, np.arange(24), y, classes=2, seed=0, settings=Settings(batch=72)).model
    for a, b in zip(once.state_dict().values(), thrice.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-3)  # AdamW's first step is the sign of the gradient, times the rate


def test_predictions_look_at_no_copy_and_copies_are_not_held_in(tmp_path: Path) -> None:
    views, y, source = world(tmp_path)
    assert FineTuneViews().served(source) == FineTune().view(source)
    with pytest.raises(InputError, match=r"Copies of a case would lie among those held in, and stop the training for what it knows\. Leave held_in out\."):
        bits(FineTuneViews(copies=1, steps=2), views, y, source, settings=Settings(held_in=0.2))


def test_what_starts_from_a_probe_has_not_seen_the_cases_held_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views, y, source = world(tmp_path)
    seen: list[tuple[int, int]] = []
    splits: list[list[int]] = []
    real, split = FineTune.build, Settings.split

    def build(self: FineTune, source: Source, **given: Any) -> Net:
        seen.append((len(given["features"]), len(given["y"])))
        return real(self, source, **given)

    def splitting(self: Settings, *given: Any) -> tuple[np.ndarray, np.ndarray]:
        found = split(self, *given)
        splits.append(found[1].tolist())
        return found

    monkeypatch.setattr(FineTune, "build", build)
    monkeypatch.setattr(Settings, "split", splitting)
    bits(FineTune(steps=2), views, y, source, settings=Settings(held_in=0.25))
    monkeypatch.setattr(Settings, "split", split)
    bits(FineTune(steps=2), views, y, source)
    assert seen == [(18, 18), (24, 24)]
    assert len(splits) == 2
    assert splits[0] == splits[1]  # what the head has not seen is what the loop judges by


def test_what_has_no_rows_and_columns_is_not_cut() -> None:
    tokens = Backbone({"a": torch.nn.Flatten(2), "b": torch.nn.Flatten()}, dim=48, preprocess=Preprocess(size=4, crop=1.0))
    source = Source("tokens", stages=("a", "b"), tune_cuts=(1,), opener=lambda: tokens)
    assert "rows and columns; 'tokens' is not one" in unmet(CutMix, source, classes=2)
    assert not unmet(CutMix, tiny_source(), classes=2)
    assert not unmet(MixUp, source, classes=2)
    assert unmet(MixUp, Source("words", modality="text"), classes=2)
    assert View("raw", "s", (1,), copies=("crop",)).plain == View("raw", "s", (1,))
