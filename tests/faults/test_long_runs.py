"""F10, F20, F52, F62, F65: full disks, fresh processes, clocks, and many steps."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from faults.toys import ToySearch
from helpers import ROOT

from search_spaces.space import Space

TINY = [
    "task=search", "data=synthetic", "data.size=48", "data.image_size=8", "data.classes=3",
    "space.layers=3", "space.nodes=1", "space.channels=4", "search.epochs=2",
    "search.batch_size=12", "runtime.threads=1", "hydra.run.dir=d",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "owner",
    [
        "archsmith.train.checkpoint",
        pytest.param("archsmith.train.record", marks=pytest.mark.slow),
        pytest.param("archsmith.train.run_folder", marks=pytest.mark.slow),
    ],
)
def test_f10_a_full_disk_is_exit_code_6_and_never_success(owner: str, archsmith, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(f"{owner}.write_atomically", full)
        said = archsmith(*TINY)
    assert said.code == 6
    assert "No space left on device" in said.err
    assert "run the same command" in said.err
    assert "accuracy" not in said.out.rsplit("epoch", 1)[-1] or "Next:" not in said.out
    assert archsmith(*TINY).code == 0


@pytest.mark.slow
def test_f20_another_hash_seed_is_the_same_search(tmp_path: Path):
    found, overrides = {}, [*TINY[:-1], "strategy=pcdarts"]
    for name, seeds in {"whole": ["1"], "parts": ["2", "3"]}.items():
        for i, seed in enumerate(seeds):
            stop = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)" if i == 0 else "pass"
            code = (
                "import sys, run\n"
                "from strategies.strategy import Strategy\n"
                "real, taken = Strategy.step, []\n"
                "def step(self, *a, **m):\n"
                "    taken.append(1)\n"
                f"    if {name == 'parts'} and len(taken) == 3: {stop}\n"
                "    return real(self, *a, **m)\n"
                "Strategy.step = step\n"
                "run.main()"
            )
            done = subprocess.run(
                [sys.executable, "-c", code, *overrides, f"hydra.run.dir={name}"],
                cwd=tmp_path,
                env={
                    **os.environ,
                    "PYTHONHASHSEED": seed,
                    "PYTHONPATH": str(ROOT),
                    "OMP_NUM_THREADS": "1",
                },
                capture_output=True,
                text=True,
            )
            assert done.returncode == (75 if name == "parts" and i == 0 else 0), done.stderr
        newest = max((tmp_path / name / "checkpoints").glob("*.pt"))
        found[name] = torch.load(newest, weights_only=True)["state"]["strategy"]
    whole, parts = found["whole"], found["parts"]
    for key, values in whole["alpha_optimizer"]["state"].items():
        for moment, value in values.items():
            assert torch.equal(parts["alpha_optimizer"]["state"][key][moment], value)
    assert all(torch.equal(parts["arch"][name], alpha) for name, alpha in whole["arch"].items())


@pytest.mark.slow
def test_f52_no_time_enters_a_name_or_a_result(archsmith, monkeypatch):
    names = [one for one in TINY if not one.startswith("hydra.run.dir")]
    assert archsmith(*names, "strategy=random").code == 0
    (folder,) = Path("outputs").iterdir()
    before = (folder / "architecture.json").read_bytes()
    monkeypatch.setattr("time.time", lambda: 0.0)  # the clock jumps back
    assert archsmith(*names, "strategy=random", "resume=never").code == 0
    assert list(Path("outputs").iterdir()) == [folder]
    assert (folder / "architecture.json").read_bytes() == before


def resident() -> int:
    """Bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("steps", "epochs", "data"),
    [
        (1_000, 2, ["data.size=9072", "data.split=0.98"]),
        pytest.param(
            *(5_000, 2, ["data.size=45360", "data.split=0.98"]), marks=pytest.mark.exhaustive
        ),
        (2, 300, ["data.size=32"]),
    ],
    ids=["2000 steps", "10000 steps", "300 epochs"],
)
def test_f65_memory_and_open_files_stay_flat(
    steps: int, epochs: int, data: list[str], toy_darts: Space, tmp_path: Path
):
    """From the middle of a run to its end, with a checkpoint a second.

    What is laid out once, at the first ends of epochs and checkpoints, is there by then.
    """
    asked, seen = 0, []
    total = steps * epochs

    def look() -> bool:
        nonlocal asked
        asked += 1
        if asked in (total // 2 + steps // 10, total):
            seen.append((resident(), len(os.listdir("/proc/self/fd"))))
        return False

    ToySearch(toy_darts, "darts", *data).run(tmp_path, epochs=epochs, every_seconds=1, stop=look)
    (memory, files), (later, more) = seen
    print(f"{total} steps: {memory / 1e6:.1f} MB, then {later / 1e6:.1f} MB; {more} open files")
    assert later < 1.02 * memory
    assert more <= files  # what earlier tests left open may be closed on the way
