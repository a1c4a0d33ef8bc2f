"""All settings of a configuration are checked before anything is built from it."""

import pytest
from test_every_config import composed

from archsmith.cli.settings import check_settings
from archsmith.errors import ConfigError


def test_all_wrong_settings_are_told_at_once_and_unknown_ones_with_the_nearest():
    config = composed(
        "search.epochs=0", "+budget.mac=3", "strategy.clip=-1", "strategy.alpha_optimizer.lr=x",
        "+strategy/losses=[label_smoothing]", "strategy.losses.label_smoothing.weight=-1",
    )  # fmt: skip
    with pytest.raises(ConfigError) as error:
        check_settings(config)
    assert sorted(line.split(":")[0] for line in str(error.value).split("; ")) == [
        "known",
        "search.epochs",
        "strategy.alpha_optimizer.lr",
        "strategy.clip",
        "strategy.losses.label_smoothing.weight",
        "unknown setting 'budget.mac', did you mean 'budget.macs'?",
    ]
