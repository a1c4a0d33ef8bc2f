import math

import pytest
import torch
from recording import recorded
from torch import Tensor, nn

from archsmith.errors import NumbersError
from archsmith.train.evaluate import evaluate, restore_statistics
from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES
from supernets.forms import use_form
from supernets.mixed_op import MixedOp
from supernets.mixture import GroupMixture, Mixture
from supernets.network import final_network, supernet


class Echo(nn.Module):
    """The logits are the images."""

    def forward(self, x: Tensor, mixture: Mixture | None) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return x


class Normed(nn.Module):
    """A reached and an unreached batch norm, and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(2, 2, 1, bias=False)
        self.reached, self.unreached = nn.BatchNorm2d(2, momentum=0.3), nn.BatchNorm2d(2)
        self.dropout = nn.Dropout(0.9)

    def forward(self, x: Tensor, mixture: Mixture | None) -> Tensor:
        return self.reached(self.dropout(self.scale(x))).mean((2, 3))


def batches(count: int, size: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, 2, 3, 3), torch.zeros(size).long()) for _ in range(count)]


def test_measures_are_means_over_images_not_over_batches():
    logits = torch.tensor([[0.0, math.log(3)]]).repeat(4, 1)  # probabilities 1/4 and 3/4
    y = torch.tensor([1, 1, 0, 1])
    found = evaluate(Echo(), [(logits[:3], y[:3]), (logits[3:], y[3:])])
    assert found["images"] == 4
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.5  # all 3 of class 1, none of the 1 of class 0
    assert found["loss"] == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4, rel=1e-6)


def test_every_place_of_a_window_counts_as_one():
    """Two windows of three characters, of two classes: probabilities 1/4 and 3/4 everywhere."""
    logits = torch.tensor([0.0, math.log(3)])[None, :, None].expand(2, 2, 3)
    y = torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = evaluate(Echo(), [(logits[:1], y[:1]), (logits[1:], y[1:])])
    assert found["images"] == 6
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["largest_class"] == pytest.approx(5 / 6)
    assert found["loss"] == pytest.approx((5 * math.log(4 / 3) + math.log(4)) / 6, rel=1e-6)


def test_a6_the_commonest_answer_and_how_often_it_is_right():
    answers, y = torch.tensor([1, 1, 1, 0, 1]), torch.tensor([0, 0, 1, 0, 2])
    found = evaluate(
        Echo(), [(torch.eye(3)[answers[:2]], y[:2]), (torch.eye(3)[answers[2:]], y[2:])]
    )
    assert (found["commonest_answer"], found["commonest_share"]) == (1, 0.8)
    assert (found["commonest_true"], found["largest_class"]) == (0.2, 0.6)


def test_top5_counts_labels_among_the_five_largest_of_six_classes():
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]]).repeat(4, 1)
    found = evaluate(Echo(), [(logits, torch.tensor([0, 4, 5, 5]))])
    assert (found["accuracy"], found["top5_accuracy"]) == (0.25, 0.5)


def test_five_classes_have_no_top5():
    assert "top5_accuracy" not in evaluate(Echo(), [(torch.eye(5), torch.arange(5))])


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(NumbersError, match="mean loss over 1 images is nan"):
        evaluate(Echo(), [(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))])


def test_every_module_returns_to_its_own_mode():
    net = Normed().train()
    net.unreached.eval()  # a frozen part of a net in training
    evaluate(net, batches(1, 4))
    restore_statistics(net, batches(1, 4))
    assert [net.training, net.reached.training, net.unreached.training] == [True, True, False]


def test_restored_statistics_are_plain_averages_of_the_batches():
    net, loader = Normed(), batches(3, 5)
    net.reached.running_mean.fill_(7.0)
    net.unreached.running_var.fill_(9.0)
    before = {name: t.clone() for name, t in net.state_dict().items()}

    restore_statistics(net, loader)

    with torch.no_grad():
        seen = [net.scale(x).transpose(0, 1).flatten(1) for x, _ in loader]  # (2, 5 * 3 * 3) each
    mean = sum(z.mean(1) for z in seen) / 3
    var = sum(((z - z.mean(1, keepdim=True)) ** 2).sum(1) / (5 * 9 - 1) for z in seen) / 3
    torch.testing.assert_close(net.reached.running_mean, mean)
    torch.testing.assert_close(net.reached.running_var, var)
    assert (net.reached.momentum, net.unreached.momentum) == (0.3, 0.1)
    changed = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {
        f"reached.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_captured_passes_measure_the_same(caplog):
    """Three batches of one size, of which one is computed, one captured and one replayed; another
    size is computed; a capture that fails is said once."""
    net, loader = Normed(), batches(3, 5) + batches(1, 4)
    restore_statistics(net, loader)
    eager, ran, captured = evaluate(net, loader), [], []
    net.scale.register_forward_hook(lambda *_: ran.append(1))

    def capture(compute):
        captured.append(1)
        return recorded(compute)

    assert evaluate(net, loader, capture=capture) == eager
    assert (len(ran), len(captured)) == (3, 1)

    def fails(compute):
        try:
            raise RuntimeError("not\npermitted")
        finally:  # as a capture that ends after an error
            raise RuntimeError("operation failed due to a previous error during capture")

    assert evaluate(net, loader, capture=fails) == eager
    (said,) = (r.message for r in caplog.records)
    assert "cannot be captured (not permitted, test_evaluate.py, line " in said


@pytest.mark.parametrize("form", ["fused", "reference"])
def test_restoring_statistics_reads_nothing_of_the_device(form: str, toy_darts):
    """Nothing can be read of tensors that have no values."""
    meta = torch.device("meta")
    net = supernet(toy_darts, MixedOp).to(meta)
    use_form(net, form, meta)
    for cell in net.layers:
        vars(cell)["states"] = (cell.form or cell).states  # a form runs on meta tensors, too
    groups = {
        name: GroupMixture(
            torch.empty(len(c.rows), c.width, device=meta), None, [range(c.width)] * len(c.rows)
        )
        for name, c in toy_darts.choices.items()
    }
    loader = [(torch.empty(4, *toy_darts.input_shape, device=meta), torch.empty(4, device=meta))]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    counts = [norm.num_batches_tracked for norm in norms]
    restore_statistics(net, loader * 2, Mixture(groups))
    after = [norm.num_batches_tracked for norm in norms]
    assert all(one is other for one, other in zip(counts, after, strict=True))


def test_candidates_that_do_not_run_keep_their_statistics(toy_darts):
    net = supernet(toy_darts, MixedOp)
    kept = {group: {"0-2": ("sep_conv_3x3",)} for group in toy_darts.groups}
    mixture = Mixture.of(Architecture.of(toy_darts, kept), toy_darts, torch.device("cpu"))
    norms = {n: t.clone() for n, t in net.named_buffers() if n.endswith("running_var")}
    x = torch.randn(4, 3, 16, 16)

    restore_statistics(net, [(x, torch.zeros(4).long())], mixture)

    names = list(CANDIDATES)
    op = names.index("sep_conv_3x3")
    for name, old in norms.items():
        runs = "edges" not in name or f"edges.0-2.ops.{op}." in name
        assert torch.equal(dict(net.named_buffers())[name], old) != runs, name


def test_an_auxiliary_head_keeps_its_statistics(toy_darts):
    kept = {group: {"0-2": ("skip_connect",)} for group in toy_darts.groups}
    net = final_network(toy_darts, Architecture.of(toy_darts, kept), auxiliary=True)
    net.auxiliary.reduce[1].running_mean.fill_(3.0)
    restore_statistics(net, [(torch.randn(4, 3, 16, 16), torch.zeros(4).long())])
    assert (net.auxiliary.reduce[1].running_mean == 3.0).all()
