"""The phase that trains a hand-designed network for comparison with the found one."""

import json
import logging
from dataclasses import asdict

from archsmith.phases.needs import need
from archsmith.phases.run import Run
from archsmith.result.network import KEY, final_space
from archsmith.result.retrain import train, training_loader
from archsmith.result.weights import save_weights
from archsmith.train.runtime import seed_everything

log = logging.getLogger(__name__)


def baseline_phase(run: Run) -> None:
    """Trains a hand-designed network like the found one and evaluates it once on the test split.

    Writes `baseline_<network>.safetensors`.
    """
    job, architecture = run.job, run.architecture()
    need(job, "baseline")
    assert job.baseline is not None
    name = job.baseline.network
    phase = f"baseline_{name}"
    identity = run.identity("retrain") | asdict(job.baseline)
    identity["architecture"] = architecture.identity
    if run.finished(phase, identity):
        return
    seed_everything(job.seed)
    net, told = job.baseline.beside(final_space(job.space, job.recipe), architecture)
    log.info(
        "%s: width %.3g, %s parameters, %.3f of the found network's %s",
        phase, told["width"], f"{told['parameters']:,}", told["ratio"], told["match"],
    )  # fmt: skip
    seed_everything(job.seed)
    with run.measuring(phase):
        net = train(
            net.to(job.device),
            training_loader(job.data.to(job.device), job.recipe, job.seed),
            job.recipe,
            record=run.record,
            checkpoints=run.checkpoints(phase, identity),
        )
        preprocessing = job.data.preprocessing
        about = {"network": told, "preprocessing": preprocessing.about()}
        save_weights(net, job.folder / f"{phase}.safetensors", {KEY: json.dumps(about)})
        told |= run.tested(net, preprocessing)
    run.results.update(baseline={name: told}, test_reads=run.results.fields["test_reads"] + 1)
    run.finish(phase, identity)
