"""The parts of `gpu_checks.sh` that are no tests and no benchmarks of their own.

`about` prints device and versions. `runs` takes whole runs of `run.py`: strategies of all kinds,
and one that is killed and goes on, compared with two that are not, bit for bit. `profile` prints
the ten largest kernels of an eager step and of a replayed one. `protocol` searches by PC-DARTS at
the paper's sizes (random images of CIFAR-10's size), two epochs without alpha steps and two with,
and says how long the 50 epochs of the paper would take.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from workloads import LAUNCHES, ROOT, WORKLOADS, going_on, prepared

from archsmith.train.runtime import describe_device, synchronize, versions

TINY = [
    "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=3", "space.nodes=1", "space.channels=4",
    "space.candidates=[none,skip_connect,sep_conv_3x3]",
    "search.epochs=2", "search.batch_size=12", "retrain.epochs=2", "retrain.batch_size=16",
    "retrain.layers=3", "retrain.channels=4", "loggers=[]", "export.formats=[]",
]  # fmt: skip
SMALL = [
    "data=synthetic", "data.size=2000", "data.image_size=32", "data.classes=10",
    "space.layers=5", "space.channels=16", "search.epochs=3", "search.batch_size=64",
    "retrain.epochs=2", "retrain.batch_size=96", "loggers=[]",
]  # fmt: skip
PAPERS = [
    "experiment=paper", "search.batch_size=256", "data=synthetic", "data.size=50000",
    "data.image_size=32", "data.classes=10", "loggers=[]",
]  # fmt: skip
WHOLE = {
    "pcdarts": ["strategy=pcdarts", "runtime.channels_last=true"],
    "goldnas": ["strategy=goldnas", "task=search"],
    "gdas": ["strategy=gdas", "task=search"],
    "darts_second_order": ["strategy=darts_second_order", "task=search"],
    "drnas": ["strategy=drnas", "task=search"],
}
REPEATED = ["strategy=darts", "task=search", "runtime.deterministic=true"]
EPOCHS, WARMUP = 50, 15  # PC-DARTS, arXiv:1907.05737, section 4.2
LONGEST = 135  # seconds for all runs, below the limit of their part
SEARCHES = {"float32": 65, "bfloat16": 50}  # seconds for the search of `protocol`, likewise
# torch before 2.15 captures graphs only if asked to.
GRAPHS = {"cuda": ["runtime.graphs=true"], "cpu": []}


class Runs:
    """Runs of `run.py` in processes of their own."""

    def __init__(self, args: argparse.Namespace):
        self.given = [*(TINY if args.sizes == "tiny" else SMALL), f"device={args.device}"]
        self.given += GRAPHS[args.device]
        self.device, self.out = args.device, args.out / "runs"

    def start(self, name: str, overrides: list[str]) -> subprocess.Popen[bytes]:
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        kept = [o for o in overrides if self.device != "cpu" or "channels_last" not in o]
        command = [sys.executable, "run.py", *self.given, *kept, f"hydra.run.dir={folder}"]
        with open(self.out / f"{name}.log", "ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def killed(self, name: str) -> subprocess.Popen[bytes]:
        """Started, killed after its first epoch, and started again."""
        overrides = [*REPEATED, "checkpoint.every_seconds=0"]
        first, lines = self.start(name, overrides), self.out / name / "metrics.jsonl"
        began = time.monotonic()
        while first.poll() is None and time.monotonic() - began < LONGEST:
            if lines.is_file() and lines.read_bytes().count(b"\n"):
                first.kill()
                break
            time.sleep(0.05)
        print(f"{name}: killed after {time.monotonic() - began:.0f} s ({first.wait()})", flush=True)
        return self.start(name, overrides)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The epochs of a search, without times."""
        lines = epochs_of(self.out / name)
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """What a run has recorded so far."""
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code; a process that takes longer is killed."""
    try:
        return process.wait(timeout=max(0.1, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def runs(args: argparse.Namespace) -> bool:
    """All at the same time; whether each ended well and the repeated ones are equal."""
    every, began = Runs(args), time.monotonic()
    started = {name: every.start(name, overrides) for name, overrides in WHOLE.items()}
    started |= {name: every.start(name, REPEATED) for name in ("once", "again")}
    started["killed"] = every.killed("killed")
    codes = {n: ended(one, began + LONGEST - time.monotonic()) for n, one in started.items()}
    print(f"exit codes {codes}, {time.monotonic() - began:.0f} s")
    for name in started:
        text = (every.out / f"{name}.log").read_text(errors="replace")
        said = [line for line in text.splitlines() if "CUDA graphs" in line or "Error" in line]
        results = every.out / name / "results.json"
        seconds = json.loads(results.read_text())["seconds"] if results.is_file() else None
        print(f"{name}: seconds {seconds}", *said, sep="\n  ")
    once = every.metrics("once")
    equal = {name: every.metrics(name) == once != [] for name in ("again", "killed")}
    print(f"equal to the run that was not stopped: {equal}")
    return not any(codes.values()) and all(equal.values())


def profile(args: argparse.Namespace) -> bool:
    device, tiny = torch.device(args.device), args.sizes == "tiny"
    torch.backends.cudnn.benchmark = device.type == "cuda"
    about, overrides = WORKLOADS["tiny" if tiny else "W2"]
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] * (device.type == "cuda")
    by = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"

    def profiled(form: str) -> bool:
        step = prepared(overrides, form, 2 if tiny else 64, device)
        for _ in range(4):
            step()
        with torch.profiler.profile(activities=activities) as found:
            step()
            synchronize(device)
        averages = found.key_averages()
        launches = sum(one.count for one in averages if one.key.startswith(LAUNCHES))
        print(f"\n{about}, a step, {form}: {launches:,} launches", flush=True)
        print(averages.table(sort_by=by, row_limit=10, max_name_column_width=90), flush=True)
        return True

    forms = "fused", *(() if tiny else ("fused+graphs",)), "fused+graphs+bfloat16"
    return None not in [going_on(form, partial(profiled, form)) for form in forms]


def protocol(args: argparse.Namespace) -> bool:
    """PC-DARTS on CIFAR-10: 50 epochs of batches of 256, 15 of them without alpha steps."""
    tiny, precision = args.sizes == "tiny", args.rest[0] if args.rest else "float32"
    overrides = [
        *(TINY if tiny else PAPERS),
        "strategy=pcdarts", "task=search", "search.epochs=4", "strategy.warmup=0.5",
        f"search.precision={precision}", f"device={args.device}", "resume=never",
        *GRAPHS[args.device],
    ]  # fmt: skip
    folder = args.out / f"protocol_{precision}"
    command = [sys.executable, "run.py", *overrides, f"hydra.run.dir={folder}"]
    code = ended(subprocess.Popen(command, cwd=ROOT), SEARCHES[precision])
    seconds = [line["seconds"] for line in epochs_of(folder)]
    print(
        f"{precision}: exit code {code}; seconds of the epochs {seconds}, with alpha steps after 2"
    )
    if len(seconds) == 4:
        whole = WARMUP * seconds[1] + (EPOCHS - WARMUP) * seconds[3]
        print(f"a search of {EPOCHS} epochs: {whole / 60:.1f} minutes")
    if code == 0:
        results = json.loads((folder / "results.json").read_text())
        print(f"peak of reserved memory: {results['peak_memory_bytes']['search'] / 2**30:.2f} GiB")
    return code == 0


def about(args: argparse.Namespace) -> bool:
    device = torch.device(args.device)
    print(f"{describe_device(device)}, CUDA {torch.version.cuda}")
    print(f"cuDNN {torch.backends.cudnn.version()}, {versions()}")
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        print(f"{found.total_memory / 2**30:.0f} GiB, {found.multi_processor_count} SMs")
    return True


PARTS = {"about": about, "runs": runs, "profile": profile, "protocol": protocol}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("rest", nargs="*", help="of protocol: the precision")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="full", choices=["full", "tiny"])
    parser.add_argument("--out", type=lambda name: Path(name).resolve(), required=True)
    args = parser.parse_args()
    sys.exit(0 if PARTS[args.part](args) else 1)


if __name__ == "__main__":
    main()
