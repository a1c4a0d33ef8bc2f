"""A supernet under bfloat16 autocast: near float32, and what must stay float32 does."""

import pytest
import torch
from hydra.utils import instantiate
from test_every_config import composed, still

from search_spaces.darts import CANDIDATES
from search_spaces.space import Space
from supernets import convolution, forms
from supernets.final import ChosenOps
from supernets.forms import use_form
from supernets.fused import gated
from supernets.network import supernet

CPU = torch.device("cpu")


def gradients(space: Space, name: str, form: str, dtype: torch.dtype | None):
    """Loss, alpha gradients and statistics of one pass from the same start."""
    torch.manual_seed(0)
    strategy = instantiate(composed(*still(name)).strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op).train()
    use_form(net, form, CPU)
    net.autocast = dtype
    strategy.setup(net, CPU)
    batch = torch.randn(8, 3, 16, 16), torch.randint(10, (8,))
    loss, logits = strategy.loss(net, batch)
    loss.backward()
    grads = torch.cat([p.grad.flatten() for p in strategy.arch_parameters()])
    weights = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    means = torch.cat([b for n, b in net.named_buffers() if n.endswith("running_mean")])
    return loss.detach(), logits, grads, weights, means


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", [pytest.param("reference", marks=pytest.mark.slow), "fused", "packed", "auto"]
)
@pytest.mark.parametrize("name", [pytest.param("darts", marks=pytest.mark.slow), "pcdarts"])
def test_a_pass_in_bfloat16_is_near_that_in_float32(
    name: str, form: str, toy_darts: Space, monkeypatch
):
    """bfloat16 keeps 8 bits; gradients are compared by direction. "packed" is "fused" on a GPU."""
    loss, _, grads, weights, means = gradients(toy_darts, name, "reference", None)
    if form == "packed":
        for module in (forms, convolution):
            monkeypatch.setattr(module, "launches", lambda device: True)
        form = "fused"
    rough = gradients(toy_darts, name, form, torch.bfloat16)
    assert all(found.dtype == torch.float32 for found in rough)
    assert float(rough[0]) == pytest.approx(float(loss), rel=0.03)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(rough[2], grads, 0) > 0.9
    assert cosine(rough[3], weights, 0) > 0.9
    torch.testing.assert_close(rough[4], means, rtol=0.05, atol=0.02)


def test_gates_that_are_one_number_in_bfloat16_count_apart():
    gates = torch.tensor([0.3340, 0.3345])
    assert gates.bfloat16()[0] == gates.bfloat16()[1]
    y = torch.randn(4, 1, 8, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = gated(y.expand(-1, 2, -1, -1, -1), gates)
    assert found.dtype == torch.bfloat16
    ratio = found[:, 1].double().abs().sum() / found[:, 0].double().abs().sum()
    assert 1 < ratio < 1.003


def test_c9_drop_path_keeps_the_precision_of_what_it_drops():
    """The mask is drawn in float32, and a product with it would be float32."""
    chosen = ChosenOps([CANDIDATES["sep_conv_3x3"]], 4, 4, 1).train()
    chosen.drop = 0.5
    with torch.autocast("cpu", torch.bfloat16):
        assert chosen(torch.randn(2, 4, 8, 8)).dtype == torch.bfloat16
