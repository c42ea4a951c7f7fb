"""Results go to JSON and back without loss, and equal findings give equal bytes."""

import dataclasses
import json
from pathlib import Path

import pytest

from headstart.result import (
    Arm,
    Calibration,
    Confusion,
    Contender,
    Corrected,
    CurvePoint,
    FeatureMap,
    Found,
    Mistake,
    Outlook,
    Provenance,
    RankedSource,
    Result,
    Score,
    Step,
    Trial,
    Verdict,
)


def result() -> Result:
    score = Score("balanced accuracy", 0.75, interval=(0.7, 0.8), n=30)
    return Result(
        task="photos",
        kind="classification",
        metric="balanced accuracy",
        labels=("a", "ü"),
        verdict=Verdict("transfer", "transfer", 0.1, (0.05, 0.15), 0.99, 0.0, 15),
        found=Found(8, "images", {"a": 4, "ü": 4}, {"Pixels": "1x1 to 3x3"}, (), 1, (), None, 6, 2),
        sources=(RankedSource("s", score, 10, 2, "MIT", "why"),),
        trials=(
            Trial(0, "frozen", "frozen + head", "s", {"back": 0, "rate": 0.1}, (0.7, 0.8)),
            Trial(1, "baseline", "simple", None, {}, (0.5,), "stopped", "behind"),
        ),
        arms=(Arm("frozen", 0, "frozen + head", "s", {"back": 0}, score, dataclasses.replace(score, interval=None), (0.7, 0.8)),),
        shipped="frozen",
        curve=(CurvePoint(4, score, score),),
        confusion=Confusion(("a", "ü"), ((1, 0), (0, 1))),
        scatter=None,
        mistakes=(Mistake("a/1.png", "a", "ü", 0.9, "data:image/jpeg;base64,AA=="),),
        map=FeatureMap("PCA", ("a", "ü"), (0.0, 1.0), (0.5, 1.5), (0, 1)),
        calibration=Calibration(1.5, 0.1, 0.05, 0.6, 0.5),
        coverage=None,
        provenance=Provenance("headstart transfer photos", 0, "60 s", {"python": "3.11"}, "00", {"s": "11"}, "PyTorch", "float32", 2),
        stopped_by="plan",
        times={"total": 1.5},
    )


def test_a_result_comes_back_from_json_equal_and_of_the_same_types() -> None:
    one = result()
    two = Result.from_json(one.to_json(), times=one.times)
    assert two == one
    assert isinstance(two.trials[0].folds, tuple)
    assert isinstance(two.arms[0].cv, Score)
    assert isinstance(two.map, FeatureMap)


def test_a_walk_comes_back_and_a_result_from_before_walks_were_kept_still_loads() -> None:
    score = Score("balanced accuracy", 0.75, interval=(0.7, 0.8), n=30)
    steps = (Step(0, 0.0, 0, "input", score, None, None, True, "no transfer"), Step(1, 0.5, 2, "mid", score, 0.1, (0.05, 0.15), True, "better"))
    one = dataclasses.replace(result(), walk=steps)
    assert Result.from_json(one.to_json(), times=one.times) == one
    older = json.loads(result().to_json())
    del older["walk"]
    assert Result.from_json(json.dumps(older), times=result().times) == result()


def test_a_missing_map_and_calibration_stay_missing() -> None:
    one = dataclasses.replace(result(), map=None, calibration=None)
    assert Result.from_json(one.to_json()) == one


def test_an_outlook_comes_back_and_a_result_from_before_there_was_one_still_loads() -> None:
    score = result().arms[0].cv
    one = dataclasses.replace(
        result(),
        outlook=Outlook(340, 16, 0.03, (-0.01, 0.07), corrected=Corrected(0.02, (0.0, 0.04), 9, 12)),
        curve=(CurvePoint(4, score, score, ((0.7, 0.6), (0.8, 0.7))),),
    )
    assert Result.from_json(one.to_json()) == one
    old = json.loads(result().to_json())
    del old["outlook"], old["curve"][0]["folds"]
    assert Result.from_json(json.dumps(old)) == result()
    older = json.loads(one.to_json())
    del older["outlook"]["corrected"]
    assert Result.from_json(json.dumps(older)).outlook == Outlook(340, 16, 0.03, (-0.01, 0.07))


def test_contenders_come_back_and_a_result_from_before_there_were_any_still_loads() -> None:
    one = dataclasses.replace(result(), contenders=(Contender("probe", "net", 0.05, (0.02, 0.08), 0.008, 0.016, 15, True),))
    assert Result.from_json(one.to_json()) == one
    old = json.loads(result().to_json())
    del old["contenders"]
    assert Result.from_json(json.dumps(old)) == result()


def test_seconds_are_not_in_the_findings(tmp_path: Path) -> None:
    one, two = result(), dataclasses.replace(result(), times={"total": 99.0})
    assert one.to_json() == two.to_json()
    two.save(tmp_path)
    assert json.loads((tmp_path / "times.json").read_text()) == {"total": 99.0}


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="not a result of format 2"):
        Result.from_json(json.dumps({"format": 7}))


def test_a_verdict_says_decision_gain_interval_and_probability() -> None:
    assert str(result().verdict) == "transfer (gain +0.100, 90% interval +0.050 to +0.150, P(gain > 0) = 0.99)"


def test_predicting_without_a_model_says_how_to_get_one() -> None:
    with pytest.raises(ValueError, match=r"headstart\.load"):
        result().predict(["a.png"])
