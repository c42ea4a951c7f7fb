"""assess() on real networks and planted data: what helps leads, what cannot is refused, the held-out part stays unseen, and no labels means no scores."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart as hs
from headstart import appraisal
from headstart.assessment import AssessedSource, Assessment, Gain
from headstart.bench import divide
from headstart.core import Domain, InputError, Task
from headstart.modality import door
from headstart.result import Score

N = 72


def stripes(slant: int, dice: np.random.Generator, *, noise: float = 25.0, level: float = 127.0) -> np.ndarray:
    y, x = np.mgrid[0:64, 0:64]
    wave = np.sin((x + slant * y) * dice.uniform(0.25, 0.5) + dice.uniform(0, 6))
    return np.repeat((level + 50 * wave + dice.normal(0, noise, wave.shape)).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def task(*, seed: int = 0, name: str = "stripes", level: float = 127.0, shuffled: bool = False) -> Task:
    dice = np.random.default_rng(seed)
    labels = ["left" if i % 2 else "right" for i in range(N)]
    images = [stripes(1 if label == "left" else -1, dice, level=level) for label in labels]
    if shuffled:
        labels = list(dice.permutation(labels))
    return Task("classification", "image", Domain(name, images, labels), ("left", "right"))


@pytest.fixture(scope="module")
def sources() -> list[hs.Source]:
    return [hs.sources.get("squeezenet"), hs.sources.get("efficientnet_lite0")]


@pytest.fixture(scope="module")
def found(sources: list[hs.Source]) -> Assessment:
    return hs.assess(task(), sources, seed=3)


def test_every_source_is_seen_from_the_views_that_the_data_allow(found: Assessment) -> None:
    assert {s.name for s in found.sources} == {"squeezenet", "efficientnet_lite0"}
    for source in found.sources:
        assert {score.view for score in source.scores} == {"feature", "task", "architecture"}
        assert all(math.isfinite(score.value) for score in source.scores)
        assert source.frozen is not None
        assert source.frozen.interval is not None
        low, high = source.frozen.interval
        assert low <= source.frozen.value <= high
        assert source.why.startswith("Frozen features score")
        assert len(source.stages) > 5
        assert source.data == ""


def test_sources_are_ordered_by_what_is_foretold(found: Assessment) -> None:
    values = [s.fine_tuned.value for s in found.sources if s.fine_tuned]
    assert values == sorted(values, reverse=True)
    assert len(values) == 2
    assert not any(s.fine_tuned.is_promised for s in found.sources if s.fine_tuned)
    assert found.anchor == ""


def test_the_gain_is_that_of_the_guard_on_the_same_folds(found: Assessment) -> None:
    for source in found.sources:
        assert source.gain is not None
        assert source.frozen is not None
        assert found.baseline is not None
        assert source.gain.value == pytest.approx(source.frozen.value - found.baseline.value)
        assert 0 <= source.gain.p_harm <= 1
        assert (source.gain.p_harm < 0.5) == (source.gain.value > 0) or source.gain.value == 0


def test_findings_survive_json_and_repeat_byte_for_byte(found: Assessment, sources: list[hs.Source]) -> None:
    assert Assessment.from_json(found.to_json()) == found
    assert hs.assess(task(), sources, seed=3).to_json(times=False) == found.to_json(times=False)
    with pytest.raises(ValueError, match="not an assessment of format"):
        Assessment.from_json(json.dumps({"format": 0}))


def test_what_transfer_holds_out_is_not_looked_at(found: Assessment) -> None:
    given, inspection = door("image").inspect(task())
    parts = divide(given, inspection, seed=3)
    assert found.n == N
    assert found.n_used == len(parts.train) < N
    part, seen = appraisal._training_part(given, inspection, seed=3)
    assert seen.digests == tuple(inspection.digests[i] for i in parts.train)
    assert [x.tobytes() for x in part.target.x] == [given.target.x[i].tobytes() for i in parts.train]


def test_adding_a_source_changes_no_other_ones_measures(found: Assessment, sources: list[hs.Source]) -> None:
    alone = hs.assess(task(), sources[:1], seed=3).sources[0]
    beside = next(s for s in found.sources if s.name == alone.name)
    assert (alone.scores, alone.stages, alone.frozen, alone.gain) == (beside.scores, beside.stages, beside.frozen, beside.gain)


def test_labels_that_mean_nothing_are_not_said_to_be_worth_a_transfer(sources: list[hs.Source]) -> None:
    told = hs.assess(task(shuffled=True), sources[:1], seed=0)
    assert told.advice in ("undecided", "do not transfer")
    frozen = told.sources[0].frozen
    assert frozen is not None
    assert 0.3 < frozen.value < 0.7


def test_an_anchor_run_is_made_once_and_named(sources: list[hs.Source]) -> None:
    said: list[str] = []

    class Ear:
        def say(self, text: str) -> None: ...
        def phase(self, name: str, total: int | None) -> None:
            said.append(name)

        def advance(self, label: str, k: int) -> None: ...

    told = hs.assess(task(), sources[:1], seed=3, anchor=True, observer=Ear())
    runs = [name for name in said if name.startswith("anchor: fine-tuning ")]
    assert runs == [f"anchor: fine-tuning {told.anchor}"]
    assert told.times["anchor"] > 0
    promised = [s.fine_tuned for s in told.sources if s.fine_tuned is not None]
    assert all(p.is_promised for p in promised)
    assert all(p.interval[0] <= p.value <= p.interval[1] for p in promised)
    assert all(p.p_harm is not None and 0 <= p.p_harm <= 1 for p in promised)


def test_where_groups_are_named_sources_are_ranked_by_grouped_folds_alone_and_it_says_why(sources: list[hs.Source]) -> None:
    """Twelve copies of each of six images: with one left out by itself its copies tell its label, whatever the label means."""
    plain = task()
    pick = [i % 6 for i in range(N)]
    copied = Domain("copies", [plain.target.x[i] for i in pick], [("left", "right")[i // 3] for i in pick], [f"patient {i}" for i in pick])
    found = hs.assess(Task("classification", "image", copied, ("left", "right")), sources, seed=3)
    assert [s.name for s in found.sources] == sorted(
        (s.name for s in found.sources), key=lambda name: -next(s.frozen.value for s in found.sources if s.name == name)
    )
    assert any(note.startswith("Groups were named, so sources are ranked by the score on folds that keep them whole.") for note in found.notes)


def test_other_data_are_compared_in_each_sources_features(sources: list[hs.Source]) -> None:
    same = hs.assess(task(), sources[:1], other=task(seed=9, name="again"), seed=0).sources[0]
    bright = hs.assess(task(), sources[:1], other=task(seed=9, name="bright", level=200.0), seed=0).sources[0]
    auc = [next(s.value for s in one.scores if s.name == "domain classifier") for one in (same, bright)]
    assert auc[0] < 0.75 < 0.95 < auc[1]
    assert same.data
    assert bright.data
    names = {s.name for s in bright.scores if s.view in ("data", "task")}
    assert {"MMD", "KID", "sliced Wasserstein", "energy distance", "label shift", "classes shared", "OTDD"} <= names


def test_without_labels_data_are_described_and_it_says_what_it_cannot_know(sources: list[hs.Source]) -> None:
    bare = replace(task(), target=Domain("bare", task().target.x), labels=())
    told = hs.assess(bare, sources, other=task(seed=9, level=200.0), seed=0)
    assert (told.kind, told.advice, told.baseline) == ("unlabelled", "unknown", None)
    assert all(s.frozen is None and s.gain is None and s.fine_tuned is None and s.stages == () for s in told.sources)
    assert all("data" in {score.view for score in s.scores} for s in told.sources)
    assert "directions" in told.structure
    assert any("score can be reached" in what for what in told.unknown)
    assert Assessment.from_json(told.to_json()) == told


def test_regression_of_texts_is_assessed() -> None:
    dice = np.random.default_rng(0)
    words = ["dreadful", "poor", "dull", "fair", "good", "great", "superb"]
    y = [float(k) for k in dice.integers(0, 7, 60)]
    texts = [f"The {dice.choice(['film', 'meal', 'book'])} was {words[int(k)]} from start to end, number {i}." for i, k in enumerate(y)]
    reviews = Task("regression", "text", Domain("reviews", texts, y))
    told = hs.assess(reviews, [hs.sources.get("all-MiniLM-L6-v2")], seed=0)
    assert told.metric == "R2"
    assert {score.view for score in told.sources[0].scores} >= {"feature", "architecture"}
    assert told.sources[0].frozen is not None


def test_what_cannot_be_assessed_is_one_line(sources: list[hs.Source]) -> None:
    texts = Task("classification", "text", Domain("t", ["a"] * 8, ["x", "y"] * 4), ("x", "y"))
    with pytest.raises(InputError, match=r"^t holds text and stripes image\. Compare data of one kind\.$"):
        hs.assess(task(), sources, other=texts)
    with pytest.raises(InputError, match=r"is for text, and the task is image"):
        hs.assess(task(), [hs.sources.get("all-MiniLM-L6-v2")])
    with pytest.raises(InputError, match=r"cannot assess image segmentation yet"):
        hs.assess(replace(task(), kind="segmentation"), sources)


def headstart(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "headstart", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("assess") / "photos"
    for i, (image, label) in enumerate(zip(task().target.x, task().target.y or (), strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / str(label) / f"{i}.png")
    return root


def test_the_command_prints_advice_sources_and_four_sides(photos: Path, tmp_path: Path) -> None:
    done = headstart("assess", photos, "--sources", "squeezenet", "--out", tmp_path / "told.json")
    assert done.returncode == 0, done.stderr
    for part in ("Advice: ", "squeezenet leads: balanced accuracy", "P(harm)", "from four sides", "features: ", "stages: ", "--anchor makes one"):
        assert part in done.stdout
    assert Assessment.from_json((tmp_path / "told.json").read_text()).sources[0].name == "squeezenet"


def test_the_command_prints_whole_json_and_takes_unlabelled_folders(photos: Path) -> None:
    done = headstart("assess", photos / "left", "--sources", "squeezenet", "--source-data", photos, "--json")
    assert done.returncode == 0, done.stderr
    told = Assessment.from_json(done.stdout)
    assert (told.kind, told.n) == ("unlabelled", N // 2)


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    done = headstart("assess", tmp_path / "t.csv")
    assert done.returncode == 2
    assert done.stderr.strip() == f"headstart: {tmp_path / 't.csv'} is a table; --target is needed for its rows to be assessed, or --text for its texts."


@pytest.mark.parametrize(("sources", "advice"), [(1, "transfer"), (2, "transfer"), (3, "undecided")])
def test_the_best_of_many_must_be_the_surer_of_itself(sources: int, advice: str) -> None:
    score = Score("balanced accuracy", 0.8, interval=(0.7, 0.9), n=100, view="feature")
    nothing = {
        "parameters": 1,
        "dim": 1,
        "licence": "",
        "trained_on": "",
        "fine_tuned": None,
        "stages": (),
        "stages_kept": (),
        "scores": (),
        "nearest": (),
        "facts": "",
    }
    told = [AssessedSource(name=f"s{i}", frozen=score, gain=Gain(0.05, (0.01, 0.09), 0.02, 5), data="", why="", **nothing) for i in range(sources)]  # type: ignore[arg-type]
    assert appraisal._advice(told, score, 2)[0] == advice
