"""A network with weights and activations of 8 bits: static quantisation by onnxruntime's tool.

Jacob et al. 2018, arXiv:1712.05877, as onnxruntime does it: scales of weights per channel, scales
of activations from the least and largest values on calibration images.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CALIBRATION = 256  # training images


def quantise(source: Path, path: Path, images: Tensor) -> None:
    """Writes the ONNX model `source` quantised. images: raw (N, C, H, W) uint8, for calibration.

    Weights have 7 bits, as sums of products overflow on processors without VNNI otherwise. What is
    no convolution's neighbour stays float: the normalisation of the pixels, single batch norms.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"  # batch norms are folded into convolutions
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            prepared,
            path,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[n.name for n in nodes if n.op_type == "BatchNormalization"],
        )


class _Calibration:
    """What onnxruntime reads calibration images from."""

    def __init__(self, images: Tensor):
        self._batches = iter(images.split(64))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch.numpy()}


class OnnxNetwork(nn.Module):
    """An exported ONNX file as a network: raw images (B, C, H, W) uint8 -> logits (B, classes)."""

    def __init__(self, path: Path):
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)

    def forward(self, images: Tensor, mixture: None = None) -> Tensor:
        (logits,) = self._session.run(["logits"], {"image": images.numpy()})
        return torch.from_numpy(logits)
