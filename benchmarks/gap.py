"""The gap between supernet and discrete network, at the same temperatures for every strategy.

`python benchmarks/gap.py FOLDER` reads finished searches below FOLDER whose gates are a softmax
(those of `experiment=study`), loads the supernet of each from its last checkpoint, and measures its
accuracy on the held-out images with gates softmax(alphas / T) for

- T = 1, the temperature of DARTS;
- T as it was at the end of the search (1, unless the strategy anneals it);
- the T at which the mean entropy of the gates is a tenth of the largest.

The discrete network has the same weights; batch-norm statistics are re-estimated for each. On a
stratified batch of the same images it also measures the curvature of the loss, with the gates of
the search: the largest eigenvalue of the Hessian in alpha, and the sharpness in the weights.

Prints, per strategy, the mean accuracies and the gap of each, in points, with its standard
deviation, and the mean curvatures; then by how much gaps and curvatures differ from those of
`darts`, paired by seed (both split the images alike), with an exact sign-flip p-value.
"""

import itertools
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
from strategies.curvature import alpha_eigenvalue, weight_sharpness  # noqa: E402
from strategies.relaxation.entropy import COLDEST, temperature_at  # noqa: E402
from strategies.relaxation.masked import masked_softmax  # noqa: E402
from strategies.relaxation.softmax import Softmax  # noqa: E402
from strategies.strategy import Strategy  # noqa: E402
from supernets.mixture import Mixture  # noqa: E402
from supernets.network import supernet  # noqa: E402

DECIDED = 0.1  # entropy of the gates, relative to the largest
TEMPERATURES = ("T = 1", "T at the end", "decided gates")
CURVATURES = {"alpha eigenvalue": alpha_eigenvalue, "weight sharpness": weight_sharpness}


def at(strategy: Strategy, temperature: float) -> Mixture:
    """The mixture of the search, its gates at another temperature."""
    mixture = strategy.mixture(noise=False)
    return Mixture(
        {
            name: group._replace(
                gates=masked_softmax(strategy.shifted(name) / temperature, strategy.alive[name])
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
    tables = [(strategy.shifted(name), alive) for name, alive in strategy.alive.items()]
    decided = float(temperature_at(tables, DECIDED))
    ended = float(strategy.relaxation.temperature)
    used = (1.0, ended, decided if math.isfinite(decided) else COLDEST)
    found = {}
    for name, temperature in zip(TEMPERATURES, used, strict=True):
        mixture = at(strategy, temperature)
        restore_statistics(net, roles.statistics, mixture)
        found[name] = 100 * evaluate(net, roles.select, mixture)["accuracy"]
    batch = next(iter(roles.sample))
    with torch.enable_grad():
        found |= {name: of(net, strategy, batch) for name, of in CURVATURES.items()}
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
    show(found)
    plain = found.get("darts", {})
    for name, seeds in found.items():
        common = sorted(set(seeds) & set(plain))
        if name == "darts" or len(common) < 2:
            continue
        for key in (*TEMPERATURES, *CURVATURES):
            shifts = [value(seeds[seed], key) - value(plain[seed], key) for seed in common]
            print(
                f"{name} minus darts, {'gap at ' * (key in TEMPERATURES)}{key}: "
                f"{statistics.fmean(shifts):+.3g}, n = {len(common)}, p = {sign_flips(shifts):.3f}"
            )


def value(one: Mapping[str, float], key: str) -> float:
    """A curvature, or the gap at a temperature in points."""
    return one[key] - one["discrete"] if key in TEMPERATURES else one[key]


def show(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    """Prints a Markdown table: means, and gaps and curvatures with their deviation."""
    heads = [*(f"supernet {name}" for name in TEMPERATURES), *CURVATURES]
    print("| strategy | n | discrete | " + " | ".join(heads) + " |")
    print("|---" * (3 + len(heads)) + "|")
    for name, seeds in found.items():
        runs = list(seeds.values())
        cells = [f"{statistics.fmean(one['discrete'] for one in runs):.1f}"]
        for key in (*TEMPERATURES, *CURVATURES):
            values = [value(one, key) for one in runs]
            spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
            mean = statistics.fmean(one[key] for one in runs)
            gap = f"{mean:.1f}, gap {statistics.fmean(values):+.1f}"
            cells.append((gap if key in TEMPERATURES else f"{mean:.3g}") + spread)
        print(f"| `{name}` | {len(runs)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
