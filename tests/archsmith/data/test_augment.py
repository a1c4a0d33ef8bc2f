import pytest
import torch

from archsmith.data.augment import Augment, crop, cutout, flip, generator
from archsmith.data.loader import Images, Loader, Normalise, pixel_counts
from archsmith.errors import CheckpointError

RAW = Normalise(torch.zeros(1), torch.full((1,), 1 / 255))  # x equals the pixel values
AUGMENT = Augment(crop=1, flip=True, cutout=2)


def numbered(count: int) -> Images:
    """Image i is 1 x 4 x 4, all pixels i; its label is i."""
    labels = torch.arange(count)
    return Images(labels.to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).clone(), labels)


def training(count: int, batch_size: int, **kwargs) -> Loader:
    index = torch.arange(count)
    return Loader(numbered(count), index, batch_size, "train", RAW, training=True, **kwargs)


def batches(loader: Loader) -> list[tuple[list[float], list[int]]]:
    return [(x.flatten().tolist(), y.tolist()) for x, y in loader]


def test_crop_takes_the_window_at_each_offset_of_the_padded_image():
    image = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)[None, None].repeat(3, 1, 1, 1)
    offsets = torch.tensor([[1, 1], [0, 0], [2, 1]])  # centre, up and left, down
    expected = [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 1, 2]], [[4, 5, 6], [0, 0, 0]]]
    assert crop(image, offsets, 1)[:, 0].tolist() == expected


def test_crop_treats_channels_alike():
    images = torch.arange(8, dtype=torch.uint8).reshape(1, 2, 2, 2)
    assert crop(images, torch.tensor([[1, 2]]), 1).tolist() == [
        [[[1, 0], [3, 0]], [[5, 0], [7, 0]]]
    ]


def test_flip_mirrors_only_the_chosen_images():
    images = torch.tensor([[1, 2, 3]]).repeat(2, 1)[:, None, None, :]
    flipped = flip(images, torch.tensor([True, False]))
    assert flipped.flatten(1).tolist() == [[3, 2, 1], [1, 2, 3]]


def test_cutout_zeroes_a_square_clipped_at_the_borders():
    centres = torch.tensor([[2, 2], [0, 0], [4, 4]])
    x = cutout(torch.ones(3, 2, 5, 5), centres, 2)
    assert (x == 0).sum((1, 2, 3)).tolist() == [8, 2, 8]  # 2 channels of 4, 1 and 4 pixels
    assert (x[0, 0] == 0).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert (x[1, 0] == 0).nonzero().tolist() == [[0, 0]]


@pytest.mark.parametrize(("size", "area"), [(16, 8 * 8), (5, 3 * 3), (1, 1)])
def test_cutout_area_in_the_corner(size, area):
    x = cutout(torch.ones(1, 1, 32, 32), torch.tensor([[0, 0]]), size)
    assert int((x == 0).sum()) == area


def test_cutout_in_the_middle_has_its_full_size_even_or_odd():
    for size in (16, 5):
        x = cutout(torch.ones(1, 1, 32, 32), torch.tensor([[16, 16]]), size)
        assert int((x == 0).sum()) == size**2


def test_draws_reach_every_position_and_no_other():
    draws = AUGMENT.draw(4000, (1, 4, 6), generator("x"))
    ranges = [3, 3, 2, 4, 6]  # offsets 0 to 2 * crop, flip, rows, columns
    assert [sorted(set(column.tolist())) for column in draws.T] == [list(range(n)) for n in ranges]
    assert len(torch.unique(draws, dim=0)) == 3 * 3 * 2 * 4 * 6
    assert draws[:, 2].double().mean() == pytest.approx(0.5, abs=0.04)  # 5 standard deviations


def test_draws_do_not_depend_on_what_is_switched_on():
    off = Augment(crop=1, flip=False, cutout=0)
    assert torch.equal(
        AUGMENT.draw(8, (1, 4, 4), generator(1)), off.draw(8, (1, 4, 4), generator(1))
    )


def test_cutout_is_zero_after_normalisation_and_the_crop_black_before_it():
    images = Images(torch.full((64, 1, 4, 4), 255, dtype=torch.uint8), torch.arange(64))
    half = Normalise(torch.tensor([0.5]), torch.tensor([0.5]))  # white is 1, black is -1
    loader = Loader(
        images, torch.arange(64), 64, "train", half, training=True, augment=Augment(1, False, 2)
    )
    ((x, _),) = loader
    assert sorted(set(x.flatten().tolist())) == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"crop": -1, "flip": True, "cutout": 0},
            r"data\.augment\.crop: expected a whole number of at least 0, found -1",
        ),
        (
            {"crop": 1.5, "flip": True, "cutout": 0},
            r"data\.augment\.crop: expected a whole number of at least 0, found 1\.5",
        ),
        (
            {"crop": 0, "flip": 1, "cutout": 0},
            r"data\.augment\.flip: expected true or false, found 1",
        ),
        ({"crop": 0, "flip": True}, "crop, flip; expected exactly crop, flip, cutout"),
        ({"crop": 0, "flip": True, "cutout": 0, "jitter": 1}, "jitter; expected exactly"),
    ],
)
def test_wrong_augmentation_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment.of(settings)


def test_augmentation_that_could_blank_the_image_is_refused():
    with pytest.raises(
        ValueError, match=r"cutout: 8 could blank a whole 8x20 image; set it below 8"
    ):
        Augment(0, False, 8).check((3, 8, 20))
    Augment(7, False, 7).check((3, 8, 20))


def test_histogram_counts_per_channel():
    pixels = torch.tensor([[[[0, 0]], [[7, 7]]], [[[0, 255]], [[7, 7]]]], dtype=torch.uint8)
    counts = pixel_counts(pixels)
    assert counts.shape == (2, 256)
    assert counts[0, [0, 255]].tolist() == [3, 1]
    assert counts[1, 7] == 4
    assert counts.sum() == 8


def test_normalise_by_hand_and_a_constant_channel_is_only_centred():
    pixels = torch.tensor([[[[0, 255]], [[7, 7]]]], dtype=torch.uint8)
    normalise = Normalise.fit(pixel_counts(pixels))
    torch.testing.assert_close(normalise.mean, torch.tensor([0.5, 7 / 255]))
    torch.testing.assert_close(normalise.std, torch.tensor([0.5, 1.0]))
    assert normalise(pixels).tolist() == [[[[-1.0, 1.0]], [[0.0, 0.0]]]]


@pytest.mark.parametrize("value", [1, 77, 254])
def test_a_constant_channel_never_gets_a_tiny_deviation(value):
    pixels = torch.full((13, 1, 7, 3), value, dtype=torch.uint8)
    assert Normalise.fit(pixel_counts(pixels)).std == 1


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 4]),  # one image alone is left out
        (8, 4, [4, 4]),
        (3, 4, [3]),  # smaller than a batch: one smaller batch
    ],
)
def test_sizes_of_training_batches(count, batch_size, sizes):
    loader = training(count, batch_size)
    assert len(loader) == len(sizes)
    assert [len(y) for _, y in loader] == sizes


def test_without_training_every_pass_has_all_images_in_order_again():
    loader = Loader(numbered(5), torch.tensor([4, 0, 2, 1, 3]), 2, "select", RAW)
    assert len(loader) == 3
    next(iter(loader))
    assert [y.tolist() for _, y in loader] == [[4, 0], [2, 1], [3]]
    x, y = next(iter(loader))
    assert (x.dtype, y.dtype, tuple(x.shape)) == (torch.float32, torch.int64, (2, 1, 4, 4))
    assert x[:, 0, 0, 0].round().tolist() == [4.0, 0.0]


def test_an_epoch_holds_every_image_once_and_epochs_differ():
    loader = training(50, 8)
    first, second = batches(loader), batches(loader)
    for epoch in (first, second):
        assert sorted(label for _, y in epoch for label in y) == list(range(50))
    assert first != second
    assert loader.state_dict() == {"epoch": 2, "batch": 0}


def test_same_seed_same_batches_other_seed_or_role_others():
    def order(seed: int, role: str) -> list:
        loader = Loader(
            numbered(50), torch.arange(50), 8, role, RAW, training=True, seed=seed, augment=AUGMENT
        )
        return batches(loader)

    assert order(3, "train") == order(3, "train")
    assert order(3, "train") != order(4, "train")
    assert order(3, "train") != order(3, "val")


@pytest.mark.parametrize("stop", [0, 1, 3, 6])
def test_an_interrupted_epoch_continues_with_the_same_images_and_pixels(stop):
    whole = training(50, 8, seed=1, augment=AUGMENT)
    expected = batches(whole) + batches(whole)

    first = training(50, 8, seed=1, augment=AUGMENT)
    found = []
    for x, y in first if stop else ():
        found.append((x.flatten().tolist(), y.tolist()))
        if len(found) == stop:
            break
    resumed = training(50, 8, seed=1, augment=AUGMENT)
    resumed.load_state_dict(first.state_dict())
    assert resumed.state_dict() == {"epoch": 0, "batch": stop}
    found += batches(resumed)
    assert found == expected[:7]
    assert found + batches(resumed) == expected


def test_the_iterator_itself_continues_where_another_one_stopped():
    loader, expected = training(50, 8), batches(training(50, 8))
    it = iter(loader)
    found = [(x.flatten().tolist(), y.tolist()) for x, y in (next(it), next(it))]
    assert found + batches(loader) == expected


def test_a_loader_repeated_beside_another_goes_on_through_its_epochs():
    def forever(loader: Loader):
        while True:
            yield from loader

    train, val = training(8, 4), training(6, 4)
    found = []
    for _ in range(3):
        found += [y.tolist() for _, (_, y) in zip(train, forever(val), strict=False)]
    whole = training(6, 4)
    assert found == [y for _ in range(3) for _, y in batches(whole)]


def test_the_global_random_stream_is_neither_read_nor_moved():
    loader = training(50, 8, augment=AUGMENT)
    torch.manual_seed(1)
    first, state = batches(loader), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert batches(training(50, 8, augment=AUGMENT)) == first


@pytest.mark.parametrize("state", [{"epoch": 0, "batch": 8}, {"epoch": -1, "batch": 0}, {}])
def test_a_position_the_loader_does_not_have_is_refused(state):
    with pytest.raises(CheckpointError, match=r"'train': .*batch up to 7; keep .*resume=never"):
        training(50, 8).load_state_dict(state)


def test_batch_sizes_too_small_are_refused():
    with pytest.raises(ValueError, match="batch_size: 1 for 'train', expected at least 2"):
        training(4, 1)
    with pytest.raises(ValueError, match="batch_size: 0 for 'select', expected at least 1"):
        Loader(numbered(4), torch.arange(4), 0, "select", RAW)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_the_gpu_equal_those_of_the_cpu_and_make_no_sync():
    expected = [(x, y) for x, y in training(50, 8, augment=AUGMENT)]
    loader = training(50, 8, augment=AUGMENT)
    loader.images.to(torch.device("cuda"))
    found = [(x, y) for x, y in loader]
    for (x, y), (x_cpu, y_cpu) in zip(found, expected, strict=True):
        assert x.is_cuda
        assert y.is_cuda
        torch.testing.assert_close(x.cpu(), x_cpu)
        assert torch.equal(y.cpu(), y_cpu)
    it = iter(loader)
    next(it)
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(it)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_d1_an_image_is_augmented_otherwise_in_every_batch_and_epoch():
    """Equal images, so that whatever differs between batches is their augmentation."""
    same = Images(torch.randint(256, (1, 1, 4, 4), dtype=torch.uint8).repeat(12, 1, 1, 1),
                  torch.zeros(12, dtype=torch.int64))  # fmt: skip
    loader = Loader(same, torch.arange(12), 6, "train", RAW, training=True, augment=AUGMENT)
    seen = [x.flatten().tolist() for _ in range(2) for x, _ in loader]
    assert len(seen) == 4
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    other = Loader(same, torch.arange(12), 6, "val", RAW, training=True, augment=AUGMENT)
    assert next(iter(other))[0].flatten().tolist() not in seen
