"""Selects operations, then edges, by what their removal costs the supernet. DARTS-PT.

Source: Wang et al. 2021, arXiv:2108.04392; rules and numbers of the paper and of its public code.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from search_spaces.choice import Choice
from search_spaces.settings import OpenShare, Positive
from strategies.contracts import Pruning, Stage
from strategies.losses.snapshot import lent
from strategies.pruning.release import release
from strategies.pruning.without_none import without_zeros
from strategies.shares import check_rows_are_free
from supernets.mixture import Active, Mixture, everything_active

if TYPE_CHECKING:
    from strategies.gradients import Batch
    from strategies.strategy import Strategy
    from supernets.network import Network

log = logging.getLogger(__name__)
Score = tuple[float, float]


@torch.no_grad()
def measured(net: "Network", mixture: Mixture, batches: Iterable["Batch"]) -> Score:
    """The supernet's accuracy and, to break ties, minus its loss, with the batches' own statistics:
    running averages do not fit a network that lacks a part."""
    right = loss = torch.zeros(())
    images = 0
    with lent(net):
        for x, y in batches:
            logits = net(x, mixture).float()
            right = right + (logits.argmax(1) == y).sum()
            loss = loss + F.cross_entropy(logits, y, reduction="sum")
            images += len(y)
    return float(right) / images, -float(loss) / images


def without(mixture: Mixture, name: str, row: int, options: Sequence[int]) -> Mixture:
    """A mixture in which options of a row do not run; the other gates stay as they are."""
    part = mixture.groups[name]
    gates = part.gates.clone()
    gates[row, list(options)] = 0.0
    left = [o for o in part.active[row] if o not in options]
    active = [left if r == row else on for r, on in enumerate(part.active)]
    return Mixture({**mixture.groups, name: part._replace(gates=gates, active=active)})


def open_rows(active: Active) -> list[int]:
    """The rows with more than one option."""
    return [r for r, on in enumerate(active) if len(on) > 1]


def open_targets(choice: Choice, active: Active) -> list[int]:
    """The targets with more rows than a discrete network keeps."""
    if choice.keep is None:
        return []
    return [t for t in choice.targets if sum(bool(active[r]) for r in choice.into(t)) > choice.keep]


def undecided(choice: Choice, active: Active) -> int:
    """The number of decisions to be made."""
    return len(open_rows(active)) + len(open_targets(choice, active))


def may_stay(choice: Choice, active: Active, row: int) -> list[int]:
    """The options that a row may keep: a zero only if the output depends on the inputs anyway."""
    zeros = [[option.kind == "zero" for option in each.options] for each in choice.rows]
    others = [
        each.name
        for r, each in enumerate(choice.rows)
        if r != row and not all(zeros[r][o] for o in active[r])
    ]
    cut = not choice.connects(others)
    return [o for o in active[row] if not (cut and zeros[row][o])]


class Perturbation(Pruning):
    """Decides one row of each choice after another, and trains between the decisions.

    A row, drawn at random, keeps the option without which the supernet's accuracy on held-out
    images is lowest. After the rows, target by target, the row whose removal costs least goes,
    until as many are left as the space keeps. The first decision is made at the end of the share
    `start` of the epochs, the last one after the last epoch, the others evenly in between; a short
    search makes several at once. A zero is no candidate where a target keeps a number of rows, and
    is not chosen if it cuts the output off. Deviations: of equal accuracies that with the larger
    loss is the lower one, and targets follow in order.

    What is decided is what is alive, and rows are drawn by the global generator, so there is no
    other state.

    Args:
        start: share of the search that trains the supernet.
        rate: factor on the weights' first learning rate from then on; the schedule starts again.

    Raises:
        ValueError: `start` outside (0, 1), or `rate` not positive; a relaxation that runs only one
            option of a row, a topology that draws rows, or a space whose rows are linked.
    """

    fixed_length = True

    def __init__(self, *, start: OpenShare, rate: Positive):
        self.start, self.rate = start, rate

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        check_rows_are_free(strategy, "decides", "strategy/pruning=without_none")
        relaxation, choices = strategy.relaxation.eval(), strategy.space.choices
        if strategy.topology is not None and strategy.topology.samples:
            raise ValueError(
                "start: selects by removing one option after another, and the topology runs only "
                "some of the rows; set topology to none"
            )
        for name, alphas in strategy.alphas.items():
            if relaxation(alphas, strategy.alive[name])[1] is not None:
                raise ValueError(
                    "start: selects by removing one option after another, and the relaxation runs "
                    "only one of each row; set relaxation to softmax"
                )
        self.decisions = max(undecided(choice, candidates(choice)) for choice in choices.values())

    def stage(self, epoch: int, epochs: float) -> Stage:
        first = self._first(epochs)
        if epoch < first:
            return Stage(epoch, min(first, epochs))
        return Stage(epoch - first, epochs - first, rate=self.rate, warmup=False)

    def _first(self, epochs: float) -> int:
        """The number of epochs that train the supernet."""
        return max(1, round(self.start * epochs))

    def epoch_start(self, epoch: int, epochs: float) -> None:
        self.past = epoch + 1 - self._first(epochs)  # epochs since then, at the end of this one
        self.fine_tuning = epochs - self._first(epochs)

    def epoch_end(
        self, net: "Network", strategy: "Strategy", loaders: Any, progress: float
    ) -> None:
        last = self.decisions - 1
        if progress >= 1:
            left = 0
        elif self.past >= 0:
            left = last - int(last * self.past // self.fine_tuning)
        else:
            return
        without_zeros(strategy)
        for name, choice in strategy.space.choices.items():
            while undecided(choice, everything_active(strategy.alive[name])) > left:
                self._decide(net, strategy, name, loaders)
        release(net, strategy)

    def _decide(self, net: "Network", strategy: "Strategy", name: str, loaders: Any) -> None:
        """Leaves one option of a row, or if all rows are decided, removes a row of a target."""
        choice, mixture = strategy.space.choices[name], strategy.mixture(noise=False)
        alive = strategy.alive[name].clone()
        active = everything_active(alive)

        def score(row: int, options: Sequence[int]) -> Score:
            return measured(net, without(mixture, name, row, options), loaders.held_out())

        rows = open_rows(active)
        if rows:
            r = rows[int(torch.randint(len(rows), ()))]
            kept = min(may_stay(choice, active, r), key=lambda o: score(r, [o]))
            alive[r] = False
            alive[r, kept] = True
            said = choice.rows[r].options[kept].name
        else:
            into = [r for r in choice.into(open_targets(choice, active)[0]) if active[r]]
            r = max(into, key=lambda r: score(r, active[r]))
            alive[r] = False
            said = "nothing"
        strategy.prune(strategy.alive | {name: alive})
        log.info("search: %s of '%s' keeps %s", choice.rows[r].name, name, said)


def candidates(choice: Choice) -> Active:
    """The options of each row that may be chosen."""
    offered = choice.offers(zero=choice.keep is None)
    return [[o for o, on in enumerate(row) if on] for row in offered]
