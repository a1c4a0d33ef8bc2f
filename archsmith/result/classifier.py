"""A trained network together with its preprocessing: raw images in, logits out."""

import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from archsmith.data.preprocessing import Preprocessing
from archsmith.errors import DataError
from archsmith.result.predict import FileName, Prediction, Predictions, read_image


class Classifier(nn.Module):
    """A network for raw images; `classes` are the class names in the order of the logits.

    forward: (B, C, H, W), uint8 from 0 to 255 or float from 0 to 1 -> logits (B, classes). Raises
    ValueError for images of another shape, type or range. `predict` also takes image files.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self.net, self.preprocessing = net, preprocessing
        self.classes = preprocessing.classes
        normalise = preprocessing.normalise
        self.register_buffer("mean", normalise.mean[:, None, None])
        self.register_buffer("std", normalise.std[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        self.preprocessing.check(images)
        x = images.to(torch.float32)
        if images.dtype == torch.uint8:
            x = x / 255
        return self.net((x - self.mean) / self.std)

    @torch.inference_mode()
    def predict(
        self,
        images: Tensor | FileName | Sequence[FileName],
        batch_size: int = 128,
    ) -> Predictions:
        """The class of each image, and the probabilities of all classes, in eval mode.

        images: raw images as for `forward`; or image files of any size and mode, which are read and
            resized as in the training.

        Raises:
            ValueError: as `forward`, and for a network that reads text.
            DataError: a file cannot be read.
        """
        if self.preprocessing.reads_text:
            raise ValueError("images: this network reads text; export it, and call its generate")
        if not isinstance(images, Tensor):
            paths = [images] if isinstance(images, str | os.PathLike) else list(images)
            images = self._none() if not paths else torch.stack([*map(self._read, paths)])
        trained, device = self.training, self.mean.device
        try:
            self.eval()
            shares = [self(x.to(device)).softmax(1).cpu() for x in images.split(batch_size)]
        finally:
            self.train(trained)
        probabilities = torch.cat(shares)
        return Predictions([self.classes[i] for i in probabilities.argmax(1)], probabilities)

    def predict_files(
        self, files: Sequence[str], *, top: int, batch_size: int
    ) -> Iterator[Prediction]:
        """The `top` most probable classes of each file; of one that cannot be read, why."""
        top = min(top, len(self.classes))
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            read = [read_image(file, self.preprocessing.input_shape) for file in batch]
            images = [x for x in read if not isinstance(x, str)]
            rows = iter(self.predict(torch.stack(images)).probabilities if images else ())
            for file, one in zip(batch, read, strict=True):
                if isinstance(one, str):
                    yield Prediction(file, [], one)
                    continue
                shares, places = next(rows).topk(top)
                pairs = zip(places.tolist(), shares.tolist(), strict=True)
                yield Prediction(file, [(self.classes[i], share) for i, share in pairs])

    def _read(self, path: FileName) -> Tensor:
        found = read_image(path, self.preprocessing.input_shape)
        if isinstance(found, str):
            raise DataError(f"{found}: cannot be read, expected an image")
        return found

    def _none(self) -> Tensor:
        return torch.empty(0, *self.preprocessing.input_shape, dtype=torch.uint8)
