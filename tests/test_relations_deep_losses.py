"""More losses of deep adaptation against closed forms, plain loops and other libraries; what learns without the source's data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import ot
import pytest
import torch
from torch import nn
from torch.nn import functional

from deep_worlds import columns, spurious
from headstart.contract_method import check_method
from headstart.core import Net, Source
from headstart.learner import moved
from headstart.methods.model.tuned import probed
from headstart.methods.relations.deep import CDAN, DEEP, SHOT, TENT, AdaBN, OwnStatistics, SourceOnly
from headstart.methods.relations.deep.adabn import take_statistics
from headstart.methods.relations.deep.cdan import MOST, Crossing
from headstart.methods.relations.deep.contrastive import contrast
from headstart.methods.relations.deep.dann import largest_squares
from headstart.methods.relations.deep.deep import Seen
from headstart.methods.relations.deep.deep_jdot import costs, plan
from headstart.methods.relations.deep.disagreement import disparity
from headstart.methods.relations.deep.mcc import sureness
from headstart.methods.relations.deep.rkd import angles, distances
from headstart.methods.relations.deep.self_training import surest
from headstart.methods.relations.deep.source_free import nearest_centroid
from headstart.train import predict_logits


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads only wait for each other on so small tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_sure_cases_weigh_one_plus_exp_of_minus_entropy_over_the_mean() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]], dtype=torch.float64)
    by_hand = [1 + math.exp(sum(v * math.log(v) for v in row if v)) for row in p.tolist()]
    assert sureness(p).tolist() == pytest.approx([w * 3 / sum(by_hand) for w in by_hand])


def test_products_up_to_the_limit_are_exact_and_projected_ones_keep_scalar_products_on_average() -> None:
    torch.manual_seed(0)
    f, p = torch.randn(6, 16), torch.softmax(torch.randn(6, MOST // 16), dim=1)
    exact, projected = Crossing(16, MOST // 16), Crossing(16, MOST // 16 + 1)
    assert (exact.dim, projected.dim) == (MOST, 1024)
    assert torch.allclose(exact(f, p) @ exact(f, p).T, (f @ f.T) * (p @ p.T), atol=1e-5)
    wide = functional.pad(p, (0, 1))
    errors = [Crossing(16, MOST // 16 + 1)(f, wide) for _ in range(30)]
    mean = torch.stack([e @ e.T for e in errors]).mean(dim=0)
    assert torch.allclose(mean, (f @ f.T) * (p @ p.T), atol=0.02)


def test_the_largest_squares_are_those_of_numpys_decomposition() -> None:
    x = np.random.default_rng(0).normal(size=(7, 5))
    assert largest_squares(torch.from_numpy(x), 2).item() == pytest.approx(np.square(np.linalg.svd(x, compute_uv=False)[:2]).sum())


def test_transport_is_what_pot_finds_on_costs_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    seen = Seen(torch.randn(4, 3), torch.randn(4, 2), torch.randn(4, 3), torch.randn(4, 2))
    y = torch.tensor([0, 1, 1, 0])
    own = [[-math.log(float(z.softmax(0)[int(k)])) for z in seen.zt] for k in y]
    by_hand = np.array([[0.5 * float((f - g).square().sum()) + 2.0 * own[i][j] for j, g in enumerate(seen.ft)] for i, f in enumerate(seen.fs)])
    cost = costs(seen, y, distance=0.5, labels=2.0)
    assert np.allclose(cost.numpy(), by_hand, atol=1e-5)
    assert float((plan(cost) * cost).sum()) == pytest.approx(ot.emd2(np.full(4, 0.25), np.full(4, 0.25), by_hand), abs=1e-5)


def test_disparity_is_the_papers_two_cross_entropies() -> None:
    torch.manual_seed(0)
    ours, theirs, a, b = torch.randn(3, 4), torch.randn(2, 4), torch.tensor([0, 3, 1]), torch.tensor([2, 2])
    followed = -sum(math.log(float(ours[i].softmax(0)[a[i]])) for i in range(3)) / 3
    departed = -sum(math.log(1 - float(theirs[i].softmax(0)[b[i]])) for i in range(2)) / 2
    assert disparity(ours, a, theirs, b, margin=4.0).item() == pytest.approx(4 * followed + departed, rel=1e-5)


def test_relations_do_not_change_under_rotation_and_scale_and_angles_are_those_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64)
    turned = 7.0 * x @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q + 2.0
    assert torch.allclose(distances(turned), distances(x))
    assert torch.allclose(angles(turned), angles(x))
    u, v = x[1] - x[0], x[2] - x[0]
    assert angles(x)[0, 1, 2].item() == pytest.approx(float(u @ v / (u.norm() * v.norm())))
    assert distances(x).sum().item() == pytest.approx(5 * 4)


def test_contrast_is_a_plain_loop_over_anchors_and_pairs() -> None:
    torch.manual_seed(0)
    a, b = functional.normalize(torch.randn(3, 4), dim=1), functional.normalize(torch.randn(5, 4), dim=1)
    ours, theirs = [0, 1, 2], [0, 0, 1, 1, 1]
    terms = []
    for i in (0, 1):  # the third has no partner
        odds = [math.exp(float(a[i] @ o) / 0.1) for o in b]
        terms.append(np.mean([-math.log(odds[j] / sum(odds)) for j in range(5) if theirs[j] == ours[i]]))
    assert contrast(a, torch.tensor(ours), b, torch.tensor(theirs), temperature=0.1).item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert contrast(a, torch.tensor(ours), b[:0], torch.tensor([], dtype=torch.long), temperature=0.1).item() == 0.0


def test_labels_by_the_nearest_centroid_are_those_of_two_rounds_by_hand() -> None:
    rng = np.random.default_rng(0)
    f, p = rng.normal(size=(20, 3)), rng.dirichlet(np.ones(3), size=20)
    unit = np.column_stack([f, np.ones(20)])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    share = p
    for _ in range(2):
        centres = share.T @ unit / share.sum(axis=0)[:, None]
        labels = (unit @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T).argmax(axis=1)
        share = np.eye(3)[labels]
    assert nearest_centroid(torch.from_numpy(f).float(), torch.from_numpy(p).float()).tolist() == labels.tolist()


def test_every_predicted_class_gives_the_same_share_of_own_labels() -> None:
    p = torch.softmax(torch.randn(90, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([2.0, 0.0, 0.0]), dim=1)
    counts = torch.bincount(p.argmax(dim=1))
    assert surest(p, 0.2).sum(dim=0).tolist() == [max(1, round(0.2 * int(n))) for n in counts]


def test_batchnorm_takes_mean_and_variance_of_all_the_targets_cases_however_they_are_sorted() -> None:
    norm = nn.BatchNorm1d(3, momentum=0.1).eval()
    x = torch.randn(70, 3, generator=torch.Generator().manual_seed(0)) * 5.0 + 2.0
    x = x[x[:, 0].argsort()]
    take_statistics(nn.Sequential(norm), x.split(32))
    assert torch.allclose(norm.running_mean, x.mean(dim=0), atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, x.var(dim=0), atol=1e-4)  # type: ignore[arg-type]
    assert (norm.momentum, norm.training) == (0.1, False)


def test_training_begins_from_a_tenth_of_the_probes_logits_and_for_numbers_from_the_probe() -> None:
    xs, ys, _, _ = spurious(seed=1, n=90)
    for y, classes, factor in ((ys, 3, 0.1), (xs[:, 0], 0, 1.0)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = SourceOnly().build(columns(20), features=xs, y=y, classes=classes, seed=0).head
        behind = head.get_submodule("bottleneck")(torch.from_numpy(xs).float()).detach().double().numpy()
        assert torch.allclose(head.get_submodule("linear").weight, factor * probed(behind, y, classes=classes).weight, atol=1e-6)


def fitted() -> tuple[Net, np.ndarray]:
    xs, ys, xt, _ = spurious(seed=1, n=90)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SourceOnly().build(columns(20), features=xs, y=ys, classes=3, seed=0), xt.astype(np.float32)


def test_a_net_is_moved_without_any_case_of_the_source_and_its_classifier_stays_bit_for_bit() -> None:
    net, xt = fitted()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    after = moved(SHOT(steps=20), net, xt, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    held = [name for name, value in after.state_dict().items() if torch.equal(value, before[name])]
    assert held == ["head.bottleneck.centre", "head.bottleneck.scale", "head.linear.weight", "head.linear.bias"]
    assert np.array_equal(predict_logits(after, xt), predict_logits(moved(SHOT(steps=20), net, xt, seed=0), xt))


def test_tent_and_adabn_start_where_a_norm_lies_above_and_their_starts_from_the_same_cut() -> None:
    from headstart.contract_method import tiny_source

    source = tiny_source()
    assert TENT().cut(source) == AdaBN().cut(source) == OwnStatistics().cut(source) == 2
    assert TENT().start(source).cut(source) == TENT().cut(source)
    assert SHOT(depth=1).start(source).cut(source) == SHOT(depth=1).cut(source)


def test_a_source_without_norms_is_refused_by_the_methods_that_need_them() -> None:
    for method in (TENT, AdaBN):
        check_method(method, Source("bare", dim=3, stages=("columns",), opener=columns(3).opener))


def test_entropy_weights_can_be_left_out() -> None:
    assert (CDAN().entropy, CDAN(entropy=False).entropy) == (True, False)
    assert len(DEEP) == 18
