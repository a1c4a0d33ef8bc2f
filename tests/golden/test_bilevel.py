"""The unrolled gradient against public implementations: `bilevel.json`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from strategies.update.second_order import unrolled_gradient

HESSIANS = ["exact", "finite_difference"]


def sgd(*weights: Tensor, lr: float, **settings: Any) -> torch.optim.SGD:
    return torch.optim.SGD([w.requires_grad_() for w in weights], lr=lr, **settings)


def golden_losses(
    problem: dict[str, Any], a: Tensor
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    A, B, C, d = (torch.tensor(problem[k], dtype=torch.float64) for k in "ABCd")

    def train(ws: list[Tensor]) -> Tensor:
        w = torch.cat(ws)
        return 0.5 * ((A @ w - B @ a) ** 2).sum() + 0.5 * problem["mu"] * (w**2).sum()

    def val(ws: list[Tensor]) -> Tensor:
        return 0.5 * ((C @ torch.cat(ws) - d) ** 2).sum() + 0.5 * problem["nu"] * (a**2).sum()

    return train, val


@pytest.mark.parametrize("hessian", HESSIANS)
def test_golden_quadratics(golden: Callable[[str], Any], hessian: str):
    data = golden("bilevel.json")
    problems = {p["id"]: p for p in data["problems"]}
    for case in data["cases"]:
        problem = problems[case["problem"]]
        a = torch.tensor(problem["a"], dtype=torch.float64, requires_grad=True)
        w = torch.tensor(problem["w"], dtype=torch.float64)
        parts = [w[:2].clone(), w[2:].clone()]
        optimizer = sgd(
            *parts, lr=case["xi"], momentum=case["momentum"], weight_decay=case["weight_decay"]
        )
        if case["momentum_buffer_present"]:
            buffer = torch.tensor(problem["buf"], dtype=torch.float64)
            for part, half in zip(parts, (buffer[:2], buffer[2:]), strict=True):
                optimizer.state[part]["momentum_buffer"] = half.clone()
        train, val = golden_losses(problem, a)

        loss, (gradient,) = unrolled_gradient(
            train, val, [a], optimizer, hessian=hessian, radius=0.01
        )

        expected = torch.tensor(case["grad_alpha_exact"], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9, msg=case["id"])
        assert loss.item() == pytest.approx(case["val_loss_unrolled"], rel=1e-9)
        adam = torch.optim.Adam([a], lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
        a.grad = gradient
        adam.step()
        stepped = torch.tensor(
            case["original_architect"]["alpha_after_adam_step"], dtype=torch.float64
        )
        torch.testing.assert_close(a.detach(), stepped, rtol=1e-6, atol=1e-8, msg=case["id"])


@pytest.mark.parametrize(("hessian", "tolerance"), [("exact", 1e-9), ("finite_difference", 1e-3)])
def test_golden_nonlinear(golden: Callable[[str], Any], hessian: str, tolerance: float):
    problem = golden("bilevel.json")["nonlinear"]
    data = {k: torch.tensor(v, dtype=torch.float64) for k, v in problem["data"].items()}
    for case in problem["cases"]:
        a, w = data["a0"].clone().requires_grad_(), data["W0"].clone()
        optimizer = sgd(
            w, lr=case["xi"], momentum=case["momentum"], weight_decay=case["weight_decay"]
        )
        if case["momentum_buffer"] is not None:
            optimizer.state[w]["momentum_buffer"] = torch.tensor(
                case["momentum_buffer"], dtype=torch.float64
            )

        def loss(ws: list[Tensor], part: str, a: Tensor = a) -> Tensor:
            s, z = a.softmax(0), data[f"X_{part}"] @ ws[0]
            out = (s[0] * z.tanh() + s[1] * (2 * z).sin() + s[2] * z).sum(1)
            return ((out - data[f"y_{part}"]) ** 2).mean()

        _, (gradient,) = unrolled_gradient(
            lambda ws, loss=loss: loss(ws, "train"),
            lambda ws, loss=loss: loss(ws, "val"),
            [a],
            optimizer,
            hessian=hessian,
            radius=0.01,
        )
        expected = torch.tensor(case["grad_alpha_exact"], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, rtol=tolerance, atol=tolerance * 1e-2)
