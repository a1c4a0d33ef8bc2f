"""Removes `none` from the search if an architecture cannot keep it. DrNAS's DARTS space.

Source: public code of Chen et al. 2021, arXiv:2006.10355, whose candidates on the DARTS space are
the seven operations.
"""

from typing import TYPE_CHECKING

from strategies.contracts import Pruning
from strategies.shares import real_options

if TYPE_CHECKING:
    from strategies.strategy import Strategy
    from supernets.network import Network


def without_zeros(strategy: "Strategy") -> None:
    """Switches zeros off in the choices whose targets keep a fixed number of rows."""
    strategy.prune(
        {
            name: strategy.alive[name]
            if choice.keep is None
            else real_options(choice).to(strategy.alive[name].device)
            for name, choice in strategy.space.choices.items()
        }
    )


class WithoutNone(Pruning):
    """Switches zeros (`none`) off at the start, in cells whose nodes keep a fixed number of edges.

    There `none` means an edge that discretisation drops anyway. If every edge is kept
    (NAS-Bench-201), `none` is a choice and stays.
    """

    def setup(self, net: "Network", strategy: "Strategy") -> None:
        without_zeros(strategy)
