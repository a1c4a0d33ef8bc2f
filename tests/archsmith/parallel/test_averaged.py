"""Passes that each process computes apart: what is sent, and that it is right.

One process stands for the first of two: `Messages` is what the second would send.
"""

import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recording import recorded
from test_every_config import composed, make, still
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from archsmith.cli.preflight import some_architecture
from archsmith.errors import ConfigError
from archsmith.job import Job
from archsmith.parallel import distributed
from archsmith.parallel.averaged import Averaged, averaged
from archsmith.parallel.data_parallel import across_processes
from archsmith.parallel.devices import local_device
from archsmith.parallel.portions import Portion
from archsmith.parallel.sums import means
from archsmith.result.retrain import Retraining
from archsmith.train.replay import Replay
from search_spaces.darts import CANDIDATES, darts
from strategies.losses.preferred import Preferred
from strategies.strategy import Strategy
from supernets.forms import use_form
from supernets.native.build import library
from supernets.network import Network, final_network, supernet

CPU = torch.device("cpu")
FORMS = ["reference", "fused", *(["native"] if library() else [])]
NAMES = ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"]
SPACE = darts(layers=3, nodes=1, channels=4, input_shape=(3, 8, 8), classes=3, candidates=NAMES)
Batch = tuple[Tensor, Tensor]


class Messages:
    """The second of two processes has the images of the first: sums are twice what this one sends.

    `sizes` counts the numbers of each message.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, tensor: Tensor) -> None:
        assert _get_current_dispatch_mode() is None, "a message in a pass that is captured"
        self.sizes.append(tensor.numel())
        tensor.mul_(2)


@pytest.fixture
def messages(monkeypatch) -> Iterator[Messages]:
    found = Messages()
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", found)
    yield found
    distributed.sync_batch_norm = False


def batch(images: int, seed: int = 0) -> Batch:
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 3, 8, 8, generator=source)
    return x, torch.randint(3, (images,), generator=source)


def twice(one: Batch) -> Batch:
    """The batch of two processes with the same images."""
    return torch.cat([one[0]] * 2), torch.cat([one[1]] * 2)


def prepared(name: str, form: str = "fused", space: Any = SPACE) -> tuple[Strategy, Network]:
    """In as many processes as there are."""
    torch.manual_seed(0)
    name, *more = name.split()
    strategy = make(composed(*still(name), *more).strategy, space=space)
    net = supernet(space, strategy.mixed_op).train()
    strategy.setup(net, CPU)
    use_form(net, form, CPU)
    across_processes(net)
    if strategy.averages:
        strategy.gradients = averaged(strategy.gradients)
    return strategy, net


def steps(strategy: Strategy, net: Network, made: Callable[[Batch], Batch], count: int = 4) -> Any:
    """Everything after so many steps, and their metrics."""
    metrics = []
    for i in range(count):
        train, val = made(batch(4, 2 * i)), made(batch(4, 2 * i + 1))
        found = strategy.step(net, train, val, progress=i / count, move_alphas=True)
        metrics.append({name: float(value) for name, value in found.items()})
    return metrics, copy.deepcopy(net.state_dict() | strategy.named_arch_parameters())


def assert_equal(found: Any, expected: Any) -> None:
    assert found[0] == expected[0]
    for name, tensor in expected[1].items():
        assert torch.equal(found[1][name], tensor), name


@pytest.mark.parametrize("form", FORMS)
def test_with_the_same_images_two_processes_take_the_steps_of_one(form: str, messages, monkeypatch):
    """Bit for bit: twice a number, halved, is that number. Statistics of batch norms, too."""
    found = steps(*prepared("pcdarts", form), twice)
    assert len(messages.sizes) == 2 * 4
    monkeypatch.setattr(distributed, "size", lambda: 1)
    assert_equal(found, steps(*prepared("pcdarts", form), lambda one: one))


def test_what_is_captured_as_a_graph_sends_nothing(messages, monkeypatch):
    """Replays take the steps of eager passes, bit for bit; the messages follow them."""
    strategy, net = prepared("darts")
    strategy.gradients = replay = Replay(strategy, net, lambda: recorded)
    strategy.gradients = Averaged(replay)
    found = steps(strategy, net, twice, count=6)
    assert len(messages.sizes) == 2 * 6
    assert len([graph for graph in replay.graphs.values() if graph is not None]) == 2
    assert not replay.off
    monkeypatch.setattr(distributed, "size", lambda: 1)
    assert_equal(found, steps(*prepared("darts"), lambda one: one, count=6))


def retraining(graphs: bool) -> Retraining:
    """A retraining of two processes, with drop-path."""
    torch.manual_seed(0)
    recipe = make(composed("retrain.drop_path=0.2", "retrain.epochs=2").retrain)
    net = across_processes(final_network(SPACE, some_architecture(SPACE))).train()
    net.drop_probability = torch.zeros(())  # as on CUDA
    training = Retraining(net, [], recipe)  # type: ignore[arg-type]
    training.epoch = 1
    training.start_epoch()
    if graphs:
        training.replay(lambda: recorded)
    training.gradients = Averaged(training.gradients)
    return training


def test_a_retraining_is_captured_and_its_moved_statistics_are_averaged(messages):
    """Bit for bit as eager passes; every message holds the statistics, also when a graph is
    replayed, and when it is checked by a pass that moves none."""
    found = []
    for graphs in (False, True):
        training = retraining(graphs)
        messages.sizes.clear()
        losses = [float(training.train_step(twice(batch(4, i)))[1]["loss"]) for i in range(6)]
        found.append((losses, list(messages.sizes), training.net.state_dict()))
    eager, replayed = found
    assert not training.gradients.inner.off  # type: ignore[attr-defined]
    assert any(training.gradients.inner.graphs.values())  # type: ignore[attr-defined]
    assert replayed[:2] == eager[:2]
    assert len(set(eager[1])) == 1
    for name, tensor in eager[2].items():
        assert torch.equal(replayed[2][name], tensor), name


# -- the number of messages
# ------------------------------------------------------------------------------------------------

SENT = {  # strategy -> messages of a step with local norms, and with synchronised ones
    "darts": (2, 106),  # 26 norms in two passes, each back and forth; logits and gradients
    "pcdarts": (2, 106),
    "goldnas": (4, 61),  # joint: logits, statistics, gradients of weights and of gates
    "darts_second_order": (10, 227),
}


@pytest.mark.parametrize("name", SENT)
@pytest.mark.parametrize("synchronised", [False, True], ids=["local", "synchronised"])
def test_messages_of_a_step(name: str, synchronised: bool, messages):
    distributed.sync_batch_norm = synchronised
    strategy, net = prepared(name)
    steps(strategy, net, twice, count=1)
    assert len(messages.sizes) == SENT[name][synchronised]


@pytest.mark.slow
@pytest.mark.parametrize(("synchronised", "sent"), [(False, 2), (True, 1340)])
@pytest.mark.parametrize("name", ["darts", "pcdarts"])
def test_messages_of_a_step_of_the_papers_supernet(
    name: str, synchronised: bool, sent: int, messages
):
    distributed.sync_batch_norm = synchronised
    space = darts(
        layers=8, nodes=4, channels=16, candidates=list(CANDIDATES), input_shape=(3, 8, 8),
        classes=3,
    )  # fmt: skip
    steps(*prepared(name, space=space), twice, count=1)
    assert len(messages.sizes) == sent


def test_one_message_holds_gradients_metrics_and_moved_statistics(messages):
    strategy, net = prepared("darts")
    steps(strategy, net, twice, count=1)
    weights = sum(p.numel() for p in strategy.weights if p.grad is not None)
    alphas = sum(p.numel() for p in strategy.arch_parameters())
    running = sum(b.numel() for name, b in net.named_buffers() if "running" in name)
    assert messages.sizes == [alphas + 1, weights + running + 2]


@pytest.mark.parametrize(("local", "sent"), [(True, 1), (False, 44)])
def test_messages_of_a_step_of_retraining(local: bool, sent: int, messages):
    distributed.sync_batch_norm = not local
    recipe = make(composed("retrain.auxiliary_weight=0.4").retrain)
    net = across_processes(final_network(SPACE, some_architecture(SPACE), auxiliary=True)).train()
    training = Retraining(net, [], recipe)  # type: ignore[arg-type]
    training.gradients = averaged()
    training.train_step(batch(8))
    assert len(messages.sizes) == sent


# -- what a process computes
# ------------------------------------------------------------------------------------------------


def test_means_by_hand(monkeypatch):
    """Two processes with gradients 1 and 3, and with losses 2 and 6."""
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda sent: sent.add_(torch.tensor([3.0, 6.0])))
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([10.0])  # of an earlier pass

    def compute(part: Batch) -> dict[str, Tensor]:
        assert part[1].tolist() == [0, 1]
        weight.grad = torch.tensor([1.0])
        return {"loss": torch.tensor(2.0)}

    given = torch.zeros(4, 1, 1, 1), torch.arange(4)
    assert Averaged(lambda _, run, parts, __: run(*parts))("w", compute, [given], [weight]) == {
        "loss": 4.0
    }
    assert weight.grad.tolist() == [10.0 + 2.0]


@pytest.mark.parametrize("images", [3, 5])
def test_a_batch_without_equal_shares_of_two_images_is_given_whole(images: int, messages):
    seen = []

    def compute(*given: Batch) -> dict[str, Tensor]:
        seen.append([len(x) for x, _ in given])
        return {}

    assert Averaged(nn.Identity())("w", compute, [batch(8), batch(images)], []) == {}
    assert seen == [[8, images]]
    assert messages.sizes == []


def test_a_mean_of_several_types_keeps_each(messages):
    found = means([torch.tensor([1.0]), torch.tensor(2.0, dtype=torch.float64)])
    assert [(float(one), one.dtype) for one in found] == [(1, torch.float32), (2, torch.float64)]


def test_the_parts_of_logits_of_texts_stand_at_their_images():
    part = torch.ones(2, 3, 5)  # (b, classes, T)
    whole = Portion(1, 3, 4, 1).padded(part)
    assert whole.shape == (4, 3, 5)
    assert whole.sum((1, 2)).tolist() == [0, 15, 15, 0]
    assert torch.equal(Portion(0, 2, 2, 4).padded(part), part / 4)


def test_joint_statistics_are_the_means_of_local_ones(monkeypatch):
    """This process has images of 1 and 3, the other one of values that it sends."""
    monkeypatch.setattr(distributed, "size", lambda: 2)

    class Net(Network):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1, momentum=1.0)

        def logits(self, x: Tensor, mixture: Any) -> Tensor:
            return self.norm(x).flatten(1)

    sent = iter([torch.zeros(4), torch.tensor([10.0, 6.0])])  # logits; mean and variance
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor: tensor.add_(next(sent)))
    net = across_processes(Net()).train()
    logits = net(torch.tensor([1.0, 3.0, 7.0, 7.0]).view(4, 1, 1, 1))
    assert logits.flatten().tolist() == pytest.approx([-1, 1, 0, 0], abs=1e-4)
    assert net.norm.running_mean.tolist() == [(2 + 10) / 2]
    assert net.norm.running_var.tolist() == [(2 + 6) / 2]


# -- what may be apart
# ------------------------------------------------------------------------------------------------


def test_a_subclass_must_say_itself_that_it_averages():
    class Mine(Preferred):
        pass

    assert Preferred.averages
    assert not Mine.averages


def test_a_preferred_loss_is_the_mean_of_its_parts():
    term = Preferred()
    term.preference = SimpleNamespace(drawn=(0.3, 0.7), latency=lambda _: torch.tensor(0.4))
    logits, (_, y) = torch.randn(6, 3), batch(6)
    whole, *parts = (
        term(None, (None, y[part]), logits[part], None)
        for part in (slice(6), slice(3), slice(3, 6))
    )
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


@pytest.mark.parametrize("name", ["darts", "goldnas"])
@pytest.mark.parametrize("synchronised", [False, True])
def test_graphs_need_passes_that_send_nothing(name: str, synchronised: bool, monkeypatch):
    """A job of two processes that asks for graphs."""
    monkeypatch.setattr("archsmith.job.size", lambda: 2)
    strategy = make(composed(f"strategy={name}").strategy, space=SPACE)
    runtime = SimpleNamespace(
        graphs=True, sync_batch_norm=synchronised, channels_last=False, checkpoint_cells=False,
        captures=lambda _: True,
    )  # fmt: skip
    job: Any = SimpleNamespace(
        network=lambda _: supernet(SPACE, strategy.mixed_op), device=CPU, form="fused",
        runtime=runtime, search=SimpleNamespace(precision="float32"),
    )  # fmt: skip
    if name == "darts" and not synchronised:
        Job.supernet(job, strategy)
        assert isinstance(strategy.gradients, Replay)
        return
    with pytest.raises(ValueError, match=r"runtime\.graphs: passes of 2 processes exchange"):
        Job.supernet(job, strategy)


# -- devices
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "rank", "others", "device"),
    [
        (4, 2, ["a", "b", "d"], "cuda:2"),
        (1, 1, ["x"], "cuda:0"),  # a Slurm task that sees its own alone
        (1, 1, ["gpu0"], None),  # both processes see the same one
        (2, 2, ["gpu0", "gpu1"], None),
        (0, 0, ["gpu0"], None),
        (0, 0, [None], "auto"),
    ],
)
def test_each_process_takes_a_gpu_of_its_own(
    gpus: int, rank: int, others: list, device: str | None, monkeypatch
):
    monkeypatch.setattr(distributed, "size", lambda: len(others) + 1)
    monkeypatch.setattr(distributed, "from_all", lambda own: [*others, own])
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"gpu{i}")
    )
    if device is None:
        with pytest.raises(ConfigError, match=f"finds {gpus} GPUs, and each of"):
            local_device("auto")
    else:
        assert local_device("auto") == device
