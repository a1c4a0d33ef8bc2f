"""Measures a search after an epoch: the architecture, accuracies, the diagnosis."""

from dataclasses import dataclass
from typing import Any

from archsmith.data.roles import Roles
from archsmith.search.diagnosis import diagnose, kinds_of
from archsmith.train.evaluate import evaluate, restore_statistics
from archsmith.train.replay import Capture, Replay
from search_spaces.architecture import Architecture
from search_spaces.settings import setting
from strategies.curvature import alpha_eigenvalue, weight_sharpness
from strategies.strategy import Strategy
from supernets import plain_layers
from supernets.mixture import Mixture
from supernets.network import Network


@dataclass(frozen=True)
class Found:
    """A search's result; accuracies on the `select` images, as fractions."""

    architecture: Architecture
    supernet_accuracy: float
    discretised_accuracy: float
    metrics: dict[str, float]  # both accuracies and the diagnosis, last epoch


def measure(
    net: Network, strategy: Strategy, roles: Roles, meta: dict[str, Any], *, curvature: bool
) -> Found:
    """The current architecture, with a diagnosis of it and of the supernet."""
    (group,) = strategy.weight_optimizer.param_groups
    mixture, capture = strategy.mixture(noise=False), capture_of(net, strategy)
    # Running averages lag behind a fast-learning net; training never reads them.
    restore_statistics(net, roles.statistics, mixture)
    selected = evaluate(net, roles.select, mixture, capture=capture)
    with setting("strategy"):
        architecture = strategy.architecture(**meta)
    discretised = discretised_accuracy(net, architecture, roles, capture)
    metrics = {
        "supernet_accuracy": selected["accuracy"],
        "supernet_loss": selected["loss"],
        "discretised_accuracy": discretised,
        "discretisation_gap": selected["accuracy"] - discretised,
        **diagnose(strategy.space, strategy.gates(), strategy.alive, architecture),
        "lr": group["lr"],
    }
    if curvature:
        batch = next(iter(roles.sample))
        metrics["alpha_eigenvalue"] = alpha_eigenvalue(net, strategy, batch)
        metrics["weight_sharpness"] = weight_sharpness(net, strategy, batch)
    return Found(architecture, selected["accuracy"], discretised, metrics)


def measured_again(net: Network, roles: Roles, found: Found, earlier: Architecture) -> Found:
    """The same search with an earlier architecture as its result: what depends on the architecture
    is measured again, in the present supernet."""
    accuracy = discretised_accuracy(net, earlier, roles)
    metrics = found.metrics | {
        "discretised_accuracy": accuracy,
        "discretisation_gap": found.supernet_accuracy - accuracy,
        **kinds_of(net.space, earlier),
    }
    return Found(earlier, found.supernet_accuracy, accuracy, metrics)


def capture_of(net: Network, strategy: Strategy) -> Capture | None:
    """Captures passes of a supernet that read tensors alone, where those of its training are
    captured; else None."""
    gradients = strategy.gradients
    if not isinstance(gradients, Replay) or gradients.off:
        return None
    outside = (layer for layer in net.modules() if not plain_layers.reads_tensors_alone(layer))
    known = all(plain_layers.constants(layer) is not None for layer in outside)
    return gradients.capturing() if known else None


def discretised_accuracy(
    net: Network, architecture: Architecture, roles: Roles, capture: Capture | None = None
) -> float:
    """Accuracy on `select` of the discrete network with inherited weights and re-estimated
    statistics; the supernet's own statistics are restored."""
    mixture = Mixture.of(architecture, net.space, next(net.parameters()).device)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    try:
        restore_statistics(net, roles.statistics, mixture)
        return evaluate(net, roles.select, mixture, capture=capture)["accuracy"]
    finally:
        for name, buffer in net.named_buffers():
            buffer.copy_(before[name])
