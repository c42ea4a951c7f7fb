"""Methods that tune a source, each by its own law, and by a witness: written-out arithmetic, timm, PyTorch's own layers."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.contract_method import tiny_source
from headstart.core import Backbone, Batch, InputError, Net, Preprocess, Source
from headstart.keeping import Checkpoint
from headstart.methods import (
    BSS,
    DELTA,
    L2SP,
    METHODS,
    AutoRGN,
    BitFit,
    CoTuning,
    Discriminative,
    FineTune,
    FineTuneAll,
    FineTuneFrom,
    Gradual,
    KeepFirst,
    KeepLast,
    Method,
    NormOnly,
    StochNorm,
    Surgical,
    tuners,
)
from headstart.methods.method import Criterion
from headstart.methods.model.co_tuning import relation
from headstart.methods.model.delta import Reference, attention
from headstart.methods.model.l2sp import half_square
from headstart.methods.model.layers import restart
from headstart.methods.model.stochnorm import Stochastic
from headstart.methods.needs import require
from headstart.modality.cutting import cut
from headstart.modality.families import TIMM
from headstart.train import fit, predict_logits


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def world(method: Method, source: Source, n: int = 40) -> tuple[Net, np.ndarray, np.ndarray]:
    """A net of the method, and activations and codes to train it on."""
    y = np.arange(n) % 2
    given = numbers(n, 3, 8, 8) + torch.from_numpy(y).view(-1, 1, 1, 1)
    with torch.no_grad():
        features = source.backbone(given).double().numpy()
        x = source.backbone.below(method.view(source).cuts[0])(given).numpy()
    torch.manual_seed(3)
    return method.build(source, features=features, y=y, classes=2, seed=0), x, y


def moved(method: Method, source: Source) -> set[str]:
    """Names of the tensors of weights that training changes."""
    net, x, y = world(method, source)
    before = {name: p.detach().clone() for name, p in net.named_parameters() if not name.startswith("scaffold")}
    after, _ = fit(method, net, x, y, seed=0)
    return {name for name, p in after.named_parameters() if not torch.equal(p, before[name])}


def test_rates_that_fall_by_stage_are_those_of_timm_but_for_the_last_norm_which_it_counts_to_the_last_block() -> None:
    from timm.models.vision_transformer import VisionTransformer
    from timm.optim import param_groups_layer_decay

    net = VisionTransformer(img_size=32, patch_size=16, embed_dim=12, depth=3, num_heads=2, num_classes=5)
    body = cut(net, next(f for f in TIMM if f.stages[0].startswith("embed = <timm embed>")), Preprocess(size=32, crop=1.0))
    rates = FineTune(decay=0.65).rates(len(body.stages), 0.0)
    ours = {id(p): rate for stage, rate in zip(body.stages.values(), rates, strict=False) for p in stage.parameters()}
    ours |= {id(p): rates[-1] for p in net.head.parameters()}
    theirs = {id(p): group["lr_scale"] for group in param_groups_layer_decay(net, layer_decay=0.65) for p in group["params"]}
    assert len(theirs) == len(list(net.parameters()))
    norm = {id(p) for p in net.norm.parameters()}
    assert {theirs[key] for key in norm} == {0.65}
    assert {key: pytest.approx(rate) for key, rate in theirs.items() if key not in norm} == {key: ours[key] for key in theirs if key not in norm}


def test_l2sp_is_half_the_squared_distance_from_the_start_and_the_heads_half_square() -> None:
    method = L2SP(alpha=0.3, beta=0.7, depth=2)
    net, x, y = world(method, tiny_source())
    drift = np.random.default_rng(1)
    start = [p.detach().double().numpy().copy() for p in net.body.parameters()]
    with torch.no_grad():
        for p in net.body.parameters():
            p.add_(torch.from_numpy(drift.normal(size=tuple(p.shape)).astype(np.float32)))
    now = [p.detach().double().numpy() for p in net.body.parameters()]
    terms = method.loss(net, Batch(torch.from_numpy(x), torch.from_numpy(y)), Criterion(torch.ones(2)))
    expected = 0.3 / 2 * sum(((a - b) ** 2).sum() for a, b in zip(now, start, strict=True))
    assert terms["distance from the source"].item() == pytest.approx(expected, rel=1e-5)
    head = sum((p.detach().double().numpy() ** 2).sum() for p in net.head.parameters())
    assert terms["size of the head"].item() == pytest.approx(0.7 / 2 * head, rel=1e-5)


def test_l2sp_holds_the_weights_nearer_to_the_source_the_stronger_it_is() -> None:
    def distance(alpha: float) -> float:
        source = tiny_source()
        net, x, y = world(method := L2SP(alpha=alpha, steps=30, dropout=0.0), source)
        start = copy.deepcopy(net.body)
        return half_square(fit(method, net, x, y, seed=0)[0].body, start).item()

    assert distance(10.0) < distance(0.1) < distance(0.0)


def test_bss_is_the_sum_of_the_smallest_eigenvalues_of_the_gram_matrix_and_pulls_along_its_vectors() -> None:
    features = numbers(12, 5).requires_grad_()
    (penalty,) = BSS(eta=0.5, k=2).penalties(Net(nn.Sequential(), nn.Identity()), Batch(features, features), [features]).values()
    rows = features.detach().double().numpy()
    assert penalty.item() == pytest.approx(0.5 * np.linalg.eigvalsh(rows.T @ rows)[:2].sum(), rel=1e-5)
    penalty.backward()
    u, s, vt = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(features.grad.numpy(), 0.5 * 2 * (u[:, -2:] * s[-2:]) @ vt[-2:], atol=1e-5)  # d sigma^2 = 2 sigma u v'


def test_delta_is_written_out_arithmetic() -> None:
    body = nn.Sequential(OrderedDict(a=nn.Linear(3, 4), b=nn.Linear(4, 5)))
    source = Source("s", dim=5, stages=("a", "b"), opener=lambda: Backbone(dict(body.named_children()), dim=5), tune_cuts=(0,))
    method = DELTA(alpha=0.6, beta=0.2, smoothing=0.0)
    x, y = numbers(7, 3), np.arange(7) % 2
    net = method.build(source, features=body(x).detach().double().numpy(), y=y, classes=2, seed=0)
    batch = Batch(x, torch.from_numpy(y))
    method.prepare(net.eval(), batch, Criterion(torch.ones(2)))
    with torch.no_grad():
        for p in net.body.parameters():
            p.add_(0.1 * numbers(*p.shape, seed=2))
    terms = method.loss(net, batch, Criterion(torch.ones(2)))

    arrays = lambda m: [(s.weight.detach().double().numpy(), s.bias.detach().double().numpy()) for s in m]  # noqa: E731
    (wa, ba), (wb, bb), (va, ca), (vb, cb) = *arrays(body), *arrays(net.body)
    w, b = net.head.linear.weight.detach().double().numpy(), net.head.linear.bias.detach().double().numpy()
    rows = x.double().numpy()
    a0, a1 = rows @ wa.T + ba, rows @ va.T + ca
    b0, b1 = a0 @ wb.T + bb, a1 @ vb.T + cb
    logits = b0 @ w.T + b
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gb = (p - np.eye(2)[y]) @ w / len(y)  # d mean cross entropy / d feature
    ga = gb @ wb
    soft = lambda z: np.exp(z) / np.exp(z).sum()  # noqa: E731
    expected = sum((soft(-(f * g).sum(0)) * (f1 - f) ** 2).sum(axis=1).mean() for f, g, f1 in ((a0, ga, a1), (b0, gb, b1)))
    assert terms["distance from the source"].item() == pytest.approx(0.6 / 2 * expected, rel=1e-4)
    assert terms["size of the head"].item() == pytest.approx(0.2 / 2 * ((w**2).sum() + (b**2).sum()), rel=1e-5)


def test_delta_finds_the_channel_that_the_loss_needs_and_foretells_what_taking_it_out_costs() -> None:
    y = torch.arange(40) % 2
    activation = torch.stack([1e-2 * (2.0 * y - 1), 1e-2 * numbers(40)], dim=1).requires_grad_()
    head = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    loss = lambda a: nn.functional.cross_entropy(a @ head.T, y)  # noqa: E731
    (gradient,) = torch.autograd.grad(loss(activation), activation)
    weights = attention(activation[:, None], gradient[:, None])
    assert weights[0] > weights[1]
    rises = [loss(activation * torch.tensor(kept)) - loss(activation) for kept in ([0.0, 1.0], [1.0, 0.0])]
    torch.testing.assert_close(weights, torch.softmax(torch.stack(rises), 0), atol=1e-4, rtol=0)


def test_deltas_channels_of_text_leave_out_the_mask_and_padding() -> None:
    pooling = lambda a: (a[..., :-1] * a[..., -1:]).sum(1) / a[..., -1:].sum(1)  # noqa: E731
    hidden, mask = numbers(2, 3, 4), torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    out = Reference(nn.Sequential(), pooling).channels(torch.cat([hidden, mask[..., None]], dim=2))
    assert torch.equal(out, hidden * mask[..., None])


@pytest.mark.parametrize("kind", [BitFit, NormOnly])
def test_sparse_methods_move_what_they_are_named_after_and_the_head(kind: type[BitFit | NormOnly]) -> None:
    source = tiny_source()
    found = moved(kind(depth=2), source)
    body = {f"body.{stage}.{i}.{what}" for stage in ("stem", "mid", "top") for i in (0, 1) for what in ("weight", "bias")}
    wanted = {name for name in body if (name.endswith("bias") if kind is BitFit else ".1." in name)}
    assert found == wanted | {"head.linear.weight", "head.linear.bias"}


def test_rates_fall_less_steeply_in_texts_and_what_the_user_asked_for_stays() -> None:
    kinds = [Source(kind, stages=("a", "b"), modality=kind) for kind in ("text", "image", "tabular")]
    assert [Discriminative().suited(source).decay for source in kinds] == [0.9, 0.65, 0.65]
    assert Discriminative().suited(kinds[0]).rates(2, 0.0) == pytest.approx([0.81, 0.9, 1.0])
    assert FineTune().suited(kinds[0]) == FineTune()


def test_gradual_unfreezing_thaws_from_the_head_down() -> None:
    source = tiny_source()
    method = Gradual(depth=2, steps=20, until=0.8, decay=1.0)
    net, x, y = world(method, source)
    start, steps = copy.deepcopy(net.state_dict()), []
    fit(method, net, x, y, seed=0, keep=(1, lambda checkpoint: steps.append(checkpoint.net)))
    thawed = {name: next(i for i, s in enumerate(steps) if not torch.equal(s[name], start[name])) for name in start if name.endswith("0.weight")}
    # four stages, of which the last one only pools: at 1/4, 2/4, 3/4 and 4/4 of 80 % of 20 steps
    assert thawed == {"body.top.0.weight": 8, "body.mid.0.weight": 12, "body.stem.0.weight": 16}


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_fine_tuning_from_any_cut_moves_the_stages_behind_it(last: int) -> None:
    names = {name.split(".")[1] for name in moved(FineTuneFrom(last=last, steps=3), tiny_source()) if name.startswith("body")}
    assert names == set(("stem", "mid", "top", "pool")[4 - last :]) - {"pool"}


@pytest.mark.parametrize(("block", "stages"), [("first", {"stem", "mid"}), ("middle", {"top"}), ("last", {"top"})])
def test_surgery_moves_one_block(block: str, stages: set[str]) -> None:
    names = {name.split(".")[1] for name in moved(Surgical(block=block, steps=3), tiny_source()) if name.startswith("body")}
    assert names == stages


def test_auto_rgn_gives_each_layer_its_relative_gradient() -> None:
    net = Net(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), nn.Linear(4, 2))
    net(numbers(5, 3)).square().sum().backward()
    norm = lambda part, of: np.sqrt(sum((of(p).double().numpy() ** 2).sum() for p in part.parameters()))  # noqa: E731
    ratios = [norm(part, lambda p: p.grad) / norm(part, lambda p: p.detach()) for part in (net.body[0], net.body[1], net.head)]
    expected = np.array(ratios) / max(ratios)
    found = AutoRGN().multiples(net)
    assert [found[f"{name}.{what}"] for name in ("body.0", "body.1", "head") for what in ("weight", "bias")] == pytest.approx(expected.repeat(2), rel=1e-6)


def test_stochastic_normalisation_is_pytorchs_batchnorm_at_either_end_and_channel_by_channel_between() -> None:
    plain = nn.BatchNorm2d(6)
    with torch.no_grad():
        plain.running_mean.copy_(numbers(6))
        plain.weight.copy_(numbers(6, seed=1))
    x = 2 * numbers(8, 6, 3, 3, seed=2) + 1
    served, trained = copy.deepcopy(plain).eval(), copy.deepcopy(plain).train()
    ends = {0.0: served(x), 1.0: trained(x)}
    for p, expected in ends.items():
        norm = Stochastic(copy.deepcopy(plain).train(), p)
        torch.testing.assert_close(norm(x), expected)
        torch.testing.assert_close(norm.running_var, trained.running_var)  # statistics move whatever is drawn
    torch.manual_seed(0)
    mixed = Stochastic(copy.deepcopy(plain).train(), 0.5)(x)
    near = [[torch.allclose(mixed[:, j], end[:, j], atol=1e-5) for end in ends.values()] for j in range(6)]
    assert all(sum(pair) == 1 for pair in near)
    assert 0 < sum(first for first, _ in near) < 6
    assert set(Stochastic(plain, 0.5).state_dict()) == set(nn.BatchNorm2d(6).state_dict())


def test_stochastic_normalisation_keeps_what_timm_puts_into_its_norms() -> None:
    from timm.layers import BatchNormAct2d

    plain = BatchNormAct2d(4).eval()
    x = numbers(5, 4, 2, 2)
    torch.testing.assert_close(Stochastic(copy.deepcopy(plain), 0.5)(x), plain(x))


def test_co_tuning_adds_the_cross_entropy_to_the_related_source_classes_whatever_their_order() -> None:
    source = tiny_source()
    method = CoTuning(share=2.0, dropout=0.0)
    net, x, y = world(method, source)
    terms = method.loss(net.eval(), Batch(torch.from_numpy(x), torch.from_numpy(y)), Criterion(torch.ones(2)))
    with torch.no_grad():
        features = net.body(torch.from_numpy(x))
        logits = source.backbone.classifier(features).double().numpy()  # type: ignore[misc]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    related = np.stack([p[y == c].mean(axis=0) for c in (0, 1)])
    assert terms["source's classes"].item() == pytest.approx(-2.0 * (related[y] * np.log(p)).sum(axis=1).mean(), rel=1e-5)

    order = np.array([3, 1, 4, 0, 2])
    np.testing.assert_allclose(relation(p[:, order], y, classes=2), related[:, order])


def test_layer_transfer_keeps_one_side_bit_for_bit_and_restarts_the_other() -> None:
    source = tiny_source()
    kept = {"first": KeepFirst(restart=2, kept=0.1), "last": KeepLast(restart=1)}
    same = {"first": {"stem", "mid"}, "last": {"mid", "top"}}
    for side, method in kept.items():
        net, _, _ = world(method, source)
        for stage in ("stem", "mid", "top"):
            equal = torch.equal(net.body.get_submodule(stage)[0].weight, source.backbone.stages[stage][0].weight)
            assert equal == (stage in same[side])
    assert not torch.count_nonzero(net.body.get_submodule("stem")[1].running_mean)  # what restarts forgets its statistics as well


def test_a_class_token_restarts_with_the_spread_it_had() -> None:
    token = nn.Module()
    token.register_parameter("cls", nn.Parameter(3.0 + 0.5 * numbers(1, 1, 4000)))
    before = token.get_parameter("cls").detach().clone()
    torch.manual_seed(0)
    restart(token)
    after = token.get_parameter("cls").detach()
    assert not torch.equal(before, after)
    assert (after.mean().item(), after.std().item()) == pytest.approx((3.0, 0.5), abs=0.05)


def test_plain_fine_tuning_starts_from_even_odds() -> None:
    net, x, _ = world(FineTuneAll(), tiny_source())
    assert not torch.count_nonzero(net.eval()(torch.from_numpy(x)))


def test_a_stopped_training_forgets_nothing_of_a_method_that_looks_at_gradients() -> None:
    source, kept = tiny_source(), list[Checkpoint]()
    method = AutoRGN(steps=6)
    net, x, y = world(method, source, n=96)
    whole, _ = fit(method, net, x, y, seed=0, keep=(2, kept.append))
    assert set(kept[0].progress.multiples) >= {"body.top.0.weight", "head.linear.bias"}
    again, _ = fit(method, world(method, source, n=96)[0], x, y, seed=0, resume=kept[0])
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


NEEDS = [
    (
        CoTuning(),
        Source("bare", opener=lambda: Backbone({}, dim=1)),
        2,
        "Method 'co-tuning' needs a source that comes with its own classifier; 'bare' is not one.",
    ),
    (CoTuning(), tiny_source(), 0, "Method 'co-tuning' needs a target of classes; the target is numbers."),
    (
        StochNorm(),
        Source("dense", opener=lambda: Backbone({"a": nn.Linear(1, 1)}, dim=1)),
        2,
        "Method 'stochastic-norm' needs a source with BatchNorm; 'dense' is not one.",
    ),
]


@pytest.mark.parametrize(("method", "source", "classes", "words"), NEEDS, ids=lambda v: v.name if isinstance(v, Source) else None)
def test_what_a_method_needs_is_said(method: Method, source: Source, classes: int, words: str) -> None:
    with pytest.raises(InputError) as told:
        require(method, source, classes=classes)
    assert str(told.value) == f"{words} Choose another method: headstart methods."


NAMES = [
    (["l2sp"], "There is no method 'l2sp'. Did you mean l2-sp"),
    (["scratch"], "Method 'scratch' is measured in every run. Name methods that tune a source's weights: headstart methods"),
    ([], "No method was named. List them with: headstart methods"),
]


@pytest.mark.parametrize(("names", "words"), NAMES)
def test_names_that_are_no_method_are_answered_with_the_nearest(names: list[str], words: str) -> None:
    with pytest.raises(InputError) as told:
        tuners(names)
    assert str(told.value).startswith(words)


def test_every_method_is_listed_under_its_own_name() -> None:
    assert all(kind.name == name for name, kinds in METHODS.items() for kind in kinds)


@pytest.mark.parametrize(
    "kind", [kinds[0] for kinds in METHODS.values() if kinds[0].arm == "fine-tuned" and "classes" not in kinds[0].needs], ids=lambda k: k.name
)
def test_numbers_are_learnt_as_well_as_classes(kind: type[Method]) -> None:
    source = tiny_source()
    given = numbers(96, 3, 8, 8)
    with torch.no_grad():
        features = source.backbone(given).double().numpy()
        # why: fastai's body learns at a hundredth of the rate, and its head from scratch in two short cycles
        rate = 3e-2 if kind.name == "one-cycle" else 1e-2
        method = kind(steps=150, rate=rate, smoothing=0.0, dropout=0.0)  # type: ignore[call-arg]
        x = source.backbone.below(method.view(source).cuts[0])(given).numpy()
    y = features @ np.linspace(-1, 1, 10) / features.std(axis=0)[0]  # a planted direction, which a head alone could learn
    y = (y - y.mean()) / y.std()
    net = method.build(source, features=features, y=y, classes=0, seed=0)
    fit(method, net, x, y, seed=0)
    error = np.square(predict_logits(net, x)[:, 0] - y).mean()
    assert error < 0.5  # 1 is the error of the mean
