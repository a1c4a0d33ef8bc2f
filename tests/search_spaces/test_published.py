"""Every shipped architecture file: valid, canonical, and of the size its own code gives it.

Parameters and multiply-accumulates at C=36, 20 cells, CIFAR-10, without the auxiliary head. They
were counted by running the source repositories; only PC_DARTS_image was counted here, and is also
held against its 5.3 million parameters on ImageNet, published in arXiv:1907.05737.
"""

import json

import pytest
import torch

from search_spaces.architecture import Architecture
from search_spaces.darts import CANDIDATES, darts
from search_spaces.genotype import PUBLISHED, from_genotype, published, to_genotype
from supernets.costs import macs, parameters
from supernets.network import Network, final_network

SIZES = {
    "DARTS_V1": (3_169_414, 500_987_520),
    "DARTS_V2": (3_349_342, 528_359_040),
    "PC_DARTS_cifar": (3_634_678, 556_670_592),
    "PC_DARTS_image": (3_721_510, 570_466_944),
    "RobustDARTS_RandomNAS_s1_cifar10_0p0_0p0003_run4": (2_406_502, 385_667_712),
    "RobustDARTS_RandomNAS_s1_svhn_0p0_0p0003_run4": (3_073_726, 486_057_600),
    "RobustDARTS_RandomNAS_s2_cifar100_0p0_0p0003_run4": (4_251_142, 647_466_624),
    "RobustDARTS_RandomNAS_s3_cifar10_0p0_0p0003_run4": (2_702_422, 417_379_968),
    "RobustDARTS_RandomNAS_s3_svhn_0p0_0p0003_run4": (2_698_534, 416_882_304),
    "RobustDARTS_s1_cifar10_dp0p0_wd0p0003_seed1": (1_550_062, 254_643_840),
    "RobustDARTS_s1_cifar10_dp0p2_wd0p0003_seed1": (2_724_886, 428_909_184),
    "RobustDARTS_s1_cifar10_dp0p2_wd0p0003_seed3": (2_365_030, 374_166_144),
    "RobustDARTS_s1_cifar10_dp0p4_wd0p0003_seed1": (2_333_278, 370_820_736),
    "RobustDARTS_s1_cifar10_dp0p6_wd0p0003_seed1": (2_693_134, 425_563_776),
    "RobustDARTS_s1_cifar10_dp0p8_wd0p0003_seed1": (2_365_030, 374_166_144),
    "RobustDARTS_s3_svhn_dp0p0_wd0p0003_seed1": (1_675_558, 258_459_264),
    "RobustDARTS_s3_svhn_dp0p2_wd0p0003_seed1": (3_262_294, 492_693_120),
    "RobustDARTS_s3_svhn_dp0p2_wd0p0003_seed3": (3_982_006, 602_179_200),
    "RobustDARTS_s3_svhn_dp0p4_wd0p0003_seed1": (4_701_718, 711_665_280),
    "RobustDARTS_s3_svhn_dp0p6_wd0p0003_seed1": (4_701_718, 711_665_280),
    "RobustDARTS_s3_svhn_dp0p8_wd0p0003_seed1": (3_262_294, 492_693_120),
    "sharpDARTS_DARTS_PRIMITIVES_DIL_IS_SEPCONV": (3_555_622, 558_384_768),
}

SPACE = darts(
    layers=8,
    nodes=4,
    channels=16,
    candidates=list(CANDIDATES),
    input_shape=(3, 32, 32),
    classes=10,
    stem="small",
)


IN_SEARCH_LOGS = [name for name in SIZES if name.startswith("RobustDARTS")]


def network(name: str, **settings: object) -> Network:
    with torch.device("meta"):
        return final_network(SPACE.resize(**settings), Architecture.load(published(name)))


def test_table_and_files_name_the_same_architectures():
    assert {path.stem for path in PUBLISHED.glob("*")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_file_fits_the_space_and_is_canonical(name):
    path = published(name)
    found = Architecture.load(path)

    found.check(SPACE)
    assert found.space == json.loads(json.dumps({"name": "darts", **SPACE.settings}))
    assert path.read_text(encoding="utf-8") == found.to_json()
    assert from_genotype(to_genotype(found), SPACE) == found
    assert all(cell.connects(found.choices[group]) for group, cell in SPACE.groups.items())


@pytest.mark.parametrize("name", SIZES)
def test_file_names_its_source(name):
    meta = Architecture.load(published(name)).meta

    assert meta["source"].startswith("github.com/")
    assert "arXiv:" in meta["paper"]
    assert meta["name"].replace(".", "p") == name


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_parameters_of_the_cifar_network(name):
    assert parameters(network(name, layers=20, channels=36)) == SIZES[name][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SIZES if name not in IN_SEARCH_LOGS])
def test_macs_of_the_cifar_network(name):
    assert macs(network(name, layers=20, channels=36)) == SIZES[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_SEARCH_LOGS)
def test_macs_of_the_cifar_network_of_a_search_log(name):
    assert macs(network(name, layers=20, channels=36)) == SIZES[name][1]


@pytest.mark.slow
def test_pc_darts_image_has_the_size_of_its_imagenet_network():
    imagenet = {"input_shape": (3, 224, 224), "classes": 1000, "stem": "imagenet"}
    net = network("PC_DARTS_image", layers=14, channels=48, **imagenet)

    assert (parameters(net), macs(net)) == (5_342_464, 581_627_328)
