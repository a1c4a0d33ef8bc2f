"""Loads exported files and runs them in a process that cannot import this project.

`fresh_process.py` beside it starts it as a script: `python -I reload.py FOLDER THREADS`. It reads
batches from `inputs.pt` in that folder and one format per line from standard input, each after its
file is written, and writes `outputs.pt`: format -> logits of each batch, or the error.
"""

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from importlib.abc import MetaPathFinder
from pathlib import Path

if __name__ == "__main__":
    gc.disable()  # a short process needs no collection, which slows imports by a fifth

import torch
from torch import Tensor

SEED = 0
HIDDEN = ("search_spaces", "supernets", "strategies", "archsmith", "run", "safetensors", "conf")


class Hider(MetaPathFinder):
    """Blocks imports of what an exported file must not need, even if it is installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"{name} is not there for an exported file")


def load_standalone(folder: Path) -> Callable[[Tensor], Tensor]:
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    net = model.load()
    return lambda images: net(torch.cat([model.prepare(image) for image in images]))


def load_onnx(folder: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    return lambda x: torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])


def load_pt2(folder: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(folder / "model.pt2").module()


def seeded(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The logits of a network, in which operations that draw start from `SEED`."""
    torch.manual_seed(SEED)
    return run(images)


LOADERS = {"standalone": load_standalone, "onnx": load_onnx, "pt2": load_pt2}


@torch.no_grad()
def main(folder: Path, threads: int, formats: Iterable[str]) -> None:
    """Writes `outputs.pt`; a format that fails does not stop the others."""
    torch.set_num_threads(threads)
    sys.meta_path.insert(0, Hider())
    inputs = torch.load(folder / "inputs.pt", weights_only=True)
    outputs: dict[str, list[Tensor] | str] = {}
    for name in formats:
        try:
            run = LOADERS[name](folder)
            outputs[name] = [seeded(run, x) for x in inputs]
        except Exception as error:  # any exception is the result for this format
            outputs[name] = f"{type(error).__name__}: {error}"
    torch.save(outputs, folder / "outputs.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), map(str.strip, sys.stdin))
    os._exit(0)  # everything is written; a normal exit takes a second to tear down torch
