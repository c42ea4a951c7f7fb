"""Do the 90 % intervals of forecasts hold on targets that they were not made from?

    python benchmarks/calibration.py rows.jsonl

Reads what ``collect.py`` measured. Each target in turn is left out, its fine-tuned scores are forecast from the others, and the measured ones are looked up;
with an anchor, every source in turn is the anchor, and the anchor's own forecast does not count. Targets count alike. The same with whole families left out
(the styles of PACS, of emoji, both crystals, the three sets of digits), which is harder: nothing like the target was seen before. Beside it: the interval of
the frozen score by cross-validation against the score on test images, and whether P(harm) comes true.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collect import as_past, rows_of
from headstart.forecast import Anchor, Forecast, Known, Past, forecast

Row = dict[str, Any]
FAMILIES = {"pacs": "PACS", "emoji": "emoji", "elpv": "ELPV", "digits8": "digits", "mnist": "digits", "usps": "digits"}


def family(target: str) -> str:
    """Return what a target is near to; most are a family of their own."""
    return FAMILIES.get(target.split()[0], target)


def known(row: Row) -> Known:
    """What is known of a row's source before fine-tuning."""
    return Known(row["source"], row["frozen"]["score"], row["weights"], row["parameters"], trained_on=row["trained_on"])


def by_target(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each target, those of complete ones only."""
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(row["target"], []).append(row)
    most = max((len(held) for held in out.values()), default=0)
    return {name: held for name, held in out.items() if len(held) == most}


def forecasts(held: Sequence[Row], history: Sequence[Past], anchor: Row | None) -> tuple[Forecast, ...]:
    """Forecast all sources of a target."""
    first, base = held[0], held[0]["baseline"]
    half = (base["interval"][1] - base["interval"][0]) / 2
    about = {"n": first["n"], "history": history, "baseline": base["score"], "baseline_error": half / 2.13, "task": first["digest"]}  # t(4) at 95 %
    return forecast([known(r) for r in held], anchor=None if anchor is None else Anchor(anchor["source"], anchor["anchor"]["score"]), **about)


def left_out(targets: dict[str, list[Row]], group: Callable[[str], str]) -> dict[str, list[Past]]:
    """The history for each target: the targets of all other groups."""
    return {t: [as_past(r) for o, held in targets.items() if group(o) != group(t) for r in held] for t in targets}


def outcomes(held: Sequence[Row], history: Sequence[Past], *, anchored: bool) -> dict[str, float]:
    """Coverage, width and error of one target's forecasts, averaged over anchors and sources."""
    seen = []
    for anchor in held if anchored else [None]:
        for row, one in zip(held, forecasts(held, history, anchor), strict=True):
            if row is anchor:
                continue
            truth, (low, high) = row["fine_tuned"]["score"], one.interval
            seen.append((low <= truth <= high, high - low, abs(truth - one.value), truth - one.value))
    return dict(zip(("coverage", "width", "error", "bias"), np.mean(seen, axis=0), strict=True))


def naive(held: Sequence[Row]) -> dict[str, float]:
    """Errors of simpler forecasts: the anchor's score as it is, the same shifted by the frozen scores, and the frozen score as it is."""
    pairs = [(a, r) for a in held for r in held if a is not r]
    truth = np.array([r["fine_tuned"]["score"] for _, r in pairs])
    same = np.array([a["anchor"]["score"] for a, _ in pairs])
    shift = np.array([r["frozen"]["score"] - a["frozen"]["score"] for a, r in pairs])
    frozen = np.array([r["frozen"]["score"] for _, r in pairs])
    return {"same as the anchor": np.abs(truth - same).mean(), "shifted": np.abs(truth - same - shift).mean(), "frozen": np.abs(truth - frozen).mean()}


def table(title: str, targets: dict[str, list[Row]], histories: dict[str, list[Past]], *, anchored: bool) -> None:
    found = {t: outcomes(held, histories[t], anchored=anchored) for t, held in targets.items()}
    print(f"\n{title}\n| target | coverage | width | mean error | bias |\n| --- | --- | --- | --- | --- |")
    for target, one in found.items():
        print(f"| {target} | {one['coverage']:.2f} | {one['width']:.3f} | {one['error']:.3f} | {one['bias']:+.3f} |")
    mean = {k: float(np.mean([one[k] for one in found.values()])) for k in ("coverage", "width", "error", "bias")}
    print(f"| **mean of {len(found)}** | **{mean['coverage']:.3f}** | {mean['width']:.3f} | {mean['error']:.3f} | {mean['bias']:+.3f} |")


def frozen_table(targets: dict[str, list[Row]]) -> None:
    """Coverage of the cross-validated interval of the frozen score: it speaks of the expected score, and a test score of 300 images errs besides."""
    print("\nFrozen + head: does the cross-validated 90 % interval hold the score on test images?")
    print("| target | test score within | intervals of both overlap | width | mean error |\n| --- | --- | --- | --- | --- |")
    all_of = []
    for target, held in targets.items():
        seen = []
        for row in held:
            (low, high), test = row["frozen"]["interval"], row["frozen_test"]
            overlap = low <= test["interval"][1] and test["interval"][0] <= high
            seen.append((low <= test["score"] <= high, overlap, high - low, abs(test["score"] - row["frozen"]["score"])))
        all_of.append(np.mean(seen, axis=0))
        print(f"| {target} | {all_of[-1][0]:.2f} | {all_of[-1][1]:.2f} | {all_of[-1][2]:.3f} | {all_of[-1][3]:.3f} |")
    mean = np.mean(all_of, axis=0)
    print(f"| **mean of {len(all_of)}** | **{mean[0]:.3f}** | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.3f} |")


def harm_table(targets: dict[str, list[Row]], histories: dict[str, list[Past]]) -> None:
    """P(harm) against what came out, in four bins, and its Brier score beside that of the base rate."""
    said, came = [], []
    for t, held in targets.items():
        for anchor in held:
            for row, one in zip(held, forecasts(held, histories[t], anchor), strict=True):
                if row is not anchor:
                    said.append(one.p_harm)
                    came.append(row["fine_tuned"]["score"] < row["baseline"]["test"]["score"])
    p, y = np.array(said, dtype=float), np.array(came, dtype=float)
    print("\nP(fine-tuned < no transfer) against what came out\n| said | pairs | mean said | came true |\n| --- | --- | --- | --- |")
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        of = (p >= low) & (p < high)
        if of.any():
            print(f"| {low:.1f} to {min(high, 1):.1f} | {of.sum()} | {p[of].mean():.2f} | {y[of].mean():.2f} |")
    print(f"Brier score {np.mean((p - y) ** 2):.3f}; always saying the base rate, {y.mean():.2f}: {np.mean((y.mean() - y) ** 2):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    targets = by_target(rows_of(parser.parse_args().rows))
    if len(targets) < 3:
        print(f"skipped: {len(targets)} complete targets; measure them with collect.py")
        return
    print(f"{len(targets)} targets, {len(next(iter(targets.values())))} sources")
    one, whole = left_out(targets, lambda t: t), left_out(targets, family)
    table("Fine-tuned score, with one anchor, each target left out", targets, one, anchored=True)
    table("The same, whole families left out", targets, whole, anchored=True)
    table("Without an anchor, each target left out", targets, one, anchored=False)
    simple = [naive(held) for held in targets.values()]
    print("\nMean error of simpler forecasts: " + ", ".join(f"{k} {np.mean([s[k] for s in simple]):.3f}" for k in simple[0]))
    frozen_table(targets)
    harm_table(targets, one)


if __name__ == "__main__":
    main()
