"""The phase that trains other networks for comparison with the found one."""

import json
import logging

from torch import nn

from archsmith.errors import configuring
from archsmith.job import Job
from archsmith.phases.needs import need
from archsmith.phases.run import Run
from archsmith.result.baseline import Rival
from archsmith.result.network import KEY, final_space
from archsmith.result.retrain import train, training_loader
from archsmith.result.weights import save_weights
from archsmith.train.runtime import seed_everything
from strategies.searchers.random import RandomSearch
from supernets.forms import use_form
from supernets.network import Network

log = logging.getLogger(__name__)


def baseline_phase(run: Run) -> None:
    """Trains each network of the baseline like the found one, and evaluates it once on the test
    split.

    Writes `baseline_<name>.safetensors`.
    """
    job, architecture = run.job, run.architecture()
    need(job, "baseline")
    assert job.baseline is not None
    final, auxiliary = final_space(job.space, job.recipe), job.recipe.auxiliary_weight > 0
    seed_everything(job.seed)
    draw = RandomSearch(job.space).ask  # the same ones first, whatever their number
    for rival in job.baseline.rivals(architecture, final, draw, auxiliary=auxiliary):
        _train(run, rival)


def _train(run: Run, rival: Rival) -> None:
    job, phase = run.job, f"baseline_{rival.name}"
    identity = run.identity("retrain") | rival.identity
    if run.finished(phase, identity):
        return
    told = rival.told
    width = f"width {told['width']:.3g}, " if "width" in told else ""
    log.info("%s: %s%s parameters", phase, width, f"{told['parameters']:,}")
    seed_everything(job.seed)
    net = _made(rival, job)
    seed_everything(job.seed)
    with run.measuring(phase):
        net = train(
            net,
            training_loader(job.data.to(job.device), job.recipe, job.seed),
            job.recipe,
            graphs=job.computing.graphs,
            record=run.record,
            checkpoints=run.checkpoints(phase, identity),
            brief=True,
        )
        preprocessing = job.data.preprocessing
        about = {"network": told, "preprocessing": preprocessing.about()}
        save_weights(net, job.folder / f"{phase}.safetensors", {KEY: json.dumps(about)})
        told = told | run.tested(net, preprocessing)[0]
    reads = run.results.fields["test_reads"] + 1
    run.results.update(baseline={rival.name: told}, test_reads=reads)
    run.finish(phase, identity)


def _made(rival: Rival, job: Job) -> nn.Module:
    """The network on its device; of the space's own it takes the form of the found one."""
    net = rival.make().to(job.device)
    if isinstance(net, Network):
        with configuring():
            use_form(net, job.form, job.device, channels_last=job.runtime.channels_last)
    return net
