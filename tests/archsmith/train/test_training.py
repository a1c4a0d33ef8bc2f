from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

from archsmith.train.training import Training


class Toy(Training):
    """Ten batches an epoch; only the state matters."""

    def start_epoch(self) -> Iterable[Any]:
        return self.loader

    def train_step(self, batch: Any) -> Any:
        return {}, {}

    def prepared(self, images: int) -> Any:
        return lambda: None

    def result(self) -> nn.Module:
        return self.net


def toy(parts: int = 1) -> Toy:
    training = Toy(nn.Linear(2, 1), {"train": range(10)})
    training.epochs, training.micro_batches = 3, parts
    return training


def test_every_retry_has_twice_as_many_parts_and_a_checkpoint_does_not_undo_that():
    """2 parts, then 4; the checkpoint before it ran out of memory still says 2."""
    before = toy(parts=2)
    state = before.state_dict()
    assert before.halve() == 4
    assert (before.micro_batches, before.halved) == (4, True)
    before.load_state_dict(state)
    assert before.micro_batches == 4


@pytest.mark.parametrize("parts", [2, 8])
def test_a_resumed_training_goes_on_in_the_parts_of_its_checkpoint(parts: int):
    other = toy()
    other.load_state_dict(toy(parts).state_dict())
    assert (other.micro_batches, other.halved) == (parts, False)


def test_an_epoch_is_counted_and_its_averages_begin_anew():
    training = toy()
    training.step = training.steps
    training.averages.add({"train_loss": torch.tensor(3.0)})
    training.next_epoch()
    assert (training.epoch, training.step, training.over) == (1, 0, False)
    training.averages.add({"train_loss": torch.tensor(1.0)})
    assert training.averages.read()["train_loss"] == 1.0
    training.next_epoch()
    training.next_epoch()
    assert training.over


def test_a_training_that_stops_is_over_before_its_epochs_are():
    training = toy()
    training.stopped = True
    other = toy()
    other.load_state_dict(training.state_dict())
    assert other.over
