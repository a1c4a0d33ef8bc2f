"""The epoch runner, one for every kind of training: steps, records, checkpoints, recovery."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from archsmith import interrupt
from archsmith.errors import CheckpointError, Interrupted
from archsmith.parallel import distributed
from archsmith.train import garbage
from archsmith.train.checkpoint import Checkpoints, fitting
from archsmith.train.finite import Watch, judged_at, not_learning
from archsmith.train.memory import sparing
from archsmith.train.memory_probe import PROBED_STEPS, check_memory, step_memory
from archsmith.train.record import Progress, Record
from archsmith.train.training import Training

log = logging.getLogger(__name__)


def run(
    training: Training,
    record: Record,
    checkpoints: Checkpoints,
    stop: Callable[[], bool] = interrupt.requested,
    *,
    brief: bool = False,
) -> Any:
    """Runs, or resumes, a training to its last epoch; returns its result.

    Its phase is that of the checkpoints. `stop` is called after every step. brief: of the epochs,
    only the last one is logged.

    Raises:
        NumbersError: a loss or a saved tensor is no longer finite.
        OutOfMemory: it occurred again with twice as many micro-batches, or is certain to occur.
        CheckpointError: a checkpoint cannot be written, or an existing one cannot be used.
        Interrupted: `stop` returned True; all progress is saved.
    """
    steps = training.epochs * len(training.loader)
    if steps >= PROBED_STEPS and distributed.size() == 1:
        probe(training)
    runner = Runner(training, record, checkpoints, stop, brief=brief)
    try:
        with garbage.settled():
            return sparing(
                training.group, runner.run, training.halve, training.device, drop=training.release
            )
    finally:
        training.release()


def probe(training: Training) -> None:
    """Warns if a step exceeds free memory. Raises OutOfMemory if even the smallest batch does."""
    loader, parts = training.loader, training.micro_batches
    batch = min(loader.batch_size, len(loader.index))
    need = step_memory(training.prepared, parts)
    check_memory(training.group, need, batch, parts, training.device, otherwise=training.savings)


class Runner:
    """Takes a training from epoch to epoch: writes its metrics and saves its checkpoints."""

    def __init__(
        self,
        training: Training,
        record: Record,
        checkpoints: Checkpoints,
        stop: Callable[[], bool] = interrupt.requested,
        *,
        brief: bool = False,
    ):
        self.training, self.record, self.checkpoints = training, record, checkpoints
        self.stop, self.phase, self.brief = stop, checkpoints.phase, brief
        self.watch = Watch(self.phase, training.remedy, record.folder, training.loaders)

    def run(self) -> Any:
        """Trains from the last checkpoint to the end."""
        training, steps = self.training, len(self.training.loader)
        self._resume()
        done = training.epoch * steps + training.step
        with Progress(self.phase, round(training.epochs * steps), done) as progress:
            while not training.over:
                self._epoch(progress)
        self.checkpoints.clear_epochs()
        return training.result()

    def _resume(self) -> None:
        training, saved = self.training, self.checkpoints.load()
        if saved is not None:
            with fitting(self.phase):
                training.load_state_dict(saved)
            log.info(
                "%s: continued in epoch %d of %d",
                self.phase, training.epoch + 1, math.ceil(training.epochs),
            )  # fmt: skip
        self.record.resume(self.phase, training.epoch)
        if saved is None:
            self._save()  # fails now if checkpoints cannot be written

    def _epoch(self, progress: Progress) -> None:
        """The rest of the current epoch."""
        training, began = self.training, time.perf_counter()
        for _ in self.steps(progress):
            self._pause()
            if self.checkpoints.due():
                self._save()
        self.record.cost(progress.step_seconds, training.device)
        self._end_epoch(began)
        if training.may_return and not training.over:
            self._return(progress)
        if training.over or self.checkpoints.due(epoch_over=True):
            self._save()
        if not training.over:
            self._pause()

    def steps(self, progress: Progress) -> Iterator[None]:
        """Runs the rest of an epoch's steps; yields after every step, the last one included."""
        training = self.training
        batches, steps = training.start_epoch(), training.steps
        if training.step == steps:
            return  # the checkpoint was saved after the epoch's last step
        for batch in progress.batches(batches):
            metrics, numbers = training.train_step(batch)
            training.step += 1
            training.averages.add(metrics)
            self.watch.see(training.epoch + 1, training.step, numbers)
            if training.step % 10 == 0:
                progress.note(training.epoch + 1, training.averages.read())
            if training.step < steps:
                yield
        self.watch.read()
        yield

    def _end_epoch(self, began: float) -> None:
        """Measures, records and logs the epoch; then moves the training to the next one."""
        training, epoch = self.training, self.training.epoch
        metrics = training.averages.read() | training.end_epoch()
        metrics["seconds"] = round(time.perf_counter() - began, 3)
        self.record.log(self.phase, epoch, metrics)
        epochs, loss, accuracy = (
            math.ceil(training.epochs), metrics["train_loss"], metrics["train_accuracy"],
        )  # fmt: skip
        log.log(
            logging.DEBUG if self.brief and epoch + 1 < epochs else logging.INFO,
            "%s epoch %d/%d: train loss %.3f, train accuracy %.3f%s",
            self.phase, epoch + 1, epochs, loss, accuracy, training.summary(metrics),
        )  # fmt: skip
        if epoch == judged_at(epochs, len(training.loader)):
            warning = not_learning(loss, accuracy, training.net.space.classes, training.rate)
            if warning:
                log.warning("%s: %s", self.phase, warning)
        training.next_epoch()

    def _return(self, progress: Progress) -> None:
        """Keeps the state at the end of this epoch, and goes back to an earlier one if asked to."""
        training = self.training
        kept = self.checkpoints.of_epoch(training.epoch - 1)
        kept.clear()  # of this epoch before the training went back
        kept.save(training.state_dict())
        epoch = training.returns_to()
        if epoch is None:
            return
        state = self.checkpoints.of_epoch(epoch).load()
        if state is None:
            raise CheckpointError(
                f"{self.phase}: the state at the end of epoch {epoch + 1} is missing, to which the "
                "run goes back; set resume=never to start over"
            )
        log.info("%s: back from epoch %d to %d", self.phase, training.epoch, epoch + 1)
        with fitting(self.phase):
            training.return_to(state)
        self.record.resume(self.phase, training.epoch)
        progress.at(training.epoch * len(training.loader))

    def _save(self) -> None:
        """Saves. Raises NumbersError, before anything is written, or CheckpointError."""
        self.watch.check(self.training.epoch + 1, self.training.tensors())
        self.checkpoints.save(self.training.state_dict())

    def _pause(self) -> None:
        """If the run was asked to stop, saves a checkpoint and raises Interrupted."""
        if distributed.any_process(self.stop()):
            self._save()
            raise Interrupted(f"{self.phase}: stopped and saved; run the same command to continue")
