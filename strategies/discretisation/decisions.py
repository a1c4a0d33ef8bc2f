"""The structure of an architecture that a discretisation rule decides on.

Rules are opaque functions: calling one with test gates shows whether it keeps a number of rows per
target, or one option in every row.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from search_spaces.choice import Choice
from strategies.contracts import DiscretisationRule
from strategies.shares import every_option, real_options


@dataclass(frozen=True)
class Structure:
    """How many rows each target of a choice keeps; `drops`: rows may choose a zero instead."""

    keep: Mapping[int, int]
    drops: bool

    @classmethod
    def of_space(cls, choice: Choice) -> "Structure":
        """The structure given by the choice's definition."""
        into = {target: len(choice.into(target)) for target in choice.targets}
        most = choice.keep or max(into.values())
        return cls({t: min(most, count) for t, count in into.items()}, choice.keep is None)

    @classmethod
    def of_rule(cls, rule: DiscretisationRule, choice: Choice) -> "Structure | None":
        """The structure of a rule; None if it keeps several options per row, regardless of gates.

        The rule is called twice: without zeros, and with zeros as the largest gates.
        """
        real = real_options(choice)
        gates = torch.where(real, 0.999, 1.0)
        kept = rule(choice, gates, None, real)
        if any(len(names) > 1 for names in kept.values()):
            return None
        left = dict.fromkeys(choice.targets, 0)
        for row in choice.rows:
            left[row.target] += row.name in kept
        return cls(left, len(rule(choice, gates, None, every_option(choice))) < len(kept))
