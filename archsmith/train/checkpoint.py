"""Checkpoints that survive a kill at any time: temporary file, sync, rename, checksum."""

import hashlib
import io
import json
import logging
import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from archsmith.differences import other_configuration
from archsmith.errors import CheckpointError, is_out_of_memory
from archsmith.files import write_atomically
from archsmith.parallel.distributed import first, from_all, from_first, size
from search_spaces.settings import NotNegative, checked

log = logging.getLogger(__name__)

FORMAT = "archsmith.checkpoint/2"
KEPT = 2
SHARE = 0.01  # largest share of a run's time for checkpoints


@checked
def checkpoint_seconds(every_seconds: NotNegative) -> float:
    """Returns the setting `checkpoint.every_seconds` if valid, else raises ValueError."""
    return every_seconds


class Checkpoints:
    """The newest checkpoints of one phase in `<folder>/<phase>_<number>.pt`, with a manifest of
    checksums.

    Of several processes, rank 0 reads and writes for all. The state does not depend on their
    number, so any number can resume it.

    Args:
        identity: what a checkpoint must match (configuration, fingerprint of the data), as plain
            JSON values.
        every_seconds: interval between checkpoints within an epoch; 0 saves after every step.
            Unless it is 0, checkpoints take at most a share of `SHARE` of the time.
        force: accepts a checkpoint of another configuration, and logs what differs.
    """

    def __init__(
        self,
        folder: Path,
        phase: str,
        identity: Mapping[str, Any],
        *,
        every_seconds: float = 60.0,
        force: bool = False,
    ):
        self.folder, self.phase = folder, phase
        self.identity = json.loads(json.dumps(identity))
        self.every_seconds, self.force = every_seconds, force
        self.manifest = folder / f"{phase}_manifest.json"
        self._last, self._cost = time.monotonic(), 0.0  # last save: end time, seconds

    def of_epoch(self, epoch: int) -> "Checkpoints":
        """The checkpoints of the end of one epoch (from 0), which are kept until `clear_epochs`."""
        phase = f"{self.phase}_epoch_{epoch:03d}"
        return Checkpoints(self.folder, phase, self.identity, force=self.force)

    def due(self, *, epoch_over: bool = False) -> bool:
        """Whether a checkpoint is due; at the end of an epoch, as soon as its cost is
        negligible."""
        wait = self._cost / SHARE if epoch_over else max(self.every_seconds, self._cost / SHARE)
        over = time.monotonic() - self._last >= wait
        return from_first(self.every_seconds == 0 or over)

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint, then the manifest that names it, then removes the oldest.

        Raises:
            CheckpointError: it cannot be written, or reads back differently; earlier ones are kept.
            RuntimeError: the states of several processes differ.
        """
        if size() > 1 and len(set(from_all(_digest(state)))) > 1:
            raise RuntimeError("the processes are out of step: their states differ; not saved")
        if first():
            self._write(state)
        from_first(None)

    def _write(self, state: Mapping[str, Any]) -> None:
        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "identity": self.identity, "state": state}, buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        entries = self._entries()
        number = max((int(e["file"][-9:-3]) for e in entries), default=0) + 1
        path = self.folder / f"{self.phase}_{number:06d}.pt"
        entries.append({"file": path.name, "sha256": digest})
        try:
            write_atomically(path, content)
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise OSError(f"{path.name} reads back otherwise than it was written")
            write_atomically(self.manifest, json.dumps(entries[-KEPT:], indent=2).encode())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise CheckpointError(
                f"{self.folder}: the checkpoint cannot be saved ({error.strerror or error}); the "
                "one before it is kept; free space or mend the disk, then run the same command"
            ) from error
        for old in entries[:-KEPT]:
            (self.folder / old["file"]).unlink(missing_ok=True)
        self._last = time.monotonic()
        self._cost = self._last - began

    def load(self) -> dict[str, Any] | None:
        """The state of the newest intact checkpoint, on the CPU; None if there is none.

        Files that a kill left half-written are removed.

        Raises:
            CheckpointError: every checkpoint is damaged, or the newest intact one has another
                version, contains more than data, or belongs to another configuration.
        """
        saved = self._read() if first() else None
        if size() == 1:
            return saved
        packed = io.BytesIO()
        torch.save(saved, packed)
        packed = io.BytesIO(from_first(packed.getvalue()))
        return torch.load(packed, map_location="cpu", weights_only=True)

    def _read(self) -> Any:
        entries = self._entries()
        listed = {entry["file"] for entry in entries}
        for path in [*self.folder.glob(f".{self.phase}_*.tmp"), *self._files()]:
            if path.name not in listed:
                path.unlink(missing_ok=True)
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                log.warning("%s is damaged or missing; the checkpoint before it is used", path)
                continue
            saved = unpacked(path, content)
            other_configuration(path, saved["identity"], self.identity, force=self.force)
            return saved["state"]
        if entries:
            raise CheckpointError(
                f"{self.folder}: no intact checkpoint among {len(entries)}; set resume=never to "
                "start over"
            )
        return None

    def clear(self) -> None:
        """Deletes every checkpoint of this phase, and those of its epochs."""
        self.clear_epochs()
        self.manifest.unlink(missing_ok=True)  # first: a kill in between leaves no dangling entry
        for path in self._files():
            path.unlink(missing_ok=True)

    def clear_epochs(self) -> None:
        """Deletes the checkpoints of `of_epoch`."""
        clear_phases(self.folder, f"{self.phase}_epoch_*")

    def _files(self) -> list[Path]:
        return [p for p in self.folder.glob(f"{self.phase}_*.pt") if self._is_name(p.name)]

    def _is_name(self, name: object) -> bool:
        return isinstance(name, str) and bool(re.fullmatch(rf"{self.phase}_\d{{6}}\.pt", name))

    def _entries(self) -> list[dict[str, str]]:
        """The manifest's entries. A file whose name is not ours is never opened or removed."""
        if not self.manifest.is_file():
            return []
        try:
            entries = json.loads(self.manifest.read_text())
            if all(self._is_name(e["file"]) and isinstance(e["sha256"], str) for e in entries):
                return list(entries)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise CheckpointError(f"{self.manifest}: not readable; set resume=never to start over")


def clear_phases(folder: Path, pattern: str) -> None:
    """Deletes the checkpoints of all phases whose names match: `candidate_*`."""
    for file in folder.glob(f"{pattern}_manifest.json"):
        Checkpoints(folder, file.name.removesuffix("_manifest.json"), {}).clear()


def _digest(state: Any) -> str:
    """sha256 over all tensors."""
    digest = hashlib.sha256()
    for tensor in tree_leaves(state):
        if isinstance(tensor, Tensor):
            plain = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(plain.numpy().data)
    return digest.hexdigest()


def unpacked(path: Path, content: bytes) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain values, nothing executable.

    Raises:
        CheckpointError: it is not a checkpoint, has another version, or would unpack to more than
            its size.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > len(content):
                raise CheckpointError(f"{path}: packed data, which we never write; refused")
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a crafted file may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(
            f"{path}: refused, not a checkpoint of tensors and plain values ({reason}); set "
            "resume=never to start over"
        ) from error
    found = saved.get("format", "archsmith.checkpoint/1") if isinstance(saved, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: format {found!r}, expected '{FORMAT}'; finish the run with the version that "
            "wrote it, or set resume=never to start over"
        )
    if not isinstance(saved.get("identity"), dict) or not isinstance(saved.get("state"), dict):
        raise CheckpointError(f"{path}: no state of a run; set resume=never to start over")
    return saved


@contextmanager
def fitting(phase: str) -> Iterator[None]:
    """A context manager for loading a state; errors about its content become CheckpointError."""
    try:
        yield
    except (
        LookupError,
        ArithmeticError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{phase}: the checkpoint does not fit this run ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); set resume=never to start over"
        ) from error
