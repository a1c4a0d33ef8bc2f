"""The interface of `kernels.cpp`: its structures, and what its functions return."""

import ctypes

import torch
from torch import Tensor

Pointers = ctypes.POINTER(ctypes.c_void_p)


def fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class CImage(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("strides", ctypes.c_int64 * 4)]

    @classmethod
    def of(cls, x: Tensor) -> "CImage":
        return cls(x.data_ptr(), x.stride())


class CKind(ctypes.Structure):
    _fields_ = [
        *fields(ctypes.c_int32, "type halves kernel dilation norm"),
        ("eps", ctypes.c_float),
        ("weights", Pointers),
        *fields(ctypes.c_void_p, "stats gates gate_gradients gradients affine affine_gradients"),
        ("kept", ctypes.c_void_p),
    ]


class CSource(ctypes.Structure):
    _fields_ = [
        *fields(ctypes.c_int32, "B C H W E stride kinds training threads k adds_dx"),
        ("adds", ctypes.POINTER(ctypes.c_int32)),
        ("kind", ctypes.POINTER(CKind)),
        *fields(ctypes.c_void_p, "factors factor_gradients keep"),
        *fields(CImage, "x dx"),
        ("y", ctypes.POINTER(CImage)),
    ]


class CProjection(ctypes.Structure):
    _fields_ = [
        *fields(ctypes.c_int32, "B inputs H W C stride parts training threads"),
        ("eps", ctypes.c_float),
        ("weights", ctypes.c_void_p * 2),
        *fields(ctypes.c_void_p, "stats gradients affine affine_gradients kept"),
        *fields(CImage, "x dx y"),
    ]


def pointer(x: Tensor | None, skipped: int = 0) -> int | None:
    """The address of the float behind the first `skipped` ones."""
    return None if x is None else x.data_ptr() + 4 * skipped


def ran(status: int) -> None:
    """Raises MemoryError where a kernel had no memory for its maps."""
    if status:
        raise MemoryError("no memory for the maps of a cell; lower the batch size")


def first_derivative_only() -> None:
    """Raises RuntimeError in a backward pass that is to be differentiated again."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "form: the native kernels have no second derivatives; compute the pass "
            "within supernets.forms.twice_differentiable(), or set runtime=fused"
        )
