"""What a fitted candidate depends on: its inputs and the seed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from headstart import sources
from headstart.activations.store import Store
from headstart.core import Source
from headstart.learner import Candidate, Target, learn
from headstart.methods import Closed, FineTune, Probe, Scratch, View
from headstart.methods.relations import CORAL
from headstart.views import Views


def test_a_net_from_random_weights_is_the_same_whatever_drew_random_numbers_before(tmp_path: Path) -> None:
    items = [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(8)]
    views = Views(items, [str(i) for i in range(8)], {}, Store(tmp_path))
    method = Scratch(lambda seed: sources.twin(sources.entry("squeezenet").recipe, seed=seed), steps=2)
    heads = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        fitted = learn(Candidate(method), views, np.arange(8), np.arange(8) % 2, classes=2, seed=0)
        heads.append(fitted.model.head.weight.detach().clone())
    assert torch.equal(*heads)
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    learn(Candidate(method), views, np.arange(8), np.arange(8) % 2, classes=2, seed=0)
    assert torch.equal(torch.rand(1), first)


class Aligned(Closed):
    """CORAL on pixels, as a method."""

    name, arm, level = "aligned", "frozen", "relation"

    def view(self, source: object) -> View:
        return View("pixels")

    def estimator(self, *, seed: int) -> CORAL:
        return CORAL()


def test_an_estimator_that_takes_two_domains_gets_the_target_with_the_labels_that_are_known(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = [rng.integers(0, 255, (8, 8, 3)).astype(np.uint8) for _ in range(24)]
    views = Views(items, [str(i) for i in range(24)], {}, Store(tmp_path))
    y, ours, theirs, known = np.arange(24) % 2, np.arange(12), np.arange(12, 24), np.array([13, 14])
    fitted = learn(Candidate(Aligned()), views, ours, y, classes=2, seed=0, target=Target(theirs, known))
    x = views.array(View("pixels"))
    labels = [None, 1, 0, *[None] * 9]
    assert np.array_equal(fitted.output(x[theirs]), CORAL().fit(x[ours], y[ours], X_target=x[theirs], y_target=labels).predict_proba(x[theirs]))


def test_an_estimator_of_one_domain_learns_from_the_known_labels_of_the_other_as_well(tmp_path: Path) -> None:
    class Plain(Aligned):
        def estimator(self, *, seed: int) -> object:  # type: ignore[override]
            from sklearn.linear_model import LogisticRegression

            return LogisticRegression()

    rng = np.random.default_rng(0)
    items = [rng.integers(0, 255, (8, 8, 3)).astype(np.uint8) for _ in range(24)]
    views = Views(items, [str(i) for i in range(24)], {}, Store(tmp_path))
    y, known = np.arange(24) % 2, np.array([13, 14])
    fitted = learn(Candidate(Plain()), views, np.arange(12), y, classes=2, seed=0, target=Target(np.arange(12, 24), known))
    both = learn(Candidate(Plain()), views, np.concatenate([np.arange(12), known]), y, classes=2, seed=0)
    x = views.array(View("pixels"))
    assert np.array_equal(fitted.output(x), both.output(x))


def test_a_net_tuned_from_stored_activations_has_the_bits_of_one_whose_activations_were_just_made(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = [rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(16)]
    weights = []
    for computed in (16, 0):  # why a new source: the engine lays out the weights of the one that it runs
        source = sources.get("squeezenet")
        views = Views(items, [str(i) for i in range(16)], {source.name: source}, Store(tmp_path))
        fitted = learn(Candidate(FineTune(steps=3), source), views, np.arange(16), np.arange(16) % 2, classes=2, seed=0)
        assert views.computed == {source.name: computed}
        weights.append(torch.cat([value.flatten() for value in fitted.model.state_dict().values()]))
    assert torch.equal(*weights)


def test_settings_that_learn_alike_from_the_same_stages_are_one_candidate() -> None:
    shallow = Source("two stages", dim=4, stages=("a", "b"))
    told = {(back, span): str(Candidate(Probe(back=back, span=span), shallow).describe()) for back in (0, 1, 3) for span in (1, 2, 4)}
    assert told[0, 2] == told[0, 4] != told[0, 1]
    assert len({told[1, 1], told[1, 4], told[3, 1], told[3, 4]}) == 1
    assert len(set(told.values())) == 3
    assert str(Candidate(Probe(head="knn"), shallow).describe()) != told[0, 1]
