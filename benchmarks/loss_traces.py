"""Twenty steps of every strategy: `python benchmarks/loss_traces.py OUT.json [OLD.json]`.

What a refactor must not change by a bit: losses, alphas, betas and weights after each step (two
epochs of ten, `epoch_end` after each) in the reference form and float64, and the architecture that
is read at the end, on two spaces. With a second file, made at another commit on the same machine,
the differences are listed, and the exit code is 1 where there are any.
"""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from supernets.network import supernet  # noqa: E402

SPACES = {
    "darts": ["space.layers=3", "space.nodes=2", "space.channels=4"],
    "nasbench201": ["space.layers=5", "space.nodes=3", "space.channels=4"],
}


def digest(tensors: Any) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def trace(strategy_name: str, space_name: str) -> dict[str, Any]:
    overrides = [f"strategy={strategy_name}", f"space={space_name}", *SPACES[space_name]]
    config = compose("config", overrides=[*overrides, "strategy.warmup=0"])
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    space = instantiate(config.space, _convert_="all")(input_shape=[3, 8, 8], classes=3)
    strategy = instantiate(config.strategy, _convert_="all")(space=space)
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    strategy.for_batches(8)
    batches = [(torch.randn(8, 3, 8, 8), torch.randint(3, (8,))) for _ in range(40)]
    roles = SimpleNamespace(train=batches[:10], val=batches[20:30])
    losses, states = [], []
    for step in range(20):
        if step % 10 == 0:
            strategy.epoch_start(step // 10, 2)
        metrics = strategy.step(
            net, batches[step], batches[20 + step], progress=step / 20, move_alphas=True
        )
        losses.append([float(metrics["train_loss"]).hex(), sorted(metrics)])
        states.append(digest([*strategy.arch_parameters(), *net.state_dict().values()]))
        if step % 10 == 9:
            strategy.epoch_end(net, roles, (step + 1) / 20)
    choices = strategy.architecture().choices
    return {"losses": losses, "states": states, "architecture": json.loads(json.dumps(choices))}


def main() -> None:
    names = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))
    torch.set_num_threads(1)
    found = {}
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        for space in SPACES:
            for name in names:
                if name != "random":
                    found[f"{name} {space}"] = trace(name, space)
    Path(sys.argv[1]).write_text(json.dumps(found))
    if len(sys.argv) > 2:
        old = json.loads(Path(sys.argv[2]).read_text())
        different = sorted(name for name in found | old if found.get(name) != old.get(name))
        print(f"{len(found)} traces, {len(different)} differ: {', '.join(different) or 'none'}")
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
