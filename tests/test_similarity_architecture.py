"""The architecture view: facts about inputs are checked against what the preprocessing and the tokenizers really do, rules against arithmetic."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linprog
from skimage import data

from headstart import sources
from headstart.activations import costs
from headstart.core import Backbone, ColumnInput, InputError, Preprocess, Source, TextInput
from headstart.modality import text
from headstart.modality.image import Frame, frames, prepare
from headstart.similarity.architecture import (
    MEASURES,
    ArchitectureFit,
    architecture_fit,
    image_fit,
    licence_caution,
    measured_cost,
    stages_to_keep,
    text_fit,
)
from headstart.similarity.measure import Evidence
from headstart.sources import packages

MINILM = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def minilm() -> Source:
    return sources.get(MINILM)


# images


@pytest.mark.parametrize(("height", "width"), [(90, 160), (200, 64), (77, 77), (40, 600)])
def test_the_share_that_is_seen_is_what_the_preprocessing_leaves(height: int, width: int) -> None:
    """The witness is the preprocessing itself: an image whose pixels hold their own row (or column) number shows the first and the last that it saw."""
    look = Preprocess(size=56, crop=0.875, interpolation="bilinear")
    seen = 1.0
    for axis, pixels in ((0, height), (1, width)):
        ramp = np.linspace(0, 255, pixels)
        picture = np.broadcast_to(ramp[:, None] if axis == 0 else ramp[None, :], (height, width)).astype(np.uint8)
        values = prepare(np.repeat(picture[..., None], 3, axis=2), look)[0].double().numpy()
        line = values[:, 28] if axis == 0 else values[28, :]
        seen *= (line[-1] - line[0]) / 255 * 56 / 55
    fit = image_fit([Frame(width, height, True)], look)
    assert fit.seen == pytest.approx(seen, rel=0.06)
    assert fit.enlarged == pytest.approx(64 / min(height, width))


def test_the_facts_of_several_images_are_medians_and_shares() -> None:
    fit = image_fit([Frame(100, 50, True), Frame(200, 200, False), Frame(50, 400, False)], Preprocess(size=100, crop=1.0, channels="L"))
    assert (fit.looked_at, fit.width, fit.height, fit.channels, fit.size) == (3, 100, 200, "L", 100)
    assert fit.enlarged == 2  # 100 over 50, 200 and 50
    assert fit.grey == pytest.approx(1 / 3)
    assert fit.seen == pytest.approx((1 / 2 + 1 + 1 / 8) / 3)


def written(path: Path, picture: np.ndarray, **options: object) -> str:
    Image.fromarray(picture).save(path, **options)
    return str(path)


def test_frames_read_size_colour_and_rotation_of_files_and_arrays(tmp_path: Path) -> None:
    cat, grey = data.chelsea(), data.camera()  # 300 x 451 in colour, 512 x 512 in grey
    turned = Image.Exif()
    turned[0x0112] = 6
    listed = [
        written(tmp_path / "cat.jpg", cat),
        written(tmp_path / "turned.jpg", cat, exif=turned),
        written(tmp_path / "grey.png", grey),
        written(tmp_path / "grey_as_colour.jpg", np.repeat(grey[..., None], 3, axis=2)),
        written(tmp_path / "deep.png", grey.astype(np.uint16) * 257),
        cat,
        grey,
    ]
    assert frames(listed) == (
        Frame(451, 300, False),
        Frame(300, 451, False),
        Frame(512, 512, True),
        Frame(512, 512, True),
        Frame(512, 512, True),
        Frame(451, 300, False),
        Frame(512, 512, True),
    )


def test_at_most_so_many_images_are_looked_at_evenly_spaced() -> None:
    pictures = [np.zeros((1, i, 3), np.uint8) for i in range(1, 402)]
    assert [frame.width for frame in frames(pictures, most=3)] == [1, 201, 401]
    assert len(frames(pictures)) == 200


def test_an_image_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png cannot be read as an image"):
        frames([str(tmp_path / "broken.png")])
    whole = io.BytesIO()
    Image.fromarray(data.chelsea()).save(whole, format="PNG")
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:5000])
    with pytest.raises(InputError, match=r"half\.png cannot be read as an image"):
        frames([str(tmp_path / "half.png")])


def test_grey_photographs_in_a_network_for_colour_are_said() -> None:
    fit = architecture_fit(sources.get("efficientnet_lite0"), [data.camera(), data.coins(), data.moon()], n=300)
    assert (fit.image.channels, fit.image.size, fit.image.grey, fit.text) == ("RGB", 224, 1.0, None)
    assert "all are grey where it learned from colour" in fit.in_words()
    assert fit.in_words().startswith("3 images looked at, median 512x512, are reduced 2.0 times for its 224x224 input")


# texts


def pieces(words: str, source: Source) -> list[str]:
    """What the tokenizer's own library cuts them into, without the marks of beginning and end."""
    return source.backbone.tokenizer.backend_tokenizer.encode(words, add_special_tokens=False).tokens


def test_words_that_the_vocabulary_holds_are_whole_and_others_fall_into_their_pieces(minilm: Source) -> None:
    """The witness is the vocabulary, a file of words: those that stand in it are whole, and pieces are counted by the tokenizer's own call."""
    texts = ["the cat sat on the mat", "Hepatosplenomegaly, thrombocytopenia"]
    vocabulary = minilm.backbone.tokenizer.get_vocab()
    listed = ["the", "cat", "sat", "on", "the", "mat", "hepatosplenomegaly", "thrombocytopenia"]
    fit = text_fit(texts, minilm.backbone)
    assert fit.whole_words == np.mean([word in vocabulary for word in listed]) == 6 / 8
    assert fit.tokens_per_word == np.mean([len(pieces(word, minilm)) for word in listed])
    assert (fit.looked_at, fit.cut_off, fit.read, fit.unknown, fit.max_length) == (2, 0.0, 1.0, 0.0, 256)
    assert fit.tokens == int(np.median([len(pieces(one, minilm)) for one in texts]))


def test_what_lies_behind_the_longest_input_is_counted_as_lost(minilm: Source) -> None:
    """256 tokens hold 254 of the text between its marks; of 300, 46 are lost, and of 1,000, 746; whether or not the tokenizer cuts texts off itself."""
    texts = ["cat " * 300, "cat " * 1000, "cat " * 254]
    minilm.backbone.tokenizer.backend_tokenizer.no_truncation()
    uncut = text_fit(texts, minilm.backbone)
    minilm.backbone.tokenizer.backend_tokenizer.enable_truncation(256)
    assert text_fit(texts, minilm.backbone) == uncut
    assert uncut.cut_off == pytest.approx(2 / 3)
    assert uncut.read == pytest.approx(3 * 254 / 1554)
    assert uncut.tokens == 300


def test_what_the_vocabulary_lacks_is_counted_as_unknown(minilm: Source) -> None:
    fit = text_fit(["cat 🦄 dog ☃︎"], minilm.backbone)
    assert fit.unknown == pieces("cat 🦄 dog ☃︎", minilm).count("[UNK]") / fit.tokens > 0


def test_a_vocabulary_of_bytes_holds_words_behind_a_space() -> None:
    """GPT-2's kind of tokenizer, of three merges: " cat" is one token, "cat" is three."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġc", "Ġca", "Ġcat"]
    whole = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t")]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    body = Backbone({}, dim=1, preprocess=TextInput(8), tokenizer=PreTrainedTokenizerFast(tokenizer_object=whole))
    assert [len(whole.encode(form).ids) for form in ("cat", " cat")] == [3, 1]
    found = text.reading(["cat cat dog"], body)
    assert found.whole_words == pytest.approx(2 / 3)
    assert found.tokens_per_word == pytest.approx((1 + 1 + 3) / 3)
    assert found.unknown == 0


def test_at_most_so_many_texts_are_read(minilm: Source) -> None:
    assert text.reading(["cat"] * 500, minilm.backbone).texts == 200
    assert text.reading(["", "cat"], minilm.backbone, most=1).whole_words == 0


def test_a_network_for_images_is_no_reader() -> None:
    with pytest.raises(InputError, match="This backbone has no tokenizer"):
        text.reading(["a"], Backbone({}, dim=1))


# stages, licence, cost, capacity


def test_stages_are_kept_within_the_standard_error_of_the_best_not_their_own() -> None:
    curve = {"stem": (0.60, 0.50), "a": (0.78, 0.0), "b": (0.77, 0.9), "c": (0.80, 0.02), "d": (0.79, 0.0)}
    assert stages_to_keep(curve) == ("a", "c", "d")
    assert stages_to_keep({"only": (0.1, 0.0)}) == ("only",)
    assert stages_to_keep({name: (score + 7, error) for name, (score, error) in curve.items()}) == ("a", "c", "d")


@pytest.mark.parametrize(
    ("licence", "caution"),
    [
        *((words, "") for words in ("Apache-2.0", "MIT", "BSD-3-Clause", "NCSA", "yours", "internal", "CC-BY-4.0", "Unlicense")),
        *((words, "non-commercial") for words in ("cc-by-nc-4.0", "CC BY NC SA", "Non-commercial", "research only", "for academic purposes")),
        *((words, "unknown") for words in ("", "  ", "ask who made it", "as its model card says", "as its maker says", "other", "Unknown")),
    ],
)
def test_a_licence_is_flagged_by_its_words(licence: str, caution: str) -> None:
    assert licence_caution(licence) == caution


def test_every_packaged_source_has_a_licence_that_passes() -> None:
    assert {licence_caution(source.licence) for source in packages.packaged()} == {""}


def test_a_cost_is_the_one_measured_on_this_machine(tmp_path: Path) -> None:
    source = Source("s", digest=lambda: "abc")
    assert measured_cost(source, tmp_path) is None
    costs.record(tmp_path, "other", seconds=64.0, inputs=64)
    assert measured_cost(source, tmp_path) is None
    costs.record(tmp_path, "abc", seconds=1.6, inputs=64)
    assert measured_cost(source, tmp_path) == 0.025


def fit(**changes: object) -> ArchitectureFit:
    return dataclasses.replace(ArchitectureFit("net", n=300, dim=100, parameters=3_371_008, licence="MIT"), **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n": 150}, "150 cases for 100 features and 3.4 M parameters are so few that a linear head can fit any labels, and only held-out cases judge it"),
        ({"n": 200}, "200 cases for 100 features and 3.4 M parameters leave a linear head needing its penalty"),
        ({"n": 1000, "parameters": 0}, "1,000 cases for 100 features are ample for a linear head"),
        ({"seconds_each": 0.01234}, "an input costs 12.3 ms here"),
        ({}, "the cost is not measured on this machine"),
        ({"stages_kept": ("b", "c")}, "b is the first stage within one standard error of the best (also: c)"),
        ({"licence": "", "caution": "unknown"}, "its licence is not known."),
        ({"licence": "CC-BY-NC-4.0", "caution": "non-commercial"}, "its licence limits commercial use (CC-BY-NC-4.0)."),
    ],
)
def test_the_facts_are_said_in_words(changes: dict, says: str) -> None:
    assert says in fit(**changes).in_words()


def test_random_labels_can_be_fitted_below_two_cases_per_feature_and_not_above() -> None:
    """Cover 1965, on which the words rest: by a linear programme, how often do d weights separate random labels of n cases?"""

    def share(n: int, d: int = 12) -> float:
        rng = np.random.default_rng(n)
        worlds = [rng.normal(size=(n, d)) * rng.choice([-1, 1], size=(n, 1)) for _ in range(40)]
        return float(np.mean([linprog(np.zeros(d), A_ub=-x, b_ub=-np.ones(n), bounds=(None, None)).status == 0 for x in worlds]))

    assert share(12) == 1
    assert 0.2 < share(24) < 0.8
    assert share(48) < 0.05


def test_words_are_one_or_two_sentences_and_the_facts_go_to_json_and_back() -> None:
    image = image_fit([Frame(32, 32, True)], Preprocess())
    whole = fit(image=image, stages_kept=("a", "b"), seconds_each=0.5)
    assert whole.in_words().count(". ") == 1
    assert whole.in_words().endswith(".")
    assert fit().in_words().count(". ") == 0
    plain = json.loads(json.dumps(dataclasses.asdict(whole), allow_nan=False))
    back = ArchitectureFit(**{**plain, "image": type(image)(**plain["image"]), "stages_kept": tuple(plain["stages_kept"])})
    assert back == whole


def test_scores_lie_on_scales_where_more_is_better(minilm: Source) -> None:
    image = image_fit([Frame(448, 448, False)], Preprocess(size=224, crop=1.0))
    scores = {score.name: score for score in fit(image=image, n=50).scores()}
    assert {name: score.value for name, score in scores.items()} == {"cases per feature": 0.5, "share of the image seen": 1.0, "pixels kept": 0.25}
    assert all(score.view == "architecture" and score.higher_is_closer and score.unit for score in scores.values())
    read = fit(text=text_fit(["cat " * 508], minilm.backbone)).scores()
    assert {score.name: score.value for score in read[1:]} == {"vocabulary coverage": 1.0, "share of the text read": 0.5, "known tokens": 1.0}
    enlarged = fit(image=image_fit([Frame(32, 32, False)], Preprocess(size=224, crop=1.0))).scores()
    assert {score.name: score.value for score in enlarged}["pixels kept"] == 1.0


def test_cases_per_feature_is_a_measure_that_no_transformation_of_the_features_changes() -> None:
    (measure,) = MEASURES
    x = np.random.default_rng(0).normal(size=(30, 12))
    assert measure(Evidence(x=x)).value == 2.5
    assert measure(Evidence(x=5 * x[::-1] + 3)) == measure(Evidence(x=x))
    assert measure(Evidence()) is None


def test_a_curve_and_a_cost_that_are_given_are_in_the_account_and_rows_of_a_table_are_counted() -> None:
    body = Backbone({"only": torch.nn.Identity()}, dim=4)
    source = Source("s", dim=4, opener=lambda: body, licence="ask who made it", parameters=7)
    found = architecture_fit(source, [np.zeros((8, 8, 3), np.uint8)] * 5, curve={"only": (0.5, 0.1)}, seconds_each=0.1)
    assert (found.n, found.dim, found.parameters, found.stages_kept, found.seconds_each, found.caution) == (5, 4, 7, ("only",), 0.1, "unknown")
    table = Source("t", opener=lambda: Backbone({}, dim=3, preprocess=ColumnInput(("a",))))
    assert architecture_fit(table, [{"a": 1}] * 9) == ArchitectureFit("t", 9, 3, 0, caution="unknown")
