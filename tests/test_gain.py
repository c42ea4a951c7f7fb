"""Is a cut worth storing: the count agrees with what was measured, and what does not pay is neither stored nor trained from."""

import time
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import headstart as hs
from headstart import plan
from headstart.activations.gain import LEAST, gain, stored_cuts, work_of
from headstart.bench import Silent, set_up
from headstart.core import Backbone, Domain, Preprocess, Source, Task
from headstart.methods import Discriminative, FineTune
from headstart.modality import door
from headstart.search import Clock
from headstart.views import cuts_of

# ms of a frozen trunk, channels last, and of training the tail, per image: two cores, PyTorch, EfficientNet-Lite0; cuts behind blocks1 to blocks6
MEASURED = {3: (4.2, 30.8), 4: (5.8, 20.6), 5: (6.8, 15.8), 6: (8.3, 9.2), 7: (10.1, 2.6), 8: (10.5, 1.04)}


@pytest.mark.parametrize("cut", MEASURED)
def test_the_count_foretells_measured_gains(cut: int) -> None:
    trunk, tail = MEASURED[cut]
    measured = 10 * (trunk + tail) / (trunk + 10 * tail)
    assert gain(hs.sources.get("efficientnet_lite0"), cut) == pytest.approx(measured, rel=0.1)


def chain(*widths: int, tune: tuple[int, ...]) -> Source:
    stages = {f"s{i}": nn.Conv2d(a, b, 1) for i, (a, b) in enumerate(zip((3, *widths), widths, strict=False))}
    body = Backbone(stages, dim=widths[-1], preprocess=Preprocess(size=8, crop=1.0))
    return Source("chain", dim=widths[-1], stages=tuple(stages), opener=lambda: body, tune_cuts=tune)


def test_more_epochs_gain_more_and_no_epoch_beyond_the_first_gains_nothing() -> None:
    source = chain(4, 64, 8, tune=(1,))
    assert gain(source, 2, epochs=1) == pytest.approx(1.0)
    assert gain(source, 2, epochs=10) < gain(source, 2, epochs=30)


def test_cuts_that_do_not_pay_are_neither_stored_nor_trained_from() -> None:
    source = chain(64, 64, 2, tune=(1, 2))
    assert gain(source, 1) < LEAST < gain(source, 2)
    assert stored_cuts(source) == cuts_of(source)[1] == (2,)
    assert [FineTune(depth=d).cut(source) for d in (0, 1)] == [2, 2]


def test_where_no_cut_pays_the_one_nearest_to_the_output_is_kept() -> None:
    assert stored_cuts(chain(2, 2, 256, tune=(1, 2))) == (2,)
    assert stored_cuts(chain(2, 2, 256, tune=())) == ()


def test_counting_runs_no_stage_twice_and_leaves_the_network_alone() -> None:
    source, runs = chain(4, 8, tune=(1,)), []
    source.backbone.stages["s0"].register_forward_hook(lambda *_: runs.append(1))
    before = [len(m._forward_hooks) for m in source.backbone.modules()]
    for _ in range(3):
        stored_cuts(source)
    assert runs == [1]
    assert [len(m._forward_hooks) for m in source.backbone.modules()] == before


def test_the_whole_network_is_tuned_where_half_of_the_budget_pays_for_its_folds_its_judging_and_the_fit(tmp_path: Path) -> None:
    rng, body = np.random.default_rng(0), nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    pictures = [rng.integers(100 * (i % 2), 100 * (i % 2) + 120, (12, 12, 3), dtype=np.uint8) for i in range(24)]
    task, inspection = door("image").inspect(Task("classification", "image", Domain("squares", pictures, ["dark", "light"] * 12), ("dark", "light")))
    source = hs.sources.from_module(body, ["0+1", "2"], name="tiny", preprocess=Preprocess(size=12, crop=1.0))
    a_fit = 100 * 32 * 3 * sum(work_of(source.backbone)) / plan.OPERATIONS
    for share, expected in ((0.9, False), (1.1, True)):
        clock = Clock(share * 11 * a_fit / plan.SHARE_WHOLE, began=time.monotonic() + 86_400)
        bench = set_up(task, inspection, [source], folder=tmp_path / str(share), clock=clock, observer=Silent(), seed=0, engine="torch")
        assert plan.pays_for_whole(bench, source) is expected
    plan.rank(bench)
    plan.fine_tuned(bench, [Discriminative], more=True)
    assert [t.method for t in bench.search.trials if t.arm == "fine-tuned"][:2] == ["discriminative", "fine-tune-all"]
