"""Which source should be fine-tuned? The forecast's order against scores of similarity and static lists.

    python benchmarks/ranking.py rows.jsonl [--tables DIR]

For each target that ``collect.py`` measured: Kendall's tau weighted towards the top (Vigna 2015, ``scipy.stats.weightedtau``) between what a score says of the
sources and the measured fine-tuned scores, and the regret: by how many points the best source by that score falls short of the best of all. Forecasts are
made from the other targets alone, as is the static list of mean ranks; the anchor is the source with the best frozen score, as a run would choose it.
``--tables`` recomputes tau on published tables: scores and fine-tuned accuracies of others (Model-Spider: 10 networks, 8 targets; MedMNIST: 15 sources).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, weightedtau

from calibration import by_target, family, forecasts, left_out
from collect import features_of, rows_of
from headstart.forecast import Anchor, Known, Past, forecast, published

Row = dict[str, Any]
VIEWS = ("headstart.similarity.feature", "headstart.similarity.task")  # the measures that need no more than final features and the source's classes


def agreement(score: Sequence[float], truth: Sequence[float]) -> float:
    """Weighted tau, -1..1; ties are no agreement, and a score that says the same of all agrees with nothing."""
    value = float(weightedtau(np.asarray(score), np.asarray(truth)).statistic)
    return value if np.isfinite(value) else 0.0


def regret(score: Sequence[float], truth: Sequence[float]) -> float:
    """Points, 0..100, by which the source with the highest score falls short of the best; among ties the mean."""
    score, truth = np.asarray(score, dtype=float), np.asarray(truth, dtype=float)
    return float(100 * (truth.max() - truth[score == score.max()].mean()))


def mean_ranks(truths: Sequence[Sequence[float]]) -> np.ndarray:
    """The static list that others' targets give: the mean rank of each source, 0..1 and higher is better; what was not measured does not count."""
    ranks = [rankdata(one, nan_policy="omit") / np.count_nonzero(np.isfinite(one)) for one in truths]
    return np.asarray(np.nanmean(ranks, axis=0))


def scores_of(held: Sequence[Row], others: Sequence[Sequence[Row]], history: Sequence[Past], rows: Path) -> dict[str, list[float]]:
    """What every score says of a target's sources."""
    frozen = [r["frozen"]["score"] for r in held]
    anchor = held[int(np.argmax(frozen))]
    sizes = [float(r["parameters"]) for r in held]
    return {
        "forecast, one anchor": [f.value for f in forecasts(held, history, anchor)],
        "forecast, no anchor": [f.value for f in forecasts(held, history, None)],
        "frozen + head": frozen,
        **(seen := similarities(held, rows)),
        **({"order of assess": list(np.mean([frozen, seen["ridge"], seen["1-NN"]], axis=0))} if seen else {}),
        "static: ImageNet top-1, then size": [(published(r["source"], trained_on=r["trained_on"]) or 0.0) + 1e-12 * r["parameters"] for r in held],
        "static: parameters": sizes,
        "static: mean rank on the other targets": list(mean_ranks([_truth(o) for o in others])),
    }


def similarities(held: Sequence[Row], rows: Path) -> dict[str, list[float]]:
    """LogME, H-score, leave-one-out kNN and the like, on the final features that ``collect.py`` saved; none where those are gone."""
    from headstart.similarity.measure import Evidence

    measures = [measure for view in VIEWS if find_spec(view) for measure in import_module(view).MEASURES]
    out: dict[str, list[float]] = {}
    for row in held:
        path = features_of(rows, row["target"], row["source"])
        if not path.exists():
            return {}
        saved = np.load(path)
        evidence = Evidence(x=saved["x"].astype(np.float64), y=saved["y"], theta=saved["theta"] if "theta" in saved else None)
        for measure in measures:
            score = measure(evidence)
            if score is not None:
                out.setdefault(measure.name, []).append(score.value if score.higher_is_closer else -score.value)
    return {name: values for name, values in out.items() if len(values) == len(held)}


def _truth(held: Sequence[Row]) -> list[float]:
    return [r["fine_tuned"]["score"] for r in held]


def show(title: str, found: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """Print tau and regret by target, and their means; ``found[target][score]``."""
    names = list(next(iter(found.values())))
    print(f"\n{title}\n| score | mean tau | least | mean regret, points | worst |\n| --- | --- | --- | --- | --- |")
    for name in names:
        tau, lost = np.array([one[name] for one in found.values()]).T
        print(f"| {name} | {tau.mean():+.3f} | {tau.min():+.2f} | {lost.mean():.2f} | {lost.max():.1f} |")
    print(f"\nTau by target\n| target | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for target, one in found.items():
        print(f"| {target} | {' | '.join(f'{one[name][0]:+.2f}' for name in names)} |")


def measured(rows: Path) -> None:
    targets = by_target(rows_of(rows))
    if len(targets) < 3:
        print(f"skipped: {len(targets)} complete targets; measure them with collect.py")
        return
    for title, group in (("each target left out", lambda t: t), ("whole families left out", family)):
        histories, found = left_out(targets, group), {}
        for target, held in targets.items():
            others = [o for name, o in targets.items() if group(name) != group(target)]
            found[target] = {
                name: (agreement(s, _truth(held)), regret(s, _truth(held))) for name, s in scores_of(held, others, histories[target], rows).items()
            }
        show(f"Against measured fine-tuned scores, {len(found)} targets, {len(held)} sources, {title}", found)
    spread = [100 * float(np.ptp(_truth(held))) for held in targets.values()]
    blind = [100 * (max(_truth(held)) - float(np.mean(_truth(held)))) for held in targets.values()]
    again = [agreement([r["frozen_test"]["score"] for r in held], _truth(held)) for held in targets.values()]
    print(f"\nBest and worst source lie {np.mean(spread):.1f} points apart on average; a source at random loses {np.mean(blind):.1f}.")
    print(f"The frozen score on the test images themselves agrees with the fine-tuned one with tau {np.mean(again):+.3f}.")


def published_tables(folder: Path) -> None:
    if not folder.is_dir():
        print(f"skipped published tables: {folder} is no folder")
        return
    show("Model-Spider's table: 10 networks on 8 targets", model_spider(folder / "model_spider"))
    for kind in ("dataset", "model"):
        show(f"MedMNIST's tables, by {kind}", medmnist(folder / "medmnist_dataset_transfer", kind))


def model_spider(folder: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """No frozen scores are published there; the forecast rests on the static prior, one anchor and the other targets."""
    said = json.loads((folder / "finetune_acc_single_source.json").read_text())
    with (folder / "baseline_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = said["models"]
    millions = dict(zip(names, (6.6, 27.2, 25.6, 44.5, 60.2, 8.0, 14.1, 20.0, 3.5, 4.4), strict=True))
    truths = {t: [said["acc"][t][m] / 100 for m in names] for t in dict.fromkeys(r["Dataset"] for r in rows)}
    history = {t: [_row(t, m, 0.8, a, millions[m], 1000) for m, a in zip(names, truth, strict=True)] for t, truth in truths.items()}
    out = {}
    for target, truth in truths.items():
        table = {r["Model"]: r for r in rows if r["Dataset"] == target}
        scores = {k: [float(table[m][k]) for m in names] for k in rows[0] if k not in {"Dataset", "Model"}}
        scores["ImageNet top-1"] = [published(m, trained_on="ImageNet") or 0.0 for m in names]
        scores["parameters"] = [millions[m] for m in names]
        scores["mean rank on the other targets"] = list(mean_ranks([v for t, v in truths.items() if t != target]))
        past = [row for t, held in history.items() if t != target for row in held]
        known = [Known(m, 0.8, parameters=int(1e6 * millions[m]), trained_on="ImageNet") for m in names]
        scores["forecast, no frozen scores"] = [f.value for f in forecast(known, n=1000, history=past)]
        out[target] = {k: (agreement(v, truth), regret(v, truth)) for k, v in scores.items()}
    return out


def medmnist(folder: Path, kind: str) -> dict[str, dict[str, tuple[float, float]]]:
    """AUC after fine-tuning, scores, and LP: the accuracy of a linear probe, which serves as the forecast's frozen score."""

    def read(name: str) -> tuple[list[str], dict[str, list[float]]]:
        with (folder / f"{name}_{kind}.csv").open() as file:
            rows = [r for r in csv.DictReader(file) if r["source"]]
        return [r["source"] for r in rows], {k: [float(r[k]) if r[k] else np.nan for r in rows] for k in rows[0] if k not in {"", "source"}}

    sources, truths = read("AUCs")
    truths = {t: [v / (100 if max(values) > 1 else 1) for v in values] for t, values in truths.items()}
    tables = {name: read(name) for name in ("lp", "nleep", "fu", "leep", "logme", "parc", "sfda", "ncti")}
    targets = [t for t in truths if all(t in table for _, table in tables.values())]
    probes = {t: dict(zip(tables["lp"][0], tables["lp"][1][t], strict=True)) for t in targets}
    out = {}
    for target in targets:
        names = [s for s, v in zip(sources, truths[target], strict=True) if np.isfinite(v) and all(s in held for held, _ in tables.values()) and s != target]
        truth = dict(zip(sources, truths[target], strict=True))
        scores = {k: [table[target][held.index(s)] for s in names] for k, (held, table) in tables.items()}
        others = [t for t in targets if t != target]
        scores["mean rank on the other targets"] = list(mean_ranks([[truths[t][sources.index(s)] for s in names] for t in others]))
        past = [
            _row(t, s, probes[t][s], truths[t][sources.index(s)], 0.0, 1000, anchor=True)
            for t in others
            for s in names
            if np.isfinite(truths[t][sources.index(s)])
        ]
        known = [Known(s, probes[target][s]) for s in names]
        anchor = max(known, key=lambda k: k.frozen)
        scores["forecast, one anchor"] = [f.value for f in forecast(known, n=1000, history=past, anchor=Anchor(anchor.source, truth[anchor.source]))]
        scores["forecast, no anchor"] = [f.value for f in forecast(known, n=1000, history=past)]
        out[target] = {k: (agreement(v, [truth[s] for s in names]), regret(v, [truth[s] for s in names])) for k, v in scores.items()}
    return out


def _row(task: str, source: str, frozen: float, score: float, millions: float, n: int, *, anchor: bool = False) -> Past:
    about = {"parameters": int(1e6 * millions), "trained_on": "ImageNet" if millions else ""}
    return Past(task, source, "", n, 2, frozen, score, anchor=score if anchor else None, **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--tables", type=Path)
    args = parser.parse_args()
    measured(args.rows)
    if args.tables:
        published_tables(args.tables)


if __name__ == "__main__":
    main()
