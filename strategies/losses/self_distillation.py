"""Self-distillation: past supernets vote on the target of the current one. SD-DARTS.

Source: Zhu et al. 2023, arXiv:2302.05629, abstract: the loss difference of two consecutive
iterations decreases, and with it the sharpness, when supernets of previous steps teach the current
one, several of them by a vote on output probabilities. We found no other public text or code, so
all formulas and settings are our choice; numbers are those of the closest public method, SAF (Du et
al. 2022, arXiv:2205.14083, and its code).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from search_spaces.settings import Count, NotNegative, Positive
from strategies.contracts import LossTerm
from strategies.losses.distillation import VOTES, distillation, softened
from strategies.losses.teachers import Teachers

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Logits, Strategy
    from supernets.mixture import Mixture


class SelfDistillation(LossTerm):
    """weight(t) T^2 KL(q || p), where q is the vote of K past supernets with their weights and
    gates.

    Teachers see the student's batch, with its batch-norm statistics, and get no gradient. The term
    is zero until there are K of them. Memory: K * lag + 1 copies of the weights. Cost: K forward
    passes per step, which takes (6 + K) / 6 of a first-order DARTS step.

    Args:
        weight: weight at the end of the ramp; 0 is plain DARTS, bit for bit.
        temperature: T, of student and teachers.
        ramp: shares of the epochs at which the weight starts to rise from 0 and is full.
        teachers: K.
        lag, unit: teachers are `lag`, 2 `lag`, ..., K `lag` steps or epochs old; with `epoch` they
            are the supernets as those epochs started.
        vote: `soft` is the mean of probabilities, `hard` the teachers' majority class.
        on_alphas: whether the val loss of the alphas includes the term, too.

    Raises:
        ValueError: a setting is out of range, or the search is too short for teachers of this age.
    """

    averages = True

    def __init__(
        self,
        weight: NotNegative,
        temperature: Positive,
        ramp: Sequence[float],
        *,
        teachers: Count,
        lag: Count,
        unit: Literal["step", "epoch"],
        vote: Literal["soft", "hard"],
        on_alphas: bool,
    ):
        if len(ramp) != 2 or not 0 <= ramp[0] <= ramp[1] <= 1 or ramp[0] == 1:
            raise ValueError(
                "ramp: expected [start, full] with 0 <= start <= full <= 1 and start < 1, "
                f"found {ramp!r}"
            )
        self.weight, self.temperature, self.ramp = weight, temperature, tuple(ramp)
        self.vote, self.roles = VOTES[vote], ("train", "val") if on_alphas else ("train",)
        self.teachers = Teachers(teachers, lag, unit)
        self.strength = torch.tensor(0.0)  # weight(t)
        self.teaching = False
        self._answers: list[tuple[Tensor, Tensor]] = []  # this step's batches with their q

    def setup(self, net: nn.Module, strategy: "Strategy") -> None:
        self.net, self.device = net, next(net.parameters()).device
        self.strength = self.strength.to(self.device)
        self.teachers.in_place = self.device.type == "cuda"  # where passes may be captured

    def constants(self) -> Hashable | None:
        return (self.teaching, self.teachers.structure) if self.teachers.in_place else None

    def __call__(self, net: "Logits", batch: "Batch", logits: Tensor, mixture: "Mixture") -> Tensor:
        """The term, 0-dim, for the student's logits (B, classes)."""
        if self.weight > 0:
            self.teachers.see(mixture)
        if not self.teaching:
            return logits.new_zeros(())
        return self.strength * distillation(logits, self.answer(batch[0]), self.temperature)

    def answer(self, x: Tensor) -> Tensor:
        """q (B, classes), computed once per step: a virtual step and the real one share it."""
        for known, q in self._answers:
            if known is x:
                return q
        q = self.vote(softened(self.teachers.logits(self.net, x), self.temperature))
        self._answers.append((x, q))
        return q

    def before_step(self, progress: float) -> None:
        self._answers.clear()
        start, full = self.ramp
        share = (progress - start) / (full - start) if full > start else float(progress >= start)
        self.strength.fill_(self.weight * min(max(share, 0.0), 1.0))
        self.teaching = self.weight > 0 and share > 0 and self.teachers.complete
        if self.weight > 0:
            self.teachers.before_step(self.net)

    def after_step(self, net: nn.Module, strategy: "Strategy") -> None:
        self.teachers.after_step()

    def epoch_end(
        self, net: nn.Module, strategy: "Strategy", loaders: Any, progress: float
    ) -> None:
        if self.weight > 0:
            self.teachers.epoch_end(progress)

    def state_dict(self) -> dict[str, Any]:
        return self.teachers.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teachers.load_state_dict(state, self.device)
