"""A process without this project, which loads exported files as soon as they are written."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from archsmith import interrupt
from archsmith.errors import Failure
from archsmith.result.export import reload


class FreshProcess:
    """A context manager that runs `reload.py`. The process starts before the files are written, as
    importing torch takes long, and ends with the block.
    """

    def __init__(self, folder: Path, inputs: Sequence[Tensor]):
        self.folder = folder
        torch.save(list(inputs), folder / "inputs.pt")
        threads = str(torch.get_num_threads())
        self._process = subprocess.Popen(
            [sys.executable, "-I", reload.__file__, str(folder.resolve()), threads],
            cwd=folder,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "FreshProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def load(self, form: str) -> None:
        """Makes it load and run a format whose file is written."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended; `outputs` reports it
            self._process.stdin.write(f"{form}\n")
            self._process.stdin.flush()

    def outputs(self) -> dict[str, list[Tensor] | str]:
        """The logits of each format that was loaded, or the error.

        Raises:
            Failure: the process ended too early.
            Interrupted: the run was asked to stop.
        """
        _, said = self._process.communicate()
        interrupt.check("export")  # a signal to the process group has ended that process, too
        if self._process.returncode:
            last = said.strip().splitlines()[-1:] or ["it said nothing"]
            raise Failure(
                f"export: the process that loads the files back ended with "
                f"{self._process.returncode}, expected 0 ({last[0]}); free memory, or set fewer "
                "export.formats"
            )
        return torch.load(self.folder / "outputs.pt", weights_only=True)
