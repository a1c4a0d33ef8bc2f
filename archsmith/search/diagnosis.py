"""Early indicators of a search's health: how decided the gates are, which candidates are kept.

Source: Zela et al. 2020, arXiv:1909.09656 (skip connections as a symptom of collapse).
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from search_spaces.architecture import Architecture
from search_spaces.choice import FREE, Option
from search_spaces.space import Space
from strategies.shares import real_options

LONGER = "search longer, or lower strategy.alpha_optimizer.lr"

DECIDED = 0.98  # share of the largest entropy: gates then deviate by about a third
STILL = 0.9999  # and here by 2 %


def diagnose(
    space: Space, gates: Mapping[str, Tensor], alive: Mapping[str, Tensor], found: Architecture
) -> dict[str, float]:
    """Means over undecided rows: `gate_entropy` (1 uniform, 0 one-hot) and `gate_margin`.

    gates, alive (R, O) per choice. A row is undecided if several options are alive. Entropy is
    divided by the log of their number; the margin is the largest minus the second largest share.
    `skips` and `pools` count kept options of that kind, `nones` the rows in which a zero has the
    largest gate.
    """
    entropies, margins, nones = [], [], 0
    for name, choice in space.choices.items():
        for values, on, row in zip(gates[name], alive[name].cpu(), choice.rows, strict=True):
            shares = values[on] / values[on].sum().clamp_min(1e-12)
            options = [option for option, living in zip(row.options, on, strict=False) if living]
            if len(options) > 1:
                entropy = float(torch.special.entr(shares).sum()) / math.log(len(options))
                first, second = shares.topk(2).values.tolist()
                entropies.append(entropy)
                margins.append(first - second)
            nones += bool(options) and options[int(shares.argmax())].kind == "zero"
    return {
        "gate_entropy": sum(entropies) / max(1, len(entropies)),
        "gate_margin": sum(margins) / max(1, len(margins)),
        **kinds_of(space, found),
        "nones": nones,
    }


def kinds_of(space: Space, found: Architecture) -> dict[str, float]:
    """How many kept options are skip connections, and how many are poolings."""
    kinds = [option.kind for option in kept_options(space, found, space.choices)]
    return {"skips": kinds.count("identity"), "pools": kinds.count("pool")}


def kept_options(space: Space, found: Architecture, names: Collection[str]) -> list[Option]:
    """The options that the choices of these names keep, choice by choice."""
    return [
        space.choices[name].rows[r].options[o]
        for name, rows in found.kept(space).items()
        if name in names
        for r, kept in enumerate(rows)
        for o in kept
    ]


def degenerate(space: Space, found: Architecture) -> str | None:
    """A warning with a remedy for an architecture that cannot learn much, or None."""
    said = [_cut_off(space, found), _reconnected(found), _parameter_free(space, found)]
    return "; ".join(line for line in said if line) or None


def _cut_off(space: Space, found: Architecture) -> str | None:
    for name, choice in space.choices.items():
        kept = found.choices[name]
        passing = [
            row.name
            for row in choice.rows
            if any(o.kind != "noise" and o.name in kept.get(row.name, ()) for o in row.options)
        ]
        if not choice.connects(passing):
            return f"'{name}' is cut off: its output does not depend on its input; {LONGER}"
    return None


def _reconnected(found: Architecture) -> str | None:
    choices = found.meta.get("reconnected")
    if not choices:
        return None
    names = ", ".join(f"'{choice}'" for choice in choices)
    return (
        f"'none' won so many rows that {names} would be cut off, output from input: the best cell "
        f"that is not was taken in its place, by the sum of log gates; {LONGER}"
    )


def _parameter_free(space: Space, found: Architecture) -> str | None:
    kinds = {option.kind for option in kept_options(space, found, space.body)}
    if kinds and kinds <= FREE.keys():
        what = " and ".join(name for kind, name in FREE.items() if kind in kinds)
        return (
            f"collapse: every kept candidate is parameter-free ({what}), but for what a reduction "
            "cell may hold. Long searches by gradient often end so, and pruning whose price is too "
            "high (strategy.losses.gate_cost.mu); try strategy/losses=[beta_decay], "
            "strategy/mixed_op=partial or strategy/relaxation=sparse_noisy"
        )
    return None


def undecided(
    space: Space, alive: Mapping[str, Tensor], found: Architecture, entropy: float
) -> str | None:
    """A warning if the gates exceed that share of the largest entropy, else None.

    alive (R, O) per choice. If everything alive is kept, pruning has decided and not the gates.
    """
    kept = sum(len(names) for rows in found.choices.values() for names in rows.values())
    left = sum(
        int((alive[name].cpu() & real_options(choice)).sum())
        for name, choice in space.choices.items()
    )
    if entropy <= DECIDED or kept == left:
        return None
    if entropy > STILL:
        return (
            f"the gates have not moved ({entropy:.5f} of the largest entropy): the gradient of the "
            "alphas is about zero, as where one sampled option runs alone before a batch norm, "
            "which removes its gate; take another strategy, or a space without batch norms there"
        )
    return (
        f"the gates are undecided ({entropy:.3f} of the largest entropy), so the cells are close "
        "to a draw; search longer (search.epochs), or with larger steps of the alphas "
        "(strategy.alpha_lr_scale), and compare with strategy=random"
    )
