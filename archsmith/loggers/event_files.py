"""TensorBoard's event files, read and rewritten: a record is its length (8 bytes), a checksum (4),
an event, and its checksum (4)."""

import struct
import time
from collections.abc import Callable
from pathlib import Path

PATTERN = "events.out.tfevents.*"
HEAD, TAIL = 12, 4  # bytes around an event


def drop(folder: Path, unwanted: Callable[[str, int], bool]) -> None:
    """Rewrites the folder's event files as one, without the values whose (tag, step) is unwanted.

    Of several values of a tag and step, the last is kept. Each event holds one value, as torch
    writes them. An interrupted call loses nothing.
    """
    from tensorboard.compat.proto.event_pb2 import Event

    files = sorted(folder.glob(PATTERN))
    head, kept, dropped = b"", dict[tuple[str, int], bytes](), False
    for record in (record for file in files for record in _records(file.read_bytes())):
        event = Event.FromString(record[HEAD:-TAIL])
        head = head or record * bool(event.file_version)
        for value in event.summary.value:
            place = value.tag, event.step
            repeated = kept.pop(place, None) is not None
            if unwanted(*place):
                dropped = True
            else:
                kept[place] = record
                dropped = dropped or repeated
    if dropped:
        _replace(files, head + b"".join(kept.values()))


def _records(content: bytes) -> list[bytes]:
    """The whole records. At the end, a kill may have left a part of one, and a power failure zeros
    from some byte on."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    found, at = [], 0
    while at + HEAD + TAIL <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        end = at + HEAD + length + TAIL
        if length == 0 or end > len(content):
            break
        found.append(content[at:end])
        at = end
    if found and struct.pack("<I", masked_crc32c(found[-1][HEAD:-TAIL])) != found[-1][-TAIL:]:
        found.pop()
    return found


def _replace(files: list[Path], content: bytes) -> None:
    """Puts a file of another name in place of these: a TensorBoard that is open then reads it."""
    folder = files[0].parent
    beside = folder / ".rewritten"
    beside.write_bytes(content)
    beside.rename(folder / f"events.out.tfevents.{time.time():.9f}.rewritten")
    for file in files:
        file.unlink()
