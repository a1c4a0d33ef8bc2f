"""Converts a traced network to ONNX."""

import copy
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram

aten = torch.ops.aten
TYPE_CHECK = aten._assert_tensor_metadata.default  # ONNX checks the input types itself
OPSET = 18  # the lowest version that torch actually writes
# What torch.onnx can write without decomposition, besides `_translations`; no side effects.
KNOWN = {
    aten.add.Tensor,
    aten.avg_pool2d.default,
    aten.cat.default,
    aten.conv2d.default,
    aten.div.Tensor,
    aten.flatten.using_ints,
    aten.linear.default,
    aten.max_pool2d.default,
    aten.mean.dim,
    aten.mul.Tensor,
    aten.new_zeros.default,
    aten.pad.default,
    aten.relu.default,
    aten.sigmoid.default,
    aten.slice.Tensor,
    aten.sub.Tensor,
    aten.sym_size.int,
    TYPE_CHECK,
}


def to_onnx(program: ExportedProgram) -> ONNXProgram:
    """A network of raw images (B, C, H, W) uint8 as ONNX, with any batch size."""
    if all(_known(node) for node in program.graph.nodes if node.op == "call_function"):
        program = _decomposed(program)
    for chatty in ("onnx_ir", "onnxscript"):  # these log every folded constant
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # raised inside torch
        written = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={"images": {0: "batch"}},
            input_names=["image"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
            custom_translation_table=_translations(),
        )
    assert written is not None
    for node in written.model.graph:
        node.metadata_props.clear()  # where it came from in torch: as long as the weights of a net
        for value in node.outputs:
            value.metadata_props.clear()
    return written


def _known(call: torch.fx.Node) -> bool:
    """Whether a call can be written without decomposition."""
    if call.target is aten.batch_norm.default:
        return None not in call.args[:5] and call.args[5] is False
    if call.target is aten.to.dtype:
        return bool(call.args[1:] == (torch.float32,))
    if call.target is aten.adaptive_avg_pool2d.default:
        return bool(call.args[1] == [1, 1])
    return call.target in KNOWN


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    """A copy that claims to be decomposed already, because torch.onnx would otherwise trace it
    again, which takes about as long as the rest of the conversion.
    """
    found = copy.deepcopy(program)
    for node in found.graph.find_nodes(op="call_function", target=TYPE_CHECK):
        found.graph.erase_node(node)
    found.run_decompositions = lambda *_: found
    return found


def _translations() -> dict[Any, Any]:
    """Operations of our networks that torch.onnx can only decompose, in the cases that `_known`
    admits: pixels to float32, a batch norm with weights in eval mode, the average of a feature map.
    """
    from onnxscript import opset18 as op

    def batch_norm(
        x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool,
        momentum: float, eps: float, cudnn: bool,
    ) -> Any:  # fmt: skip
        return op.BatchNormalization(x, weight, bias, mean, variance, epsilon=eps)

    def adaptive_avg_pool2d(x: Any, size: Sequence[int]) -> Any:
        axes: Any = op.Constant(value_ints=[-1, -2])
        return op.ReduceMean(x, axes, keepdims=1)

    def to_float(x: Any, dtype: int) -> Any:
        return op.Cast(x, to=1)  # FLOAT, the type that `_known` admits

    return {
        aten.to.dtype: to_float,
        aten.batch_norm.default: batch_norm,
        aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    }
