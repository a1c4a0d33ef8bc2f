"""Archsmith as a library, from a notebook: a search over your own operations and images, and the
trained network of a run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.utils.data import Dataset

from archsmith.cli import naming
from archsmith.cli.command_line import setting_of
from archsmith.cli.messages import explain
from archsmith.cli.naming import CONF
from archsmith.cli.objects import Own, build, build_space, given_architecture, make_job, placeholder
from archsmith.cli.preflight import preflight
from archsmith.data.loader import Images
from archsmith.data.roles import Data
from archsmith.data.split import Settings
from archsmith.drawing.architecture import DrawnArchitecture
from archsmith.errors import ConfigError, configuring
from archsmith.job import Job
from archsmith.phases.needs import NEEDS
from archsmith.phases.pipeline import phases_for, run_through
from archsmith.phases.run import Run
from archsmith.result.classifier import Classifier
from archsmith.result.found import Found
from archsmith.result.network import load_final
from archsmith.result.report.page import write_report

TESTED = ("search", "retrain", "evaluate", "baseline")
UNTESTED = ("search", "retrain")  # phases if there are no test images
OWN_DATA = "own"  # the choice of data for the images that `find` is given


def find(
    train: Dataset,
    test: Dataset | None = None,
    *,
    operations: Mapping[str, Callable[..., nn.Module]] | None = None,
    overrides: Sequence[str] = (),
    folder: Path | str = "outputs/notebook",
) -> Found:
    """Searches, retrains, returns the trained network (on the CPU, in eval mode) and its
    architecture; `net, architecture = find(...)` unpacks them.

    The network takes raw images (B, C, H, W) like those of `train`, uint8 or float from 0 to 1, and
    normalises them itself.

    All files of the run are in `folder`; the same call resumes it.

    Args:
        train, test: items are (image, label): images uint8, or float from 0 to 1, (C, H, W), all of
            one shape; labels count from 0. `test` is read once, at the very end.
        operations: candidates in addition to the space's, as `op(c_in, c_out, stride, *, affine,
            search)`; all are used unless `space.candidates` names some.
        overrides: as on the command line: `strategy=pcdarts`, `search.epochs=10`. `task` has no
            effect, and `baseline` none without `test`.

    Raises:
        ConfigError: a setting is impossible, or the images are not as described above.
    """
    job = _job(train, test, dict(operations or {}), overrides, Path(folder))
    phases = phases_for(job, TESTED if test is not None else UNTESTED)
    preflight(job, phases)
    run = Run(job)
    with run.logging():
        run_through(run, phases)
        write_report(job.folder, "archsmith.find(...)")
        run.conclude(())
    final = run.final()
    net = Classifier(final.net, final.preprocessing).cpu().eval()
    drawn = DrawnArchitecture.of_choices(final.architecture, job.space.choices)
    return Found(net, drawn, job.folder)


def load(
    run: Path | str,
    *,
    weights: Path | str | None = None,
    operations: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> Classifier:
    """The trained network of a run's folder, on the CPU, in eval mode.

    It has its class names (`classes`), takes raw images, and its `predict` image files.

    Args:
        run: a folder in which a network was trained, or an architecture file.
        weights: the weights file, if it is not that of the folder.
        operations: those that `find` was given.

    Raises:
        ConfigError: no trained network there, or of a space that is not one of ours.
    """
    naming.register()
    architecture, path = given_architecture(str(run), None if weights is None else str(weights))
    if path is None or not path.is_file():
        raise ConfigError(NEEDS["weights"].line)
    assert architecture is not None
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config")
    with configuring():
        data = build(placeholder(), "data")
        space = build_space(config, data, architecture, [], operations or {})
    trained = load_final(path, space, architecture)
    return Classifier(trained.net, trained.preprocessing).eval()


def _job(
    train: Dataset,
    test: Dataset | None,
    operations: Mapping[str, Callable[..., nn.Module]],
    overrides: Sequence[str],
    folder: Path,
) -> Job:
    """The job that the command line would build, except for what `find` is given."""
    naming.register()
    try:
        given = {setting_of(override) for override in overrides}
        own = [] if "data" in given else [f"data={OWN_DATA}"]
        ConfigStore.instance().store(OWN_DATA, placeholder(), group="data")
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            whole = compose("config", overrides=[*own, *overrides], return_hydra_config=True)
            config = OmegaConf.masked_copy(whole, [str(name) for name in whole if name != "hydra"])
            data = partial(_data, train, test, config)
            return make_job(config, Own(whole.hydra, folder, data, operations))
    except (HydraException, OmegaConfBaseException) as error:
        known = partial(naming.known_settings, CONF)
        raise ConfigError(explain(error, CONF, known, composed=False)[1]) from error


def _data(train: Dataset, test: Dataset | None, config: DictConfig) -> Data:
    """The given images, split as configured."""
    shares = config.data
    settings = Settings(None, shares.split, shares.select, shares.augment, config.seed)
    images = _images(train)
    classes = [str(label) for label in range(int(images.labels.max()) + 1)]
    return Data(OWN_DATA, classes, images, lambda _: _images(cast(Dataset, test)), settings)


def _images(items: Dataset) -> Images:
    """All items of a data set in memory. Raises ConfigError for one that `find` rejects."""
    pixels, labels = [], []
    for position in range(len(items)):  # type: ignore[arg-type]
        image, label = items[position]
        pixels.append(_bytes(image, position))
        labels.append(int(label))
    shapes = {tuple(image.shape) for image in pixels}
    if len(shapes) != 1:
        raise ConfigError(f"train: images of {len(shapes)} shapes {sorted(shapes)[:3]}, expected 1")
    if min(labels) < 0:
        raise ConfigError(f"train: label {min(labels)}, expected 0 or more")
    return Images(torch.stack(pixels), torch.tensor(labels))


def _bytes(image: Any, position: int) -> Tensor:
    image = torch.as_tensor(image)
    if image.dtype == torch.uint8 and image.dim() == 3:
        return image
    if image.is_floating_point() and image.dim() == 3 and 0 <= image.min() <= image.max() <= 1:
        return (image * 255).round().to(torch.uint8)
    raise ConfigError(
        f"train: item {position} is {tuple(image.shape)} {image.dtype}, expected (C, H, W) uint8, "
        "or float from 0 to 1 (not normalised: Archsmith does that)"
    )
