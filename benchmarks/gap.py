"""The gap between supernet and discrete network, at the same temperatures for every strategy.

`python benchmarks/gap.py FOLDER` reads finished searches below FOLDER whose gates are a softmax
(those of `experiment=study`), loads the supernet of each from its last checkpoint, and measures its
accuracy on the held-out images with gates softmax(alphas / T) for

- T = 1, the temperature of DARTS;
- T as it was at the end of the search (1, unless the strategy anneals it);
- the T at which the mean entropy of the gates is a tenth of the largest.

The discrete network has the same weights; batch-norm statistics are re-estimated for each. Prints,
per strategy, the mean accuracies and the gap of each, in points, with its standard deviation, and
what annealing changes: the difference of the gaps from those of `darts` at the same T, paired by
seed (both split the images alike), with an exact sign-flip p-value.
"""

import itertools
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archsmith.cli import naming  # noqa: E402
from archsmith.cli.objects import build, build_space  # noqa: E402
from archsmith.differences import renamed  # noqa: E402
from archsmith.result.runs import named_groups, read_runs  # noqa: E402
from archsmith.search.measure import discretised_accuracy  # noqa: E402
from archsmith.train.checkpoint import unpacked  # noqa: E402
from archsmith.train.evaluate import evaluate, restore_statistics  # noqa: E402
from search_spaces.architecture import Architecture  # noqa: E402
from strategies.relaxation.entropy import COLDEST, temperature_at  # noqa: E402
from strategies.relaxation.masked import masked_softmax  # noqa: E402
from strategies.relaxation.softmax import Softmax  # noqa: E402
from strategies.strategy import Strategy  # noqa: E402
from supernets.mixture import Mixture  # noqa: E402
from supernets.network import supernet  # noqa: E402

DECIDED = 0.1  # entropy of the gates, relative to the largest
TEMPERATURES = ("T = 1", "T at the end", "decided gates")


def at(strategy: Strategy, temperature: float) -> Mixture:
    """The mixture of the search, its gates at another temperature."""
    mixture = strategy.mixture(noise=False)
    return Mixture(
        {
            name: group._replace(
                gates=masked_softmax(strategy.alphas[name] / temperature, strategy.alive[name])
            )
            for name, group in mixture.groups.items()
        }
    )


@torch.no_grad()
def measured(folder: Path) -> dict[str, float] | None:
    """Accuracies of a finished search in %, by what was measured; None without a softmax."""
    saved = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=True)
    config = OmegaConf.create(renamed(saved))
    strategy = build(config.strategy, "strategy")
    torch.manual_seed(config.seed)
    data = build(config.data, "data")
    space = build_space(config, data, None, [], {})
    if not isinstance(strategy, Strategy):
        strategy = strategy(space=space)
    if not isinstance(strategy.relaxation, Softmax):
        return None
    file = max((folder / "checkpoints").glob("search_*.pt"))
    state = unpacked(file, file.read_bytes())["state"]
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    net.load_state_dict(state["net"])
    strategy.load_state_dict(state["strategy"])
    roles = data.loaders(config.search.batch_size, one_level=False, seed=config.seed)
    tables = [(strategy.alphas[name], strategy.alive[name]) for name in strategy.alphas]
    decided = float(temperature_at(tables, DECIDED))
    ended = float(strategy.relaxation.temperature)
    used = (1.0, ended, decided if math.isfinite(decided) else COLDEST)
    found = {}
    for name, temperature in zip(TEMPERATURES, used, strict=True):
        mixture = at(strategy, temperature)
        restore_statistics(net, roles.statistics, mixture)
        found[name] = 100 * evaluate(net, roles.select, mixture)["accuracy"]
    architecture = Architecture.load(folder / "architecture.json")
    return found | {"discrete": 100 * discretised_accuracy(net, architecture, roles)}


def sign_flips(differences: Sequence[float]) -> float:
    """The two-sided p-value of a mean of zero: the share of all assignments of signs whose mean is
    as far from it."""
    seen = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= seen - 1e-9 for value in sums) / len(sums)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/gap.py FOLDER")
    naming.register()
    torch.set_num_threads(1)
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for name, runs in named_groups(read_runs(Path(sys.argv[1]))[0]).items():
        for run in runs:
            one = measured(run.folder)
            if one is not None:
                found[name][run.seed] = one
    print("| strategy | n | discrete | supernet " + " | supernet ".join(TEMPERATURES) + " |")
    print("|---" * (3 + len(TEMPERATURES)) + "|")
    for name, seeds in found.items():
        cells = []
        for key in TEMPERATURES:
            gaps = [one[key] - one["discrete"] for one in seeds.values()]
            spread = f" ± {statistics.stdev(gaps):.1f}" if len(gaps) > 1 else ""
            mean = statistics.fmean(one[key] for one in seeds.values())
            cells.append(f"{mean:.1f}, gap {statistics.fmean(gaps):+.1f}{spread}")
        discrete = statistics.fmean(one["discrete"] for one in seeds.values())
        print(f"| `{name}` | {len(seeds)} | {discrete:.1f} | " + " | ".join(cells) + " |")
    plain = found.get("darts", {})
    for name, seeds in found.items():
        common = sorted(set(seeds) & set(plain))
        if name == "darts" or len(common) < 2:
            continue
        for key in TEMPERATURES:
            shifts = [
                (seeds[s][key] - seeds[s]["discrete"]) - (plain[s][key] - plain[s]["discrete"])
                for s in common
            ]
            print(
                f"{name} minus darts, gap at {key}: {statistics.fmean(shifts):+.1f} points, "
                f"n = {len(common)}, p = {sign_flips(shifts):.3f}"
            )


if __name__ == "__main__":
    main()
