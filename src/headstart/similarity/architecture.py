"""The architecture view: does the target fit into this network, is there data enough for it, and what does it cost?

Facts rather than scores: what its input loses of the target, cases against features and parameters, stages that a probe finds as good as the
best, seconds, licence. :meth:`ArchitectureFit.in_words` says them, :meth:`ArchitectureFit.scores` gives those that can be put on a scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headstart.core import Preprocess, Source, TextInput
from headstart.result import Score, counted
from headstart.similarity.measure import Measure

if TYPE_CHECKING:
    from headstart.core import Backbone
    from headstart.modality.image import Frame

Caution = Literal["", "unknown", "non-commercial"]
SEPARABLE = 2.0  # cases per feature up to which random labels can be fitted more often than not (Cover 1965)
AMPLE = 10.0  # cases per feature from which an unpenalised fit is usually called safe (Peduzzi et al. 1996, events per variable)
WORTH_SAYING = 0.05  # shares below it are left out of the words
UNSAID = re.compile(r"(unknown|other|none|n/?a|noassertion|ask .*|as its .*|see .*)?", re.IGNORECASE)
NON_COMMERCIAL = re.compile(r"\bnc\b|non-?\s?commercial|(research|academic|evaluation)( use)? only|for (research|academic) (use|purposes)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageFit:
    """How the target's images meet a network's input, from ``looked_at`` of them.

    ``width`` and ``height`` are medians in pixels, ``grey`` is the share of images without colour. The network takes squares of ``size`` pixels in
    ``channels``; ``enlarged`` is the median factor by which images are resized (0.5: two pixels become one), ``seen`` the mean share of an image's
    area that the crop of the centre leaves, 0..1.
    """

    looked_at: int
    width: int
    height: int
    grey: float
    channels: str
    size: int
    enlarged: float
    seen: float


@dataclass(frozen=True)
class TextFit:
    """How the target's texts meet a network's tokenizer, from ``looked_at`` of them; shares are 0..1.

    ``tokens`` is the median of a text, of which the network reads ``max_length``; ``cut_off`` is the share of texts that are longer, ``read`` the share
    of all tokens that is read. ``whole_words`` is the share of running words that are one token, ``tokens_per_word`` their mean, ``unknown`` the share
    of tokens that stand for what the vocabulary lacks.
    """

    looked_at: int
    tokens: int
    max_length: int
    cut_off: float
    read: float
    whole_words: float
    tokens_per_word: float
    unknown: float


@dataclass(frozen=True)
class ArchitectureFit:
    """What is known of a network as a source for a target of n cases, as plain values.

    ``image`` or ``text`` is ``None`` where the target is none. ``stages_kept`` are the stages whose probe lies within one standard error of the best,
    in their order, empty where no probe ran. ``seconds_each`` is the measured cost of an input on this machine, ``None`` where it was never measured.
    ``parameters`` is 0 where they cannot be counted (an ONNX file).
    """

    source: str
    n: int
    dim: int
    parameters: int
    image: ImageFit | None = None
    text: TextFit | None = None
    stages_kept: tuple[str, ...] = ()
    seconds_each: float | None = None
    licence: str = ""
    caution: Caution = ""

    @property
    def cases_per_feature(self) -> float:
        """Cases for each feature that a linear head weighs."""
        return self.n / self.dim

    def in_words(self) -> str:
        """Return one or two sentences: what the input loses, where there is an input, and what there is, costs and may be done.

        >>> print(ArchitectureFit("net", n=300, dim=100, parameters=0, licence="MIT").in_words())
        300 cases for 100 features leave a linear head needing its penalty; the cost is not measured on this machine.
        """
        seconds = "the cost is not measured on this machine" if self.seconds_each is None else f"an input costs {1000 * self.seconds_each:.3g} ms here"
        parts = [_capacity_in_words(self), _stages_in_words(self.stages_kept), seconds, _licence_in_words(self)]
        inputs = _image_in_words(self.image) if self.image is not None else _text_in_words(self.text) if self.text is not None else ""
        return f"{inputs} {_sentence('; '.join(part for part in parts if part))}".strip()

    def scores(self) -> tuple[Score, ...]:
        """Return the facts that lie on a scale where more is better, each of view "architecture"."""
        found = [_cases_per_feature(self.n, self.dim)]
        if self.image is not None:
            n = self.image.looked_at
            found += [
                _score("share of the image seen", self.image.seen, n),
                _score("pixels kept", min(1.0, self.image.enlarged) ** 2, n),
            ]
        if self.text is not None:
            n = self.text.looked_at
            found += [
                _score("vocabulary coverage", self.text.whole_words, n),
                _score("share of the text read", self.text.read, n),
                _score("known tokens", 1.0 - self.text.unknown, n),
            ]
        return tuple(found)


def architecture_fit(
    source: Source,
    items: Sequence[Any],
    *,
    n: int | None = None,
    curve: Mapping[str, tuple[float, float]] | None = None,
    seconds_each: float | None = None,
    seen: Sequence[Frame] | None = None,
) -> ArchitectureFit:
    """Return how a source's network fits a target's raw inputs. The network is opened, since its tokenizer and its preprocessing belong to the weights.

    Parameters
    ----------
    items : paths or arrays of images, or texts; at most 200, evenly spaced, are looked at. Rows of a table are only counted
    n : cases that training will have; ``None``: as many as there are items
    curve : score and standard error of a probe by name of the stage, in the order of the stages; see :func:`stages_to_keep`
    seconds_each : measured cost of an input, see :func:`measured_cost`
    seen : the images' frames where they are at hand, so that several sources read them once

    Raises
    ------
    InputError
        an image cannot be read, or the source takes other inputs than it is said to.
    """
    from headstart.modality.image import frames

    look = source.backbone.preprocess
    return ArchitectureFit(
        source=source.name,
        n=len(items) if n is None else n,
        dim=source.backbone.dim,
        parameters=source.parameters,
        image=image_fit(frames(items) if seen is None else seen, look) if isinstance(look, Preprocess) else None,
        text=text_fit(items, source.backbone) if isinstance(look, TextInput) else None,
        stages_kept=() if curve is None else stages_to_keep(curve),
        seconds_each=seconds_each,
        licence=source.licence,
        caution=licence_caution(source.licence),
    )


def image_fit(frames: Sequence[Frame], preprocess: Preprocess) -> ImageFit:
    """Return how images of these sizes meet a preprocessing that resizes the shorter side and crops the centre.

    >>> from headstart.modality.image import Frame
    >>> fit = image_fit([Frame(200, 100, True)], Preprocess(size=40, crop=0.8))  # resized to 100x50, of which 40x40 are seen
    >>> fit.enlarged, round(fit.seen, 6), fit.grey
    (0.5, 0.32, 1.0)
    """
    width, height = np.array([[frame.width, frame.height] for frame in frames], dtype=np.float64).T
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    seen = (preprocess.size / preprocess.resize) ** 2 * shorter / longer
    return ImageFit(
        looked_at=len(frames),
        width=int(np.median(width)),
        height=int(np.median(height)),
        grey=float(np.mean([frame.is_grey for frame in frames])),
        channels=preprocess.channels,
        size=preprocess.size,
        enlarged=float(np.median(preprocess.resize / shorter)),
        seen=float(seen.mean()),
    )


def text_fit(texts: Sequence[str], backbone: Backbone) -> TextFit:
    """Return how texts meet a backbone's tokenizer. Raises ``InputError`` where it has none."""
    from headstart.modality.text import reading

    found = reading(texts, backbone)
    return TextFit(
        looked_at=found.texts,
        tokens=found.tokens,
        max_length=backbone.preprocess.max_length if isinstance(backbone.preprocess, TextInput) else 0,
        cut_off=found.cut_off,
        read=found.read,
        whole_words=found.whole_words,
        tokens_per_word=found.tokens_per_word,
        unknown=found.unknown,
    )


def stages_to_keep(curve: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Return the stages whose score lies within one standard error of the best, that error being the best one's (Breiman et al. 1984, the 1-SE rule).

    The first of them is where the network can be cut: what lies above adds nothing that the probe can tell from chance.

    >>> stages_to_keep({"stem": (0.50, 0.02), "layer1": (0.79, 0.02), "layer2": (0.80, 0.02), "head": (0.75, 0.01)})
    ('layer1', 'layer2')
    """
    best, error = max(curve.values(), key=lambda point: point[0])
    return tuple(stage for stage, (score, _) in curve.items() if score >= best - error)


def licence_caution(licence: str) -> Caution:
    """Return what a licence's words warn of. It reads words, and is no legal advice; "yours" and what it does not know pass.

    >>> [licence_caution(text) for text in ("Apache-2.0", "CC-BY-NC-4.0", "ask who made it", "for research use only", "")]
    ['', 'non-commercial', 'unknown', 'non-commercial', 'unknown']
    """
    if NON_COMMERCIAL.search(licence):
        return "non-commercial"
    return "unknown" if UNSAID.fullmatch(licence.strip()) else ""


def measured_cost(source: Source, root: Path) -> float | None:
    """Return seconds per input, as measured on this machine and remembered in the store at ``root``; ``None`` where it never was."""
    from headstart.activations.costs import known

    costs = known(root)
    return costs.get(source.weights_sha256) if costs else None  # why: hashing weights takes time, and an empty book has nothing to look up


def _score(name: str, value: float, n: int) -> Score:
    return Score(name, value, None, n, "0..1", "architecture")


def _cases_per_feature(n: int, d: int) -> Score:
    return Score("cases per feature", n / d, None, n, "cases per feature", "architecture")


def _image_in_words(fit: ImageFit) -> str:
    colour = {"L": "grey", "RGBA": "colour and alpha"}.get(fit.channels, "colour")
    parts = [f"{fit.looked_at} images looked at, median {fit.width}x{fit.height}, are {_resized(fit.enlarged)} for its {fit.size}x{fit.size} input"]
    if fit.seen < 1 - WORTH_SAYING:
        parts.append(f"the crop shows {fit.seen:.0%} of an image")
    if fit.channels != "L" and fit.grey > WORTH_SAYING:
        parts.append(f"{_share(fit.grey)} are grey where it learned from {colour}")
    if fit.channels == "L" and fit.grey < 1 - WORTH_SAYING:
        parts.append(f"it sees grey, and the colour of {_share(1 - fit.grey)} is lost")
    return _sentence("; ".join(parts))


def _resized(factor: float) -> str:
    if 0.8 <= factor <= 1.25:
        return "about the right size"
    return f"enlarged {factor:.1f} times" if factor > 1 else f"reduced {1 / factor:.1f} times"


def _text_in_words(fit: TextFit) -> str:
    parts = [
        f"{fit.looked_at} texts looked at take {fit.tokens} tokens (median); {fit.whole_words:.0%} of words are one token, {fit.tokens_per_word:.1f} on average"
    ]
    if fit.cut_off > 0:
        parts.append(f"{_share(fit.cut_off)} are longer than the {fit.max_length} tokens that it reads, which loses {1 - fit.read:.0%} of the text")
    if fit.unknown > 0:
        parts.append(f"{fit.unknown:.1%} of tokens are unknown to its vocabulary")
    return _sentence("; ".join(parts))


def _capacity_in_words(fit: ArchitectureFit) -> str:
    size = f" and {counted(fit.parameters)} parameters" if fit.parameters else ""
    has = f"{fit.n:,} cases for {fit.dim:,} features{size}"
    if fit.cases_per_feature < SEPARABLE:
        return f"{has} are so few that a linear head can fit any labels, and only held-out cases judge it"
    return f"{has} leave a linear head needing its penalty" if fit.cases_per_feature < AMPLE else f"{has} are ample for a linear head"


def _stages_in_words(kept: Sequence[str]) -> str:
    if not kept:
        return ""
    also = f" (also: {', '.join(kept[1:])})" if len(kept) > 1 else ""
    return f"{kept[0]} is the first stage within one standard error of the best{also}"


def _licence_in_words(fit: ArchitectureFit) -> str:
    said = f" ({fit.licence})" if fit.licence else ""
    return {"": "", "unknown": f"its licence is not known{said}", "non-commercial": f"its licence limits commercial use{said}"}[fit.caution]


def _share(share: float) -> str:
    return "all" if share == 1 else f"{share:.0%}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


CASES_PER_FEATURE = Measure(
    "cases per feature",
    "architecture",
    lambda e: _cases_per_feature(*np.asarray(e.x).shape),
    frozenset({"x"}),
    "Cover 1965, Geometrical and statistical properties of systems of linear inequalities (2 cases per weight); Peduzzi et al. 1996 (10)",
    "Counts features that repeat each other as if each were news; a penalised head does well far below 2.",
    ignores=frozenset({"rotation", "scale", "shift"}),
)

MEASURES: tuple[Measure, ...] = (CASES_PER_FEATURE,)
