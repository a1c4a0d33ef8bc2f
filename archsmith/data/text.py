"""Text as a data set: windows of characters, each with the character that follows it as its label.

A window of T characters is stored as an image (1, 1, T) whose pixels are ids, with labels (T,), so
that losses and accuracies are means over characters. Windows share no character, and the roles are
blocks of the text, in its order: train, val, select, test.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from archsmith.data.image_file import first_line
from archsmith.data.loader import Images, Loader, Normalise
from archsmith.data.names import canonical
from archsmith.data.preprocessing import CHARACTERS, Preprocessing
from archsmith.data.roles import Data
from archsmith.data.split import Settings, image_set
from archsmith.errors import DataError
from search_spaces.settings import OpenShare, Range, checked

log = logging.getLogger(__name__)

UNKNOWN = "<unknown>"  # the first class: all characters that are none of the others
MOST = 256  # classes: an id is a byte
IDS = Normalise(torch.zeros(1), torch.full((1,), 1 / 255))  # bytes become floats of that value
WARN = 0.01  # share of unknown characters that is logged


class TextData(Data):
    """Windows of a text; the settings of images that do not fit are refused.

    Raises DataError for fewer than 2 different characters.
    """

    reads_text = True

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.classes, self.input_shape, (0.0,), (1 / 255,), CHARACTERS)

    def check_augment(self, augment: Mapping[str, Any]) -> None:
        """Raises ValueError for any augmentation."""
        for name, value in augment.items():
            if value:
                raise ValueError(
                    f"data.augment.{name}: text is not augmented, found {value}; set it to "
                    f"{str(type(value)()).lower()}"
                )

    def split(self, *, one_level: bool) -> dict[str, Tensor]:
        """Role -> positions of its windows: blocks of the text, in this order: `train`, `val`
        unless one-level, `select`. Raises DataError if a role has fewer than 2."""
        every = len(self.images)
        rest = every - round(self.settings.select * every)
        train = rest if one_level else round(self.settings.split * rest)
        ends = {"train": (0, train), "val": (train, rest), "select": (rest, every)}
        if one_level:
            del ends["val"]
        for role, (first, end) in ends.items():
            if end - first < 2:
                raise DataError(
                    f"{self.name}: {end - first} of {every} windows for role '{role}', expected 2 "
                    "or more; give a longer text, or set data.context lower"
                )
        return {role: torch.arange(first, end) for role, (first, end) in ends.items()}

    def _sample(self, select: Tensor, count: int) -> Tensor:
        """Windows at equal distances."""
        return select[torch.arange(count) * len(select) // count]

    def _check_classes(self) -> None:
        if len(self.classes) < 3:
            raise DataError(
                f"{self.name}: {len(self.classes) - 1} different characters, expected at least 2; "
                "give another text"
            )

    def _training(
        self, role: str, index: Tensor, batch_size: int, seed: int, augment: Mapping[str, Any]
    ) -> Loader:
        self.check_augment(augment)
        return super()._training(role, index, batch_size, seed, augment)


@checked
@image_set
def text(
    root: str | None,
    context: Annotated[int, Range(ge=2)],
    test_share: OpenShare,
    settings: Settings,
) -> Data:
    """A file of UTF-8 text; without one, the help topics of Python itself.

    Classes are the characters of the training part, at most 255 of them, the commonest, and one for
    all others. The last `test_share` of the text is the test part; `data.limit` keeps the first
    windows of the rest.

    Raises DataError if the file cannot be read, or is too short for two windows in each part.
    """
    read = unicodedata.normalize("NFC", _read(root))
    end = round((1 - test_share) * len(read))
    classes = vocabulary(read[:end])
    train, test = (windows(encoded(part, classes), context) for part in (read[:end], read[end:]))
    for name, part in (("training", train), ("test", test)):
        if len(part) < 2:
            raise DataError(
                f"text: {len(part)} windows of {context} characters in the {name} part, expected "
                "2 or more; give a longer text, or set data.context lower"
            )
        _say_of_unknown(name, part)
    names = [UNKNOWN, *map(canonical, classes)]
    images = train.take(torch.arange(min(len(train), settings.limit or len(train))))
    return TextData("text", names, images, lambda _: test, settings, normalise=IDS)


def vocabulary(training: str) -> list[str]:
    """The characters of a text in order, at most the 255 commonest."""
    counts = Counter(training)
    commonest = sorted(counts, key=lambda c: (-counts[c], c))
    return sorted(commonest[: MOST - 1])


def encoded(part: str, classes: Sequence[str]) -> Tensor:
    """The ids (N,) uint8 of a text's characters; 0 where they are unknown."""
    ids = {character: i for i, character in enumerate(classes, start=1)}
    return torch.tensor([ids.get(character, 0) for character in part], dtype=torch.uint8)


def windows(ids: Tensor, context: int) -> Images:
    """Windows (N, 1, 1, T) and the ids that follow (N, T); they share none, and a rest is left
    out."""
    whole = ids[: len(ids) - len(ids) % (context + 1)].view(-1, context + 1)
    return Images(whole[:, None, None, :-1].contiguous(), whole[:, 1:].long())


def _say_of_unknown(name: str, part: Images) -> None:
    share = float((part.labels == 0).float().mean())
    if share > WARN:
        log.warning(
            "data: %.1f%% of the characters of the %s part are none of the 255 commonest of the "
            "training part; all count as one unknown character",
            100 * share, name,
        )  # fmt: skip


def _read(root: str | None) -> str:
    """The text. Raises DataError if it cannot be read."""
    if root is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise DataError(
                "data.root: null, but this Python comes without its help topics; set it to a file"
            ) from None
        return "\n\n".join(topics[name] for name in sorted(topics))
    path = Path(root).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({first_line(error)}), expected a file of UTF-8 text; set "
            "data.root to one"
        ) from error
