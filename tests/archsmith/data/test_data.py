import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT
from hydra.utils import get_method
from PIL import Image
from test_every_config import composed, make

from archsmith.data import sets as module
from archsmith.data.augment import generator
from archsmith.data.loader import Images
from archsmith.data.roles import Data
from archsmith.data.sets import digits, folder, synthetic
from archsmith.data.split import Settings, allocate, limited, pick, stratified
from archsmith.errors import DataError

OFF = {"crop": 0, "flip": False, "cutout": 0}
COMMON = {"limit": None, "split": 0.5, "select": 0.1, "augment": OFF, "seed": 0}
FOLDER = {
    **COMMON, "image_size": None, "channels": None,
    "test_share": None, "on_error": "abort", "workers": 0, "memory_mb": 200,
}  # fmt: skip
CONFIGS = sorted((ROOT / "conf" / "data").glob("*.yaml"))


def never(shape) -> Images:
    raise AssertionError("the test images were read")


def made(sizes: list[int], test=never, **settings) -> Data:
    """Classes of these sizes; image i is 1 x 2 x 2, all pixels i."""
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(sizes)])
    pixels = torch.arange(len(labels)).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    names = [f"class{k}" for k in range(len(sizes))]
    return Data("made", names, Images(pixels.clone(), labels), test, Settings(**COMMON | settings))


def toy(**changes) -> Data:
    settings = {
        "root": None, "size": 40, "classes": 4, "channels": 3, "image_size": 8, "noise": 1.0
    }  # fmt: skip
    return synthetic(**settings | COMMON | changes)


def tree(root: Path, counts: dict[str, dict[str, int]]) -> Path:
    """Grey 4 x 4 images, every one of another colour."""
    colour = 0
    for part, classes in counts.items():
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (4, 4), colour).save(root / part / name / f"{i}.png")
                colour += 1
    return root


def images_of(loader) -> list[int]:
    """The labels' and pixels' order is enough to tell images of `made` apart."""
    return sorted(round(float(v)) for x, _ in loader for v in raw(loader, x)[:, 0, 0, 0])


def raw(loader, x):
    return (x * loader.normalise.std[:, None, None] + loader.normalise.mean[:, None, None]) * 255


@pytest.mark.parametrize(
    ("sizes", "count", "taken"),
    [
        ([5, 5, 4], 7, [3, 2, 2]),  # 2.5, 2.5, 2: one left, a tie, the lower class
        ([5, 3], 4, [3, 1]),  # 2.5, 1.5: the same
        ([6, 3], 4, [3, 1]),  # 2.67, 1.33
        ([1000, 1], 500, [500, 0]),
        ([3, 0, 3], 4, [2, 0, 2]),
        ([3, 3], 6, [3, 3]),
    ],
)
def test_allocate_gives_classes_their_proportion_by_largest_remainder(sizes, count, taken):
    assert allocate(torch.tensor(sizes), count).tolist() == taken


def test_pick_takes_the_number_asked_of_each_class_and_mixes():
    labels = torch.tensor([0, 1, 0, 1, 0, 2] * 10)
    found = [pick(labels, torch.tensor([7, 3, 0]), generator(seed)) for seed in range(2)]
    for chosen in found:
        assert torch.bincount(labels[chosen], minlength=3).tolist() == [7, 3, 0]
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    ("sizes", "share", "first"),
    [
        ([10, 20], 0.5, [5, 10]),
        ([10, 20], 0.3, [3, 6]),
        ([1000, 1], 0.5, [500, 1]),  # one image alone trains the weights
        ([2, 2], 0.9, [1, 1]),  # and two are shared
        ([100, 2], 0.1, [10, 1]),
    ],
)
def test_stratified_parts_by_hand(sizes, share, first):
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(sizes)])
    chosen, rest = stratified(labels, share, generator(0))
    assert torch.bincount(labels[chosen]).tolist() == first
    assert sorted(chosen.tolist() + rest.tolist()) == list(range(len(labels)))
    assert chosen.tolist() == sorted(chosen.tolist())


def test_limit_is_in_proportion_and_refused_where_a_class_would_vanish():
    labels = torch.tensor([0] * 6 + [1] * 3)

    def take(limit):
        return torch.bincount(
            labels[limited(labels, Settings(**COMMON | {"limit": limit}))]
        ).tolist()

    assert take(3) == [2, 1]
    assert take(9) == take(100) == take(None) == [6, 3]
    message = (
        r"data\.limit: 1 of 9 images leave none of a class that has 3.*set data\.limit to 3 or"
    )
    with pytest.raises(DataError, match=message):
        take(1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"split": 1.0}, r"^split: expected a number above 0 and below 1, found 1\.0"),
        ({"select": 0}, r"^select: expected a number above 0 and below 1, found 0"),
        ({"limit": 1.5}, r"^limit: expected a whole number of at least 1 or null, found 1\.5"),
        ({"limit": 0}, r"^limit: expected a whole number of at least 1 or null, found 0"),
        ({"augment": {"crop": 1}}, r"data\.augment: crop; expected exactly crop, flip, cutout"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Settings(**COMMON | setting)


def counts(data: Data, *, one_level: bool) -> dict[str, dict[str, int]]:
    """Role -> class -> images; of `test` once it was read."""
    labels = {r: data.images.labels[index] for r, index in data.split(one_level=one_level).items()}
    if data._test is not None:
        labels["test"] = data._test.labels
    numbers = {r: torch.bincount(y, minlength=len(data.classes)) for r, y in labels.items()}
    return {r: dict(zip(data.classes, n.tolist(), strict=True)) for r, n in numbers.items()}


def test_roles_of_a_two_level_search():
    """A fifth is `select`; of the 24 others, 16 and 8 of the classes, 3/4 are `train`."""
    data = made([20, 10], select=0.2, split=0.75)
    roles = data.loaders(6, one_level=False, seed=0)
    train, val, select = map(images_of, (roles.train, roles.val, roles.select))
    assert sorted(train + val + select) == list(range(30))
    assert [len(y) for _, y in roles.select] == [6]
    assert counts(data, one_level=False) == {
        "train": {"class0": 12, "class1": 6},
        "val": {"class0": 4, "class1": 2},
        "select": {"class0": 4, "class1": 2},
    }


def test_roles_of_a_one_level_search():
    data = made([20, 10], select=0.2)
    roles = data.loaders(6, one_level=True, seed=0)
    assert roles.val is None
    assert sorted(images_of(roles.train) + images_of(roles.select)) == list(range(30))
    assert counts(data, one_level=True) == {
        "train": {"class0": 16, "class1": 8},
        "select": {"class0": 4, "class1": 2},
    }


@pytest.mark.parametrize("split", [0.5, 0.8])
def test_b4_every_strategy_is_measured_on_the_same_images_which_move_nothing(split: float):
    one, two = (
        made([20, 10], split=split).loaders(6, one_level=one_level, seed=seed)
        for one_level, seed in ((True, 0), (False, 5))
    )
    measured = images_of(one.select)
    assert measured == images_of(two.select) == images_of(made([20, 10]).loaders(
        6, one_level=False, seed=0).select)  # fmt: skip
    moved = {*images_of(one.train), *images_of(two.train), *images_of(two.val)}
    assert moved == set(range(30)) - set(measured)
    assert set(images_of(two.val)) <= set(images_of(one.train))


def test_select_and_statistics_are_not_augmented_train_and_val_are():
    data = made([20, 20], augment={"crop": 1, "flip": False, "cutout": 0})
    roles = data.loaders(5, one_level=False, seed=0)

    def whole(loader) -> bool:  # every image of one colour, as it was
        return all((x == x[:, :, :1, :1]).all() for x, _ in loader)

    assert whole(roles.select)
    assert whole(roles.statistics)
    assert not whole(roles.train)
    assert not whole(roles.val)
    assert not whole(data.training(5, 0))
    assert whole(data.training(5, 0, {"crop": 0}))


def test_statistics_are_whole_batches_of_train_always_the_same_and_mixed():
    roles = made([22, 20]).loaders(6, one_level=False, seed=0)
    first, second = ([y.tolist() for _, y in roles.statistics] for _ in range(2))
    assert [len(y) for y in first] == [6, 6, 6]  # of 19 images: 38 are not held out
    assert first == second
    assert all(len(set(y)) == 2 for y in first)
    assert set(images_of(roles.statistics)) <= set(roles.train.index.tolist())


def test_statistics_of_a_set_smaller_than_a_batch():
    roles = made([5, 5], select=0.2).loaders(64, one_level=False, seed=0)
    assert [len(y) for _, y in roles.statistics] == [4]


def test_a5_the_sample_is_one_batch_of_select_with_every_class_in_proportion():
    """Images lie class by class, as in a folder: the first batch would be of one class."""
    data = made([60, 20, 20])
    for one_level in (False, True):
        roles = data.loaders(5, one_level=one_level, seed=0)
        (first, second) = ([y.tolist() for _, y in roles.sample] for _ in range(2))
        assert first == second == [[0, 0, 0, 1, 2]]
        assert set(images_of(roles.sample)) <= set(images_of(roles.select))
        again = data.loaders(5, one_level=one_level, seed=7)
        assert images_of(again.sample) == images_of(roles.sample)
    assert len(images_of(data.loaders(64, one_level=True, seed=0).sample)) == 10  # all there are


def test_training_has_all_images_and_its_own_order():
    data = made([20, 10])
    assert images_of(data.training(6, 0)) == list(range(30))
    assert [len(y) for _, y in data.training(8, 0)] == [8, 8, 8, 6]


def test_the_seed_of_the_run_orders_and_the_seed_of_the_data_splits():
    def train(data_seed: int, seed: int) -> list[int]:
        loader = made([20, 20], seed=data_seed).loaders(5, one_level=False, seed=seed).train
        return [round(float(v)) for x, _ in loader for v in raw(loader, x)[:, 0, 0, 0]]

    assert train(0, 0) == train(0, 0)
    assert train(0, 0) != train(0, 1)
    assert sorted(train(0, 0)) == sorted(train(0, 1)) != sorted(train(1, 0))


def test_mean_and_deviation_come_from_the_training_images():
    data = made([2, 2])  # pixels 0, 1, 2, 3
    torch.testing.assert_close(data.normalise.mean, torch.tensor([1.5 / 255]))
    torch.testing.assert_close(data.normalise.std, torch.tensor([1.25**0.5 / 255]))
    ((x, y),) = data.loaders(4, one_level=True, seed=0).select
    torch.testing.assert_close(raw(data, x)[:, 0, 0, 0], data.images._pixels[:, 0, 0, 0].float()[
        data.split(one_level=True)["select"]])  # fmt: skip
    assert y.tolist() == [0, 1]


def test_nothing_of_a_search_or_of_retraining_reads_the_test_images():
    data = made([20, 20], test=never)
    for one_level in (False, True):
        roles = data.loaders(4, one_level=one_level, seed=0)
        for loader in (roles.train, roles.val, roles.select, roles.statistics):
            images_of(loader) if loader else None
        counts(data, one_level=one_level)
    images_of(data.training(4, 0))
    data.to("cpu").fingerprint()
    assert data.test_reads == 0
    with pytest.raises(AssertionError, match="the test images were read"):
        data.test(4)
    assert data.test_reads == 1


def test_test_images_come_in_order_are_loaded_once_and_every_request_counts():
    loads = []

    def test(shape) -> Images:
        loads.append(1)
        pixels = torch.arange(100, 105).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
        return Images(pixels, torch.tensor([0, 1, 1, 0, 1]))

    data = made([20, 20], test=test)
    for reads in (1, 2):
        loader = data.test(2)
        assert data.test_reads == reads
        assert [len(y) for _, y in loader] == [2, 2, 1]
        assert [v for x, _ in loader for v in raw(data, x)[:, 0, 0, 0].round().tolist()] == [
            100, 101, 102, 103, 104,
        ]  # fmt: skip
    assert len(loads) == 1
    assert counts(data, one_level=False)["test"] == {"class0": 2, "class1": 3}


def test_copies_of_training_images_in_the_test_set_are_told(caplog):
    copies = Images(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(3).long())
    made([20, 20], test=lambda _: copies).test(2)
    assert "3 images of 'test' are exact copies of training images" in caplog.text


def test_c3_the_remedy_for_too_few_held_out_images_is_one_that_helps():
    message = "made: 1 of 3 images for role 'select', expected 2 or more; add images: every class"
    with pytest.raises(DataError, match=message):
        made([2, 1]).loaders(2, one_level=False, seed=0)
    with pytest.raises(DataError, match=r"'val', .*; add images, or lower data\.split"):
        made([30, 1], split=0.97).loaders(2, one_level=False, seed=0)


def test_a_set_that_cannot_be_searched_is_refused():
    with pytest.raises(DataError, match="made: 1 class, expected at least 2"):
        made([4])
    with pytest.raises(DataError, match="made: class 'class1' has no training image, expected 1"):
        made([4, 0, 2])
    message = "made: 1 of 6 images for role 'val', expected 2 or more; add images, .*data.split"
    with pytest.raises(DataError, match=message):
        made([4, 2]).loaders(2, one_level=False, seed=0)
    message = "made: 1 of 10 images for role 'select', .*raise data.select"
    with pytest.raises(DataError, match=message):
        made([9, 1]).loaders(2, one_level=True, seed=0)
    with pytest.raises(ValueError, match=r"data\.augment\.crop: 2 could blank a whole 2x2 image"):
        made([4, 4], augment={"crop": 2, "flip": False, "cutout": 0})
    with pytest.raises(ValueError, match=r"data\.augment\.cutout: 16 could blank"):
        made([4, 4]).training(2, 0, {"cutout": 16})


def test_fingerprint_follows_pixels_labels_classes_and_nothing_of_the_run():
    data = made([4, 4])
    before = data.fingerprint()
    assert len(before) == 64
    assert made([4, 4], seed=5, split=0.3).to("cpu").fingerprint() == before
    pixels, labels = next(data.images.batches([torch.arange(8)]))
    other_pixel, other_label = pixels.clone(), labels.clone()
    other_pixel[3, 0, 1, 1] += 1
    other_label[3] = 1

    def of(pixels, labels, names=("class0", "class1"), test=b"") -> str:
        images, settings = Images(pixels, labels), Settings(**COMMON)
        return Data("x", names, images, never, settings, test_identity=test).fingerprint()

    assert of(pixels, labels) == before
    others = [
        of(other_pixel, labels),
        of(pixels, other_label),
        of(pixels, labels, ("class0", "b")),
        of(pixels, labels, test=b"x"),
        of(pixels.reshape(8, 1, 1, 4), labels),
    ]
    assert len({before, *others}) == 6


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_yaml_lists_exactly_the_settings_of_its_function(path):
    config = yaml.safe_load(path.read_text())
    signature = inspect.signature(get_method(config.pop("_target_")))
    assert list(config) == list(signature.parameters)
    assert {"root", "limit", "split", "select", "augment", "seed"} <= set(config)
    assert all(p.default is p.empty for p in signature.parameters.values())


def test_all_eight_sets_have_a_yaml():
    assert [path.stem for path in CONFIGS] == [
        "cifar10", "cifar100", "digits", "fashionmnist", "folder", "svhn", "synthetic",
        "text",
    ]  # fmt: skip


def test_digits_are_those_that_scikit_learn_loads():
    from sklearn.datasets import load_digits  # takes seconds to import

    images, labels = module._digits()
    found = load_digits()
    assert np.array_equal(images, found.images)
    assert np.array_equal(labels, found.target)


def test_digits_by_their_known_numbers():
    data = digits(None, 0.3, **COMMON)
    assert data.input_shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    found = counts(data, one_level=False)
    assert sum(found["train"].values()) == sum(found["val"].values()) == 566  # of 1132
    assert sum(found["select"].values()) == 126  # of 1258
    assert sum(counts(data, one_level=True)["train"].values()) == 1132  # 1132.2
    loader = data.training(32, 0)
    values = torch.cat([raw(data, x).round().flatten() for x, _ in loader]).unique().tolist()
    assert values == [round(v * 255 / 16) for v in range(17)]
    test = data.test(100)
    assert len(test.index) == 539  # round(0.3 * 1797)
    # scikit-learn's classes have 178 182 177 183 181 182 181 179 174 180 images
    assert counts(data, one_level=False)["test"]["3"] == 55
    assert torch.equal(
        digits(None, 0.3, **COMMON | {"seed": 9}).test(539).images.labels, test.images.labels
    )
    with pytest.raises(ValueError, match=r"^test_share: expected .*, found 1\.5"):
        digits(None, 1.5, **COMMON)


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_synthetic_images_of_any_shape(channels):
    data = toy(channels=channels, image_size=[5, 9], classes=2)
    assert data.input_shape == (channels, 5, 9)
    ((x, y),) = data.test(100)
    assert x.shape == (40, channels, 5, 9)
    assert torch.bincount(y).tolist() == [20, 20]


def test_synthetic_images_are_the_same_for_a_seed_and_can_be_told_apart():
    data = toy(size=400)
    assert data.fingerprint() == toy(size=400).fingerprint() != toy(size=400, seed=1).fingerprint()
    (x, y), (x_test, y_test) = next(iter(data.training(400, 0))), next(iter(data.test(400)))
    assert not torch.equal(x.sort(0)[0], x_test.sort(0)[0])
    means = torch.stack([x[y == k].mean(0) for k in range(4)]).flatten(1)
    found = torch.cdist(x_test.flatten(1), means).argmin(1)
    assert (found == y_test).float().mean() > 0.95


def test_synthetic_sets_of_many_or_too_few_classes():
    assert len(toy(classes=1000, size=2000).classes) == 1000
    with pytest.raises(DataError, match="synthetic: 1 class, expected at least 2"):
        toy(classes=1)
    with pytest.raises(ValueError, match=r"data.size: 3 images for 4 classes"):
        toy(size=3)
    with pytest.raises(ValueError, match=r"^size: expected a whole number of at least 1, found 0"):
        toy(size=0)


def test_folder_by_hand(tmp_path):
    root = tree(tmp_path, {"train": {"cat": 4, "dog": 6}, "test": {"cat": 1, "dog": 2}})
    data = folder(str(root), **FOLDER)
    assert (data.name, data.classes, data.input_shape) == ("folder", ("cat", "dog"), (1, 4, 4))
    found = counts(data, one_level=False)
    assert found["select"] == {"cat": 1, "dog": 1}
    assert found["train"] == {"cat": 2, "dog": 2}  # of 3 and 5, half: 1.5 and 2.5
    assert found["val"] == {"cat": 1, "dog": 3}
    assert images_of(data.training(5, 0)) == list(range(10))
    assert images_of(data.test(2)) == [10, 11, 12]
    assert data.skipped == 0


def test_folder_with_val_holds_it_out_in_both_kinds_of_search(tmp_path, caplog):
    root = tree(
        tmp_path,
        {"train": {"cat": 2, "dog": 3}, "test": {"cat": 1}, "val": {"cat": 3, "dog": 4}},
    )
    data = folder(str(root), **FOLDER)
    one, two = (data.loaders(5, one_level=one_level, seed=0) for one_level in (True, False))
    assert images_of(one.train) == images_of(two.train) == [0, 1, 2, 3, 4]
    assert images_of(one.select) == images_of(two.select)
    assert sorted(images_of(two.select) + images_of(two.val)) == list(range(6, 13))
    assert counts(data, one_level=True)["select"] == {"cat": 1, "dog": 2}
    assert one.val is None
    assert images_of(data.training(8, 0)) == [0, 1, 2, 3, 4, *range(6, 13)]
    assert "copies" not in caplog.text
    (root / "val" / "cat" / "0.png").write_bytes((root / "train" / "cat" / "0.png").read_bytes())
    folder(str(root), **FOLDER)
    assert "1 images of 'val' are exact copies of training images" in caplog.text


def test_folder_limit_counts_train_and_val_together(tmp_path):
    root = tree(
        tmp_path,
        {"train": {"cat": 8, "dog": 8}, "test": {"cat": 1}, "val": {"cat": 4, "dog": 4}},
    )
    data = folder(str(root), **FOLDER | {"limit": 12})
    found = counts(data, one_level=False)
    assert found["train"] == {"cat": 4, "dog": 4}
    assert found["val"] == found["select"] == {"cat": 1, "dog": 1}


def test_folder_does_not_read_test_and_its_fingerprint_sees_it_by_size(tmp_path):
    root = tree(tmp_path, {"train": {"cat": 4, "dog": 6}, "test": {"cat": 1, "dog": 2}})
    broken = root / "test" / "cat" / "0.png"
    broken.write_bytes(b"not an image")
    data = folder(str(root), **FOLDER)
    images_of(data.loaders(4, one_level=False, seed=0).train)
    before = data.fingerprint()
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read: .*test/cat/0.png"):
        data.test(2)
    broken.write_bytes(b"not an image, longer")
    assert folder(str(root), **FOLDER).fingerprint() != before


def test_folder_on_disk_gives_the_same_batches(tmp_path):
    root = tree(tmp_path, {"train": {"cat": 9, "dog": 9}, "test": {"cat": 2}})
    settings = FOLDER | {"augment": {"crop": 2, "flip": True, "cutout": 2}}
    memory = folder(str(root), **settings)
    disk = folder(str(root), **settings | {"memory_mb": 0, "workers": 1})
    assert memory.preprocessing == disk.preprocessing
    pairs = zip(memory.training(4, 0), disk.training(4, 0), strict=True)
    assert all(
        torch.equal(x, x_disk) and torch.equal(y, y_disk) for (x, y), (x_disk, y_disk) in pairs
    )
    assert [y.tolist() for _, y in disk.test(5)] == [[0, 0]]
    first = disk.training(4, 0)
    next(iter(first))
    resumed = disk.training(4, 0)
    resumed.load_state_dict(first.state_dict())
    expected = [x for x, _ in memory.training(4, 0)][1:]
    assert all(torch.equal(x, y) for (x, _), y in zip(resumed, expected, strict=True))


def stub(count: int, **attributes):
    """Stands for a class of torchvision.datasets: 2 classes, `count` images a part."""

    class Stub:
        def __init__(self, root, train=True, split=None, download=False):
            part = split or ("train" if train else "test")
            if part == "test" and attributes.get("untouchable"):
                raise LookupError("the test images were read")
            if download:
                attributes["fetch"](Path(root))
            if not (Path(root) / "cifar-10-batches-py").exists():
                raise RuntimeError("Dataset not found or corrupted. You can use download=True")
            self.data = np.zeros((count, 2, 4, 3), np.uint8)  # (N, H, W, C)
            self.data[..., 1] = 51
            self.targets, self.classes = [0, 1] * (count // 2), ["cat", "dog"]

    return Stub


def cifar10(root: Path, **changes) -> Data:
    settings = {"dataset": "CIFAR10", "root": str(root), "download": False, **COMMON}
    return module.torchvision_set(**settings | changes)


def test_torchvision_images_are_turned_and_normalised_as_in_darts(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", stub(8))
    (tmp_path / "cifar-10-batches-py").mkdir()
    data = cifar10(tmp_path)
    assert (data.name, data.classes, data.input_shape) == ("cifar10", ("cat", "dog"), (3, 2, 4))
    ((x, y),) = data.test(8)
    assert y.tolist() == [0, 1] * 4
    expected = [-0.49139968 / 0.24703233, (0.2 - 0.48215827) / 0.24348505, -0.44653124 / 0.26158768]
    torch.testing.assert_close(x[0, :, 1, 3], torch.tensor(expected))


def test_torchvision_test_images_wait_until_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", stub(8, untouchable=True))
    (tmp_path / "cifar-10-batches-py").mkdir()
    data = cifar10(tmp_path)
    images_of(data.loaders(2, one_level=False, seed=0).train)
    with pytest.raises(LookupError, match="the test images were read"):
        data.test(2)


def test_grey_torchvision_images_get_a_channel(tmp_path, monkeypatch):
    class Grey:
        def __init__(self, root, train):
            self.data, self.targets = (
                torch.arange(24).reshape(4, 2, 3).byte(),
                torch.tensor([0, 1, 0, 1]),
            )
            self.classes = ["a", "b"]

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", Grey)
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    data = cifar10(tmp_path, dataset="FashionMNIST")
    assert data.input_shape == (1, 2, 3)
    torch.testing.assert_close(data.normalise.mean, torch.tensor([11.5 / 255]))


def test_svhn_has_parts_by_name_and_misses_its_test_file_before_the_search(tmp_path, monkeypatch):
    class Svhn:
        def __init__(self, root, split):
            assert split == "train"
            self.data = np.arange(20 * 3 * 2 * 2, dtype=np.uint8).reshape(20, 3, 2, 2)
            self.labels = np.arange(20) % 10

    monkeypatch.setattr("torchvision.datasets.SVHN", Svhn)
    (tmp_path / "train_32x32.mat").touch()
    with pytest.raises(DataError, match=r"SVHN is missing or damaged .*test_32x32.mat"):
        cifar10(tmp_path, dataset="SVHN")
    (tmp_path / "test_32x32.mat").touch()
    data = cifar10(tmp_path, dataset="SVHN")
    assert data.input_shape == (3, 2, 2)
    assert data.classes == tuple("0123456789")


def test_missing_files_say_how_to_get_them(tmp_path):
    for dataset in module.TORCHVISION:
        message = (
            f"{dataset} is missing or damaged .*expected .*{tmp_path}/.*data.download=true, or put"
        )
        with pytest.raises(DataError, match=message) as caught:
            cifar10(tmp_path, dataset=dataset)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"data\.root: null, expected a folder for CIFAR10"):
        module.torchvision_set("CIFAR10", None, False, **COMMON)
    with pytest.raises(
        ValueError, match=r"^dataset: expected one of CIFAR10, CIFAR100, .* found 'MNIST'"
    ):
        cifar10(tmp_path, dataset="MNIST")


def test_damaged_files_are_missing_files(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(
        DataError, match=r"CIFAR10 is missing or damaged \(Dataset not found or corr"
    ):
        cifar10(tmp_path)


def test_download_fetches_into_the_root(tmp_path, monkeypatch):
    def fetch(folder: Path) -> None:
        (folder / "cifar-10-batches-py").mkdir(exist_ok=True)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", stub(8, fetch=fetch))
    assert cifar10(tmp_path / "new", download=True).classes == ("cat", "dog")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["cifar-10-batches-py"]


def test_download_that_fails_is_tried_three_times_and_leaves_nothing(tmp_path, monkeypatch):
    tries = []

    def fetch(folder: Path) -> None:
        tries.append((folder / "partial.tar.gz").write_bytes(b"half"))
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", stub(8, fetch=fetch))
    message = r"download of CIFAR10 failed \(no network\), expected a connection; try again, or put"
    with pytest.raises(DataError, match=message):
        cifar10(tmp_path, download=True)
    assert len(tries) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_b5_the_split_follows_the_seed_unless_it_has_its_own():
    def split(*overrides: str) -> list[int]:
        data = make(composed("data=digits", *overrides).data)
        return data.split(one_level=False)["train"].tolist()

    assert split("seed=1") != split("seed=2")
    assert split("seed=1", "data.seed=7") == split("seed=2", "data.seed=7")
    assert split("seed=7") == split("data.seed=7")
