"""The controls of self-distillation: label smoothing and an averaged teacher, by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.losses.ema_teacher import EMATeacher
from strategies.losses.label_smoothing import LabelSmoothing
from supernets.mixture import Mixture

NOTHING = Mixture({})


class Linear(nn.Module):
    def __init__(self, w: Tensor):
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        return x @ self.w


def test_selfdistill_11_label_smoothing_is_that_of_torch_up_to_its_scale():
    torch.manual_seed(0)
    logits, y, weight = torch.randn(6, 4), torch.randint(4, (6,)), 0.25
    ours = F.cross_entropy(logits, y) + LabelSmoothing(weight=weight)(
        lambda x, m: x, (logits, y), logits, NOTHING
    )
    theirs = F.cross_entropy(logits, y, label_smoothing=weight / (1 + weight))
    assert ours.item() == pytest.approx((1 + weight) * theirs.item(), rel=1e-6)


def test_selfdistill_11_the_average_follows_the_weights_by_hand():
    net = Linear(torch.tensor([[1.0, 0.0]]))
    term = EMATeacher(weight=1.0, temperature=1.0, decay=0.75, start=0.0)
    term.setup(net, None)
    with torch.no_grad():
        net.w.copy_(torch.tensor([[5.0, 0.0]]))
    term.after_step(net, None)
    assert term.average["w"].tolist() == [[2.0, 0.0]]
    x = torch.tensor([[1.0]])
    term.before_step(0.0)
    found = term(net, (x, x), net(x, NOTHING), NOTHING)
    q, p = torch.tensor([2.0, 0.0]).softmax(0), torch.tensor([5.0, 0.0]).softmax(0)
    assert found.item() == pytest.approx(float((q * (q / p).log()).sum()), rel=1e-5)


def test_selfdistill_11_an_equal_teacher_teaches_nothing_and_before_its_start_it_is_silent():
    net = Linear(torch.randn(3, 2))
    term = EMATeacher(weight=1.0, temperature=5.0, decay=0.9, start=0.5)
    term.setup(net, None)
    x = torch.randn(4, 3)
    term.before_step(0.6)
    assert term(net, (x, x), net(x, NOTHING), NOTHING).item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        net.w.add_(1.0, alpha=2.0)
        net.w[0].zero_()
    term.before_step(0.4)
    assert term(net, (x, x), net(x, NOTHING), NOTHING).item() == 0.0


def test_the_average_comes_back_from_a_checkpoint():
    net = Linear(torch.randn(3, 2))
    term, again = (EMATeacher(weight=1.0, temperature=5.0, decay=0.9, start=0.0) for _ in range(2))
    term.setup(net, None)
    with torch.no_grad():
        net.w.add_(1.0)
    term.after_step(net, None)
    again.setup(net, None)
    again.load_state_dict(term.state_dict())
    assert torch.equal(again.average["w"], term.average["w"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"decay": 1.0}, "decay"),
        ({"temperature": 0.0}, "temperature"),
        ({"weight": -1.0}, "weight"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, float], named: str):
    settings = {"weight": 1.0, "temperature": 1.0, "decay": 0.9, "start": 0.0} | wrong
    with pytest.raises(ValueError, match=rf"^{named}"):
        EMATeacher(**settings)
