"""The report: one whole file that draws what the result holds, whatever the labels are called and whatever is missing."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headstart.fronts import FrontPoint
from headstart.report import charts, render, write
from headstart.report.front_charts import tradeoff
from headstart.result import (
    Arm,
    Calibration,
    Confusion,
    Contender,
    CurvePoint,
    FeatureMap,
    Found,
    Mistake,
    Provenance,
    RankedSource,
    Result,
    Score,
    Step,
    Trial,
    Verdict,
)

PIXEL = "data:image/jpeg;base64,AAAA"
VOID = {"meta", "img", "br", "link"}


def result(labels: tuple[str, ...] = ("cat", "dog"), **changes: object) -> Result:
    score = Score("balanced accuracy", 0.75, interval=(0.701, 0.799), n=30)
    arms = [Arm(name, i, "method", None if i == 0 else "net", {"rate": 0.1}, score, score, (0.7, 0.8)) for i, name in enumerate(charts.COLOURS)]
    c = len(labels)
    whole = Result(
        task="pets",
        kind="classification",
        metric="balanced accuracy",
        labels=labels,
        verdict=Verdict("transfer", "transfer", 0.123, (0.051, 0.195), 0.98, 0.0, 15),
        found=Found(40, "images", dict.fromkeys(labels, 20), {"Pixels": "8x9 to 12x11, median 10x10"}, ("cat/bad.png",), 2, (), None, 30, 10),
        sources=(RankedSource("net", score, 1_000_000, 8, "MIT", "why"),),
        trials=tuple(Trial(i, a.name, a.method, a.source, a.params, a.folds, "stopped" if i == 2 else "complete", "") for i, a in enumerate(arms)),
        arms=tuple(arms),
        shipped="frozen",
        curve=tuple(CurvePoint(n, score, score) for n in (10, 20, 40)),
        confusion=Confusion(labels, tuple(tuple(int(i == j) * 5 for j in range(c)) for i in range(c))),
        scatter=None,
        mistakes=(Mistake("cat/a.png", labels[0], labels[1], 0.91, PIXEL),),
        map=FeatureMap("t-SNE", labels, tuple(map(float, range(c))), tuple(map(float, range(c))), tuple(range(c))),
        calibration=Calibration(1.2, 0.1, 0.05, 0.5, 0.4),
        coverage=None,
        provenance=Provenance("headstart transfer pets --seed 0", 0, "60 s", {"headstart": "0.1.0"}, "d" * 64, {"net": "e" * 64}, "PyTorch", "float32", 2),
        stopped_by="plan",
        times={"trial.0": 0.5, "trial.1": 2.0, "trial.2": 30.0, "total": 40.0},
    )
    return dataclasses.replace(whole, **changes)


class Page(HTMLParser):
    """Checks that tags are balanced; collects text and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_verdict_comes_first_with_its_gain_and_interval() -> None:
    text = Page(render(result())).text
    body = text[text.index("Headstart report") :]
    assert body.index("Transfer helps") < body.index("What was reached") < body.index("How to repeat it")
    assert "+0.123 90% interval +0.051 to +0.195, P(gain > 0) = 0.98" in body


def test_every_score_is_shown_with_its_interval() -> None:
    text = Page(render(result())).text
    assert text.count("0.750 [0.701, 0.799]") >= 10  # two charts and a table of three arms, the source, and the shipped model


def test_each_contender_is_shown_with_its_adjusted_p_where_there_are_several() -> None:
    several = (Contender("probe", "net", 0.05, (0.02, 0.08), 0.008, 0.016, 15, True), Contender("probe", "other", -0.01, (-0.05, 0.03), 0.62, 0.62, 15, False))
    words = Page(render(result(contenders=several))).words
    text = " ".join(" ".join(words).split())
    assert "+0.050 [+0.020, +0.080] 15 folds 0.008 0.016 helps" in text
    assert "-0.010 [-0.050, +0.030] 15 folds 0.620 0.620 not shown to help" in text
    assert "Holm" not in render(result(contenders=several[:1]))


def test_the_page_loads_nothing_from_elsewhere() -> None:
    text = render(result())
    assert set(Page(text).addresses) == {PIXEL}
    assert "@import" not in text
    assert not re.findall(r"url\(", text)


def test_names_with_markup_are_shown_as_text() -> None:
    text = render(result(("<script>alert(1)</script>", "a&b"), task='"><img src=x onerror=1>'))
    assert "<script" not in text
    assert set(Page(text).addresses) == {PIXEL}
    assert "a&amp;b" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": (), "curve": (), "map": None, "mistakes": (), "calibration": None, "times": {}, "notes": ("The budget ended.",), "stopped_by": "budget"},
        {"verdict": Verdict("undecided", "baseline", 0.0, (-1.0, 1.0), 0.5, 0.0, 0), "shipped": "baseline"},
        {"verdict": Verdict("do not transfer", "baseline", -0.05, (-0.08, -0.02), 0.01, 0.01, 15), "shipped": "baseline"},
    ],
)
def test_a_result_with_parts_missing_is_drawn_and_says_so(changes: dict[str, object]) -> None:
    page = Page(render(result(**changes)))
    assert ("Not drawn" in page.text) == (not changes.get("curve", True))


def test_an_arm_that_was_not_measured_is_named() -> None:
    whole = result()
    assert "Fine-tuned: not measured" in Page(render(dataclasses.replace(whole, arms=whole.arms[:2]))).text


def walk(*taken: bool) -> tuple[Step, ...]:
    score = Score("balanced accuracy", 0.612, interval=(0.601, 0.623), n=30)
    first = Step(3, 0.0, 0, "input", score, None, None, True, "no transfer")
    return (first, *(Step(4 + i, 0.25 * (i + 1), 2, "mid", score, 0.05, (0.01, 0.09), t, "why it was") for i, t in enumerate(taken)))


def test_every_step_of_a_walk_is_shown_with_its_gain_and_whether_it_was_taken() -> None:
    page = render(result(walk=walk(True, False)))
    text = Page(page).text
    assert "a = 0.25, behind mid" in text
    assert text.count("+0.050 [+0.010, +0.090]") == 4  # each step in the chart and in the table
    assert "0.612 [0.601, 0.623] – yes: no transfer" in text
    assert page.count('class="dot tuned hollow"') - render(result()).count('class="dot tuned hollow"') == 1
    assert "The walk" not in Page(render(result())).text


def test_a_walk_that_stays_at_no_transfer_is_told_from_a_budget_that_ended() -> None:
    whole = dataclasses.replace(result(), arms=result().arms[:2])
    assert "Fine-tuned: no step from random weights" in Page(render(dataclasses.replace(whole, walk=walk(False)))).text
    assert "Fine-tuned: not measured" in Page(render(dataclasses.replace(whole, walk=walk(True)))).text


def test_twenty_four_classes_have_marks_that_differ() -> None:
    labels = tuple(f"class {i}" for i in range(24))
    assert len({charts.mark(0, 0, i, 3) for i in range(24)}) == 24
    assert "class 23" in Page(render(result(labels))).text


def test_equal_results_give_equal_pages_also_after_a_round_trip() -> None:
    whole = result()
    again = Result.from_json(whole.to_json(), times=whole.times)
    assert render(whole) == render(again)


def test_drawings_are_well_formed_and_put_values_where_they_belong() -> None:
    rows = [charts.Whisker("a", 0.2, (0.1, 0.3), "frozen", "0.2"), charts.Whisker("b", 0.4, None, "tuned", "0.4")]
    root = ElementTree.fromstring(charts.whiskers(rows, unit="score"))
    dots = [float(e.get("cx", "")) for e in root.iter("circle")]
    ticks = {e.text: float(e.get("x", "")) for e in root.iter("text") if "tick" in e.get("class", "")}
    assert dots == pytest.approx([ticks["0.2"], ticks["0.4"]])
    whisker = next(e for e in root.iter("line") if "whisker" in e.get("class", ""))
    assert [float(whisker.get("x1", "")), float(whisker.get("x2", ""))] == pytest.approx([ticks["0.1"], ticks["0.3"]])


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write(result(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == render(result())
    with pytest.raises(FileNotFoundError):
        write(result(), tmp_path / "absent" / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_front_is_drawn_and_what_was_left_out_has_its_reason() -> None:
    plain = result()
    out = Trial(3, "frozen", "ridge", "huge", {"back": 0}, (), "excluded", "30 MB on disk before its head, --max-size is 20 MB")
    points = (
        FrontPoint(1, 0.75, 13_500_000, 26_000_000, 0.02),
        FrontPoint(0, 0.7, 40_000, 50_000, 0.001),
        FrontPoint(2, 0.7, 19_000_000, 26_000_000, 0.03, False),
    )
    shown = result(front=points, trials=(*plain.trials, out), bounds={"size": 20e6, "latency": 0.05})
    page = render(shown)
    text = Page(page).text
    assert "What a better score takes" in text
    assert "Bounds: latency 50 ms, size 20 MB (dashed); 1 setting left out" in text
    assert "13.5 MB 26 MB 20 ms" in text
    assert "left out: 30 MB on disk before its head, --max-size is 20 MB" in text
    assert "All 3 trials, and what was left out" in text
    assert page.count("dot tuned hollow") == 3  # in cost for it was stopped, and dominated in both charts
    assert Result.from_json(shown.to_json()) == dataclasses.replace(shown, times={})
    assert "What a better score takes" not in render(plain)


@pytest.mark.parametrize("side", ["size", "latency"])
def test_better_and_cheaper_lies_higher_and_further_left(side: str) -> None:
    points = (FrontPoint(0, 0.9, 10**4, 0, 1e-3), FrontPoint(1, 0.7, 10**6, 0, 1e-1, False))
    drawn = tradeoff(points, {t.number: t for t in result().trials}, side=side, limit=None, metric="accuracy")  # type: ignore[arg-type]
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle class="dot [a-z ]+" cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    (worse_x, worse_y), (better_x, better_y) = places
    assert better_x < worse_x
    assert better_y < worse_y
    assert ElementTree.fromstring(str(drawn)) is not None


def test_where_no_source_fits_the_page_says_so_and_does_not_blame_the_budget() -> None:
    plain = result()
    out = Trial(1, "frozen", "ridge", "huge", {"back": 0}, (), "excluded", "30 MB on disk, --max-size is 20 MB")
    lone = result(trials=(plain.trials[0], out), arms=plain.arms[:1], shipped="baseline", sources=(), verdict=dataclasses.replace(plain.verdict, folds=0))
    text = Page(render(lone)).text
    assert "No transfer fits the bounds, so none was measured." in text
    assert "Frozen features + head: nothing of it fits the bounds." in text
    assert "Fine-tuned: not tried, for no source fits the bounds." in text
    assert "None was probed: none fits the bounds." in text
    assert "the budget ended first" not in text
