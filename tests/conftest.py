"""One thread and a seed for every test; toy spaces with 8 channels and 16 x 16 images."""

import pytest
import torch

from search_spaces.darts import CANDIDATES, darts
from search_spaces.nasbench201 import CANDIDATES as NASBENCH201
from search_spaces.nasbench201 import nasbench201
from search_spaces.space import Space


@pytest.fixture(autouse=True)
def quiet_machine() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def toy_darts() -> Space:
    return darts(
        layers=3,
        nodes=2,
        channels=8,
        candidates=list(CANDIDATES),
        input_shape=(3, 16, 16),
        classes=10,
    )


@pytest.fixture
def toy_nasbench201() -> Space:
    return nasbench201(
        layers=5,
        nodes=3,
        channels=8,
        candidates=list(NASBENCH201),
        input_shape=(3, 16, 16),
        classes=10,
    )
