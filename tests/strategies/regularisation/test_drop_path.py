"""Drop-path and Cutout that grow: the sheet robustdarts.md, sections 4 and 10."""

import copy

import pytest
import torch
from faults.toys import ToySearch, scramble

from search_spaces.space import Space
from strategies.regularisation.drop_path import DropPath
from supernets.network import CellModule

FIRST_ORDER = "strategy/update=first_order"  # faster


def begun(space: Space, *overrides: str) -> ToySearch:
    toy = ToySearch(space, "rdarts_dp", FIRST_ORDER, *overrides)
    toy.start()
    return toy


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(5, [0.0, 0.1, 0.2, 0.3, 0.4]), (1, [0.0]), (2.5, [0.0, 0.2, 0.4])],
)
def test_robustdarts_6_the_probability_grows_from_0_to_its_largest(
    epochs: float, expected: list[float], toy_darts: Space
):
    toy, found = begun(toy_darts), []
    for epoch in range(len(expected)):
        toy.strategy.epoch_start(epoch, epochs)
        drops = {layer.drop for layer in toy.net.layers if isinstance(layer, CellModule)}
        found += drops
    assert found == pytest.approx(expected)
    assert (found[0], found[-1]) == (expected[0], expected[-1])


def test_cutout_grows_from_no_image_to_every_image():
    torch.manual_seed(0)
    part = DropPath(most=0.0, cutout=0.5)
    x = torch.ones(1000, 2, 8, 8)
    shares = []
    for part.share in (0.0, 0.5, 1.0):
        zeroed = (part.images(x) == 0).flatten(1).sum(1)
        shares.append(float((zeroed > 0).float().mean()))
        assert int(zeroed.max()) <= 2 * 4 * 4  # a square of half the side, in both channels
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.5, abs=0.08)
    assert shares[2] == 1


@pytest.mark.parametrize(("most", "cutout"), [(0.4, 0.0), (0.0, 0.5)])
def test_each_of_both_can_be_off(most: float, cutout: float):
    part = DropPath(most=most, cutout=cutout)
    part.share = 1.0
    x = torch.ones(4, 3, 8, 8)
    assert (part.images(x) is x) == (cutout == 0)


def test_alpha_and_weight_steps_see_disturbed_images(toy_darts: Space, monkeypatch):
    toy, seen = begun(toy_darts), []
    toy.strategy.epoch_start(4, 5)
    monkeypatch.setattr(
        type(toy.strategy.update), "step", lambda *given, **_: seen.extend(given[3:5]) or {}
    )
    batch = torch.ones(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    toy.strategy.step(toy.net, batch, batch, progress=0.9, move_alphas=True)
    (train, _), (val, y) = seen
    assert (train == 0).any(3).any(2).any(1).all()
    assert (val == 0).any(3).any(2).any(1).all()
    assert not torch.equal(train, val)
    assert y is batch[1]
    assert (batch[0] == 1).all()


def test_where_passes_are_captured_the_probability_is_a_tensor(toy_darts: Space):
    """Of another probability above 0 it is the same pass; a Python number makes it another one."""
    toy = begun(toy_darts)

    def constants() -> list[object]:
        found = []
        for epoch in range(3):
            toy.strategy.epoch_start(epoch, 3)
            found.append(toy.strategy.constants())
        return found

    assert len(set(constants())) == 3
    toy.net.drop_probability = torch.zeros(())
    nothing, some, more = constants()
    assert nothing != some == more
    most = toy.strategy.regularisation.most
    assert float(toy.net.drop_probability) == pytest.approx(most)
    assert {id(m.drop) for m in toy.net.modules() if isinstance(m, CellModule)} == {
        id(toy.net.drop_probability)
    }


def test_what_is_dropped_goes_on_where_it_was(toy_darts: Space):
    """Three steps, and the third again from what the second left: the same images are dropped."""
    toy = ToySearch(toy_darts, "rdarts_dp", FIRST_ORDER)
    state = toy.state()
    toy.strategy.epoch_start(1, 2)

    def step() -> list[torch.Tensor]:
        x, y = torch.ones(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        toy.strategy.step(toy.net, (x, y), (x, y), progress=0.5, move_alphas=True)
        tensors = (*toy.strategy.arch_parameters(), *toy.net.parameters())
        return [t.detach().clone() for t in tensors]

    for _ in range(2):
        step()
    saved = copy.deepcopy(state.state_dict())
    expected = step()
    scramble(7)
    state.load_state_dict(saved)
    toy.strategy.epoch_start(1, 2)
    assert all(map(torch.equal, step(), expected))
    state.load_state_dict(saved)
    scramble(7)  # otherwise it would not matter what is drawn
    assert not all(map(torch.equal, step(), expected))


def test_finite_differences_are_refused(toy_darts: Space):
    toy = ToySearch(toy_darts, "rdarts_dp", "strategy.update.hessian=finite_difference")
    with pytest.raises(ValueError, match=r"^regularisation: drops other edges .*hessian to exact"):
        toy.start()
