"""Augmented copies: each step does what it says and nothing else, copies are the same for ever, and no case of the other side takes part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from headstart.activations.store import Store
from headstart.core import Backbone, Domain, InputError, Preprocess, Source, Task
from headstart.evaluate import balanced_accuracy
from headstart.export import _head
from headstart.learner import Candidate, learn
from headstart.lending import lend
from headstart.methods import METHODS, AugmentImage, AugmentTable, AugmentText, AugmentTextRegressor, Probe, Restyle
from headstart.methods.data.augmented import AugmentedRidge, AugmentedRidgeRegressor, mirrored_alike
from headstart.methods.data.enlarged import own
from headstart.methods.features import RidgeLOO
from headstart.methods.features.logistic import inner_splits
from headstart.methods.method import View
from headstart.methods.needs import unmet
from headstart.modality import image, tabular
from headstart.modality.augment import STEPS, encode_view, steps_of
from headstart.modality.edits import reworded
from headstart.modality.style import fourier, tone
from headstart.views import Views

IMAGES = Backbone({}, dim=1, preprocess=Preprocess(size=16, crop=1.0))
PHOTO = np.random.default_rng(3).integers(0, 256, (24, 20, 3), dtype=np.uint8)


PALETTE = [np.random.default_rng(k).integers(0, 120, (30, 30, 3), dtype=np.uint8) for k in (4, 5)]


def copies(policy: str, n: int = 1, *, item: np.ndarray = PHOTO) -> list[torch.Tensor]:
    return [encode_view(item, IMAGES, digest="d", view=k, policy=policy, palette=PALETTE) for k in range(1, n + 1)]


@pytest.mark.parametrize("policy", STEPS["image"])
def test_a_copy_is_a_picture_of_the_right_size_and_always_the_same(policy: str) -> None:
    before = torch.get_rng_state()
    one, two = copies(policy, 2)
    assert (one.dtype, tuple(one.shape)) == (torch.uint8, (3, 16, 16))
    assert torch.equal(one, copies(policy)[0])
    assert torch.equal(one, two) == (policy == "mirror") or policy == "flip"
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mirror_step_mirrors_what_the_other_steps_made() -> None:
    plain = image.encode(PHOTO, IMAGES)
    assert torch.equal(copies("mirror")[0], plain.flip(-1))
    assert torch.equal(copies("mirror+crop")[0], copies("crop")[0].flip(-1))


def test_colours_move_and_edges_stay() -> None:
    grey = np.repeat(PHOTO[..., :1], 3, axis=2)
    a, b = image.encode(grey, IMAGES)[0].double(), copies("colour", item=grey)[0].double().mean(dim=0)
    assert torch.corrcoef(torch.stack([a.ravel(), b.ravel()]))[0, 1] > 0.9
    assert not torch.equal(a, b)


@pytest.mark.parametrize("channels", ["BGR", "L", "RGBA"])
def test_copies_have_the_channels_of_the_source(channels: str) -> None:
    look = Preprocess(size=16, crop=1.0) if channels == "BGR" else Preprocess(size=16, crop=1.0).with_channels({"L": 1, "RGBA": 4}[channels])
    body = Backbone({}, dim=1, preprocess=Preprocess(size=16, crop=1.0, channels="BGR") if channels == "BGR" else look)
    for policy in ("mirror", "tone", "trivial"):
        copy = encode_view(PHOTO, body, digest="d", view=1, policy=policy, palette=PALETTE)
        assert copy.shape == image.encode(PHOTO, body).shape
    assert torch.equal(encode_view(PHOTO, body, digest="d", view=1, policy="mirror"), image.encode(PHOTO, body).flip(-1))


def test_a_step_of_another_kind_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"There is no step 'delete' of augmentation for images\. There are crop, flip, .* joined by '\+'\."):
        steps_of("crop+delete", IMAGES)


def test_a_style_is_taken_whole_and_the_content_stays() -> None:
    mine, theirs = image.encode(PHOTO // 4 + 90, IMAGES), image.encode(PALETTE[0], IMAGES)  # nothing is clipped to 0..255
    toned = tone(mine, theirs, 1.0).double()
    np.testing.assert_allclose(toned.mean(dim=(1, 2)), theirs.double().mean(dim=(1, 2)), atol=1.0)
    np.testing.assert_allclose(toned.std(dim=(1, 2)), theirs.double().std(dim=(1, 2)), rtol=0.05)
    spectrum = torch.fft.fft2(fourier(mine, theirs, 1.0).double())
    np.testing.assert_allclose(spectrum[:, 0, 0].abs(), torch.fft.fft2(theirs.double())[:, 0, 0].abs(), rtol=0.02)  # of 16 pixels the mean alone is low
    for changed in (toned, fourier(mine, theirs, 1.0).double()):
        assert torch.corrcoef(torch.stack([changed.ravel(), mine.double().ravel()]))[0, 1] > 0.9
    assert torch.equal(fourier(mine, theirs, 0.0), mine)
    assert torch.equal(tone(mine, theirs, 0.0), mine)


def test_a_style_without_images_to_take_it_from_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"A copy in another tone needs images to take it from\. Give --source-data\."):
        encode_view(PHOTO, IMAGES, digest="d", view=1, policy="tone")


def test_edits_put_in_no_word_that_was_not_there() -> None:
    words = [f"w{i}" for i in range(40)]
    for seed in range(50):
        fewer = reworded(" ".join(words), ["delete"], np.random.default_rng(seed)).split()
        assert fewer == [word for word in words if word in set(fewer)]
        swapped = reworded(" ".join(words), ["swap"], np.random.default_rng(seed)).split()
        assert sorted(swapped) == sorted(words)
        assert swapped != words
    assert 30 < np.mean([len(reworded(" ".join(words), ["delete"], np.random.default_rng(s)).split()) for s in range(50)]) < 39  # a tenth of 40 goes
    assert reworded("alone", ["delete", "swap"], np.random.default_rng(0)) == "alone"


def test_tokens_are_masked_between_the_first_and_the_last() -> None:
    from headstart.modality.edits import masked

    class Tokenizer:
        mask_token_id = 7

    body = Backbone({}, dim=1)
    body.tokenizer = Tokenizer()
    given = torch.stack([torch.arange(100, 300), torch.ones(200, dtype=torch.int64)], dim=1)
    out = masked(given, body, np.random.default_rng(0))
    hidden = out[:, 0] == 7
    assert 15 <= int(hidden.sum()) <= 45  # of 198 tokens 15 %: within three standard deviations
    assert not hidden[0]
    assert not hidden[-1]
    assert torch.equal(out[~hidden], given[~hidden])
    assert torch.equal(out[:, 1], given[:, 1])


def test_rows_get_noise_in_the_columns_unit_and_categories_stay() -> None:
    body = tabular.network([["age"], ["wage"], ["town", "Ulm"]], seed=0)
    columns = next(m for m in body.modules() if isinstance(m, tabular.Standardise))
    columns.learn(np.array([[0.0, 0.0, 0.0], [20.0, 2000.0, 1.0]]))  # deviations 10 and 1,000
    row = {"age": 30.0, "wage": 900.0, "town": "Ulm"}
    drawn = np.array([encode_view(row, body, digest=str(i), view=1, policy="noise").numpy() for i in range(400)])
    np.testing.assert_allclose(drawn.std(axis=0), [1.0, 100.0, 0.0], rtol=0.15)
    np.testing.assert_allclose(drawn.mean(axis=0), [30.0, 900.0, 1.0], rtol=0.02)
    gaps = np.array([encode_view(row, body, digest=str(i), view=1, policy="absent").numpy() for i in range(400)])
    assert 0.05 < np.isnan(gaps[:, 0]).mean() < 0.15
    assert 0.85 < gaps[:, 2].mean() < 0.95


@parametrize_with_checks([AugmentedRidge(), AugmentedRidgeRegressor()])
def test_the_estimators_are_scikit_learns(estimator, check):
    check(estimator)


def test_copies_that_are_the_case_itself_change_nothing() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 8)), np.arange(60) % 3
    X[:, 0] += y
    once, thrice = AugmentedRidge().fit(X, y), AugmentedRidge().fit(np.repeat(X[:, None], 3, axis=1), y)
    assert once.alpha_ == thrice.alpha_
    np.testing.assert_allclose(once.coef_, thrice.coef_, atol=1e-10)
    np.testing.assert_allclose(once.coef_, RidgeLOO(alphas=(once.alpha_,)).fit(X, y).coef_, atol=1e-10)


def cloud(n: int, d: int, *, seed: int, told_by: float, noise: float, k: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Cases whose first feature tells the class; a thing that varies without meaning (20 directions) varies in the copies, too."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    meaning = np.zeros((n, d))
    meaning[:, 0] = told_by * (2 * y - 1) + rng.normal(size=n)
    nuisance = noise * rng.normal(size=(n, 1 + k, d - 1))
    return np.concatenate([np.repeat(meaning[:, None, :1], 1 + k, axis=1), nuisance], axis=2), y


def test_copies_that_vary_in_what_means_nothing_help() -> None:
    """The planted world of augmentation: copies show which directions a label does not care for."""
    gains = []
    for seed in range(10):
        (X, y), (Xt, yt) = cloud(30, 40, seed=seed, told_by=1.0, noise=2.0), cloud(1000, 40, seed=100 + seed, told_by=1.0, noise=2.0)
        with_, without = AugmentedRidge().fit(X, y), AugmentedRidge().fit(own(X), y)
        gains.append(balanced_accuracy(yt, with_.predict(own(Xt))) - balanced_accuracy(yt, without.predict(own(Xt))))
    assert np.mean(gains) > 0.1
    assert min(gains) > -0.02


def lateral(n: int, *, seed: int, side: bool) -> tuple[np.ndarray, np.ndarray]:
    """Features of images and of their mirror images, in which the first two change places; which of them is larger is the class, or a third one is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    X = rng.normal(size=(n, 12))
    if side:
        X[:, :2] += np.outer(y, [2.0, -2.0])
    mirror = X.copy()
    mirror[:, [0, 1]] = X[:, [1, 0]]
    if not side:
        X[:, 2] += 3.0 * y
        mirror[:, 2] += 3.0 * y
    return np.stack([X, mirror], axis=1), y


@pytest.mark.parametrize("side", [True, False])
def test_mirror_images_are_learned_from_only_where_the_side_tells_nothing(side: bool) -> None:
    taken = [AugmentedRidge(mirrored=1).fit(*lateral(40, seed=seed, side=side)).flips_ for seed in range(20)]
    assert not any(taken) if side else sum(taken) >= 13  # a mean lies within one standard error above 0 in 84 of 100 draws: 17 of 20


def test_a_mirror_that_harms_is_not_shipped_by_default_and_harms_where_it_is_forced() -> None:
    (X, y), (Xt, yt) = lateral(60, seed=0, side=True), lateral(2000, seed=1, side=True)
    reached = {flip: balanced_accuracy(yt, AugmentedRidge(mirrored=1, flip=flip).fit(X, y).predict(own(Xt))) for flip in ("auto", "never", "always")}
    assert reached["auto"] == reached["never"] > 0.85
    assert reached["always"] < 0.6
    mean, error = mirrored_alike(X[:, 0], X[:, 1], y, inner_splits(y, None, folds=5, seed=0))
    assert mean > 0.5
    assert 0.0 < error < 0.15


class Side(nn.Module):
    """Brightness of the left and of the right half, and of all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return torch.stack([x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3)), x.std((1, 2, 3))], dim=1)


def sides() -> Source:
    body = Backbone({"side": Side()}, dim=3, preprocess=Preprocess(size=8, crop=1.0))
    return Source("sides", dim=3, stages=("side",), opener=lambda: body, digest=lambda: "sides")


def photos(n: int, *, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Photographs that are brighter on the left or on the right."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    ramp = np.linspace(-60, 60, 12)[None, :, None] * (2 * y[:, None, None, None] - 1)
    return list(np.clip(rng.normal(120, 40, (n, 12, 12, 3)) + ramp, 0, 255).astype(np.uint8)), y


def views_of(items: list[np.ndarray], source: Source, root: Path) -> Views:
    return Views(items, [image.digest(item) for item in items], {source.name: source}, Store(root))


def test_copies_of_real_images_lie_in_their_image_s_row_and_are_made_once(tmp_path: Path) -> None:
    items, _ = photos(20)
    method, source = AugmentImage(copies=2), sides()
    views = views_of(items, source, tmp_path)
    found = views.array(method.view(source))
    assert found.shape == (20, 6, 3)
    np.testing.assert_array_equal(found[:, 0], views.array(View("pooled", "sides", (1,))))
    np.testing.assert_allclose(found[:, 3, [1, 0, 2]], found[:, 0], rtol=1e-5)  # the mirror image: left and right change places
    np.testing.assert_allclose(found[:, 4:, [1, 0, 2]], found[:, 1:3], rtol=1e-5)
    again = views_of(items[::-1], source, tmp_path).array(method.view(source))
    np.testing.assert_array_equal(again[::-1], found)


@pytest.mark.parametrize("policy", ["crop", "none"])
def test_no_case_of_the_other_side_takes_part(policy: str, tmp_path: Path) -> None:
    """The spy: whatever stands in the rows that are not trained on, copies included, the model is the same to the bit."""
    items, y = photos(40)
    source, rows = sides(), np.arange(30)
    candidate = Candidate(AugmentImage(copies=2, policy=policy), source)
    views = views_of(items, source, tmp_path)
    model = learn(candidate, views, rows, y, classes=2, seed=0).model
    for made in views._made.values():
        made[30:] = np.nan
    blind = learn(candidate, views, rows, np.where(np.arange(40) < 30, y, 1 - y), classes=2, seed=0).model
    assert model.coef_.tobytes() == blind.coef_.tobytes()
    assert model.made_ == 0 if policy == "none" else model.made_ == 60  # the probe refused the mirror images
    assert not model.flips_


def test_averaging_predicts_from_copies_and_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    items, y = photos(40)
    source = sides()
    candidate = Candidate(AugmentImage(copies=2, average=True), source)
    views = views_of(items, source, tmp_path)
    fitted = learn(candidate, views, np.arange(30), y, classes=2, seed=0)
    assert candidate.served == candidate.view
    seen = fitted.output(views.array(candidate.served)[30:])
    assert balanced_accuracy(y[30:], seen.argmax(axis=1)) > 0.8
    assert Candidate(AugmentImage(), source).served == View("pooled", "sides", (1,))
    path = tmp_path / "head.skops"
    skops.io.dump(fitted.model, path)
    np.testing.assert_array_equal(_head(path).predict_proba(views.array(candidate.served)[30:]), seen)


class Lamp(nn.Module):
    """The mean of each colour, and how much brighter the left half is than the right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return torch.cat([x.mean((2, 3)), (x[..., :half].mean((1, 2, 3)) - x[..., half:].mean((1, 2, 3)))[:, None]], dim=1)


def lit(n: int, *, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Photographs in the light of many lamps; the class is which half is a little brighter."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    side = np.where(np.arange(8) < 4, 6.0, -6.0)[None, None, :, None] * (2 * y - 1)[:, None, None, None]
    return list(np.clip(rng.uniform(60, 190, (n, 1, 1, 3)) + side + rng.normal(0, 18, (n, 8, 8, 1)), 0, 255).astype(np.uint8)), y


@pytest.mark.parametrize("style", ["tone", "fourier"])
def test_styles_of_unlabelled_images_help_where_light_means_nothing(style: str, tmp_path: Path) -> None:
    """The planted world of style mixing: eight labelled images, and what lamps do is seen in sixty without labels."""
    body = Backbone({"lamp": Lamp()}, dim=4, preprocess=Preprocess(size=8, crop=1.0))
    plain = Source("lamps", dim=4, stages=("lamp",), opener=lambda: body, digest=lambda: "lamps")
    other, gains = Task("classification", "image", Domain("others", lit(60, seed=99)[0])), []
    for seed in range(3):
        items, y = lit(108, seed=seed)
        (source,) = lend([plain], other, Task("classification", "image", Domain("mine", items, [str(v) for v in y]), ("0", "1")))
        views, rows, rest = views_of(items, source, tmp_path), np.arange(8), np.arange(8, 108)
        reached = []
        for method in (Restyle(style=style), Probe()):
            fitted = learn(Candidate(method, source), views, rows, y, classes=2, seed=0)
            reached.append(balanced_accuracy(y[rest], fitted.output(views.array(method.served(source))[rest]).argmax(axis=1)))
        gains.append(reached[0] - reached[1])
    assert unmet(Restyle, plain, classes=2)
    assert np.mean(gains) > 0.01
    assert min(gains) > -0.02


def test_each_kind_of_input_has_its_own_policies() -> None:
    table = Source("t", modality="tabular")
    found = {
        m: [kind.__name__ for kind in METHODS["augment"] if not unmet(kind, s, classes=c)]
        for m, s, c in (("image", Source("i"), 2), ("numbers of texts", Source("t", modality="text"), 0), ("table", table, 3))
    }
    assert found == {"image": ["AugmentImage"], "numbers of texts": ["AugmentTextRegressor"], "table": ["AugmentTable"]}
    assert unmet(AugmentText, table, classes=2) == "Method 'augment' needs a source for texts; 't' is not one. Choose another method: headstart methods."
    for kind in (AugmentText, AugmentTextRegressor, AugmentTable):
        modality = "tabular" if kind is AugmentTable else "text"
        for policy in kind().policies():
            assert set(policy.split("+")) <= set(STEPS[modality])
