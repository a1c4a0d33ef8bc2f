"""The pruning rule: known answers of the sheet goldnas.md, section 9, tests 4, 5 and 7."""

import copy
from collections.abc import Sequence

import pytest
import torch
from test_every_config import composed, make
from torch import Tensor

from search_spaces.cells import Cell, complete_edges
from search_spaces.goldnas import CANDIDATES, goldnas
from search_spaces.space import Space
from strategies.pruning.release import dead_weights
from strategies.pruning.share_threshold import ShareThreshold, survive
from strategies.strategy import Strategy
from supernets.mixed_op import MixedOp
from supernets.network import Network, supernet

PAIR = ["skip_connect", "sep_conv_3x3"]
LIMITS = dict(minimum=0.06, maximum=0.3)  # of the mean; .01 and .05 of the sum of six


def cut(
    cell: Cell, gates: Sequence[Sequence[float]], most: int = 4, at_once: int = 99, **limits: float
) -> set:
    """(edge, candidate) of what does not survive."""
    table = torch.tensor(gates)
    left = survive(
        {"g": cell},
        {"g": table},
        {"g": torch.ones_like(table, dtype=torch.bool)},
        **(LIMITS | limits),
        most=most,
        at_once=at_once,
    )
    return {(cell.edges[e].name, o) for e, o in (~left["g"]).nonzero().tolist()}


def three_inputs() -> Cell:
    """One node that three states enter: 6 candidates."""
    return Cell(3, 1, complete_edges(3, 1, PAIR), keep=2)


def test_goldnas_4_hand_table():
    """.03 of the mean goes by (a), .1005 and .164 by (b); .125 x 3 / .935 is .40, and stays."""
    gates = [[0.005, 0.3], [0.02, 0.125], [0.04, 0.51]]
    assert cut(three_inputs(), gates) == {("0-3", 0), ("1-3", 0), ("2-3", 0)}


def test_goldnas_4_rule_b_never_cuts_more_than_it_may():
    gates = [[0.03, 0.3], [0.02, 0.31], [0.04, 0.3]]  # shares .18, .12, .24 of the mean
    assert cut(three_inputs(), gates, most=0) == set()
    assert cut(three_inputs(), gates, most=1) == {("1-3", 0)}
    assert cut(three_inputs(), gates, most=2) == {("1-3", 0), ("0-3", 0)}
    assert len(cut(three_inputs(), gates, most=99)) == 3


def test_goldnas_4_rule_a_has_no_such_limit():
    assert len(cut(three_inputs(), [[0.001, 0.9], [0.002, 0.003], [0.004, 0.005]], most=0)) == 5


def test_goldnas_4_sums_are_taken_anew_after_each_cut():
    """.0598 and .0600 of the mean of six: the second is .0505 of that of the five that are left."""
    gates = [[0.00997, 0.01], [0.3, 0.2], [0.24, 0.24003]]
    assert cut(three_inputs(), gates, minimum=0.0599, most=0) == {("0-3", 0), ("0-3", 1)}
    assert cut(three_inputs(), gates, minimum=0.05, most=0) == set()
    # .048 and .06 of .8 x 6: .29 goes, .06 x 5 / .752 = .399 would be .45 of six
    gates = [[0.048, 0.06], [0.192, 0.2], [0.2, 0.3]]
    assert cut(three_inputs(), gates, most=9) == {("0-3", 0)}


def test_goldnas_4_a_share_means_the_same_whatever_the_number_of_candidates():
    """A gate of .4 of the mean, beside 3 and beside 69 others; of the sum it is .1 and .006."""
    for count in (4, 70):
        cell = Cell(1, 1, complete_edges(1, 1, [f"op{o}" for o in range(count)]), keep=1)
        gates = [[0.5] * count]
        gates[0][2] = 0.4 * 0.5 * (count - 1) / (count - 0.4)
        assert cut(cell, gates, maximum=0.41) == {("0-1", 2)}
        assert cut(cell, gates, maximum=0.39) == set()
        assert cut(cell, [[0.5] * count], minimum=0.99, maximum=0.99) == set()


def test_b1_no_more_goes_at_once_than_may():
    gates = [[0.001, 0.9], [0.002, 0.003], [0.004, 0.005]]
    assert cut(three_inputs(), gates, at_once=2) == {("0-3", 0), ("1-3", 0)}
    assert cut(three_inputs(), gates, at_once=0) == set()


@pytest.mark.parametrize(("gradual", "goes"), [(0.1, 3), (0.01, 1), (1.0, 27)])
def test_b1_an_epoch_cuts_a_share_of_what_is_alive(gradual: float, goes: int):
    """30 candidates, of which all but a node's last would go."""
    setting = f"strategy.pruning.gradual={gradual}"
    net, strategy = ready(setting, "strategy.pruning.minimum=0.99", "strategy.pruning.maximum=0.99")
    for alphas in strategy.alphas.values():
        alphas.data.uniform_(-12.0, -6.0)
    strategy.epoch_end(net, None, 0.5)
    gone = sum(int((~table).sum()) for table in strategy.alive.values())
    assert gone == goes if gradual < 1 else gone >= 20


def test_goldnas_4_of_equal_shares_the_first_goes():
    gates = [[0.5, 0.06], [0.06, 0.46], [0.06, 0.46]]  # .22 of the mean each
    assert cut(three_inputs(), gates, most=1) == {("0-3", 1)}
    assert cut(three_inputs(), gates, most=2) == {("0-3", 1), ("1-3", 0)}


def test_goldnas_4_an_op_on_any_edge_can_be_chosen():
    """Bug 1 of the public code: only edges from the first state were ever cut."""
    cell = Cell(2, 4, complete_edges(2, 4, PAIR), keep=2)
    for e, edge in enumerate(cell.edges):
        for o in range(2):
            gates = torch.full((14, 2), 0.9)
            gates[e, o] = 0.004
            assert cut(cell, gates.tolist(), most=1) == {(edge.name, o)}, edge


def test_goldnas_4_the_smallest_of_all_cells_goes_first():
    cells = {"a": three_inputs(), "b": three_inputs()}
    gates = {
        "a": torch.tensor([[0.03, 0.3], [0.3, 0.3], [0.3, 0.3]]),
        "b": torch.tensor([[0.9, 0.9], [0.9, 0.9], [0.9, 0.08]]),
    }
    alive = {name: torch.ones(3, 2, dtype=torch.bool) for name in cells}
    left = survive(cells, gates, alive, **LIMITS, most=1, at_once=9)
    assert [int((~table).sum()) for table in left.values()] == [0, 1]
    assert not left["b"][2, 1]


def test_goldnas_4_what_is_dead_counts_for_nothing():
    gates = torch.tensor([[0.9, 0.0], [0.05, 0.9], [0.0, 0.0]])
    alive = {"g": torch.tensor([[True, False], [True, True], [False, False]])}
    left = survive({"g": three_inputs()}, {"g": gates}, alive, **LIMITS, most=4, at_once=9)
    assert torch.equal(left["g"], torch.tensor([[True, False], [False, True], [False, False]]))


@pytest.mark.parametrize("gate", [0.5, 1e-30, 0.0])
def test_goldnas_5_a_nodes_last_op_always_stays(gate: float):
    cell = Cell(2, 4, complete_edges(2, 4, PAIR), keep=2)
    gates = torch.rand(14, 2) * gate
    left = survive(
        {"g": cell},
        {"g": gates},
        {"g": torch.ones(14, 2, dtype=torch.bool)},
        minimum=0.99,
        maximum=0.99,
        most=99,
        at_once=99,
    )["g"]
    assert [int(left[cell.into(node)].sum()) for node in cell.targets] == [1, 1, 1, 1]


def test_a_share_outside_its_range_is_refused():
    for wrong in (dict(minimum=0.4), dict(maximum=1.0), dict(minimum=-0.1), dict(most=-1)):
        with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}: expected"):
            ShareThreshold(**(LIMITS | dict(most=1.0, gradual=0.1) | wrong))
    for gradual in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"^gradual: expected a number above 0 and at most 1"):
            ShareThreshold(**LIMITS, most=1.0, gradual=gradual)


def ready(*overrides: str, name: str = "goldnas") -> tuple[Network, Strategy]:
    torch.manual_seed(0)
    space = goldnas(
        layers=3, nodes=2, channels=4, candidates=PAIR, input_shape=(3, 8, 8), classes=3
    )
    strategy = make(
        composed(f"strategy={name}", "strategy.warmup=0", *overrides).strategy, space=space
    )
    net = supernet(space, strategy.mixed_op)
    strategy.setup(net, torch.device("cpu"))
    return net, strategy


def weaken(strategy: Strategy, group: str, edge: int, candidate: int) -> None:
    with torch.no_grad():
        strategy.alphas[group][edge, candidate] = -12.0


def steps(net: Network, strategy: Strategy, count: int = 2) -> None:
    batch = torch.randn(4, 3, 8, 8), torch.randint(3, (4,))
    for _ in range(count):
        strategy.step(net, batch, None, progress=0.1, move_alphas=True)


def test_goldnas_7_output_stays_when_an_op_of_gate_0_goes():
    mixed, x = MixedOp(list(CANDIDATES.values()), 4, 4, 1), torch.randn(4, 4, 8, 8)
    gates = torch.tensor([0.7, 0.0])
    torch.testing.assert_close(mixed(x, gates, [0]), mixed(x, gates, [0, 1]), rtol=0, atol=1e-6)


def test_goldnas_7_what_is_cut_leaves_the_optimiser_and_never_moves_again():
    net, strategy = ready()
    steps(net, strategy)
    for e in (1, 4):
        weaken(strategy, "00_normal", e, 1)
    gone = [
        weight
        for name in ("1-2", "2-3")
        for weight in net.layers[0].edges[name].ops[1].parameters()
    ]
    assert all(weight in strategy.weight_optimizer.state for weight in gone)

    strategy.epoch_end(net, None, 0.01)

    assert not strategy.alive["00_normal"][[1, 4], 1].any()
    assert sum(int((~table).sum()) for table in strategy.alive.values()) == 2
    assert [id(w) for w in dead_weights(net, strategy.alive)] == [id(w) for w in gone]
    held = [p for group in strategy.weight_optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in net.parameters()} - {id(w) for w in gone}
    assert not any(weight in strategy.weight_optimizer.state for weight in gone)
    before = [weight.detach().clone() for weight in gone]
    alpha = strategy.alphas["00_normal"].detach().clone()
    steps(net, strategy, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, gone, strict=True))
    assert all(weight.grad is None for weight in gone)
    moved = strategy.alphas["00_normal"].detach() != alpha
    assert moved[strategy.alive["00_normal"]].all()
    assert strategy.gates()["00_normal"][1, 1] == 0


def test_goldnas_7_pruning_survives_a_checkpoint():
    net, strategy = ready()
    steps(net, strategy)
    weaken(strategy, "01_reduce", 0, 1)
    strategy.epoch_end(net, None, 0.01)
    steps(net, strategy)
    state, weights = copy.deepcopy((strategy.state_dict(), net.state_dict()))

    other_net, other = ready()
    other_net.load_state_dict(weights)
    other.load_state_dict(state)
    assert all(torch.equal(table, other.alive[n]) for n, table in strategy.alive.items())
    torch.manual_seed(1)
    steps(net, strategy)
    strategy.epoch_end(net, None, 0.02)
    torch.manual_seed(1)
    steps(other_net, other)
    other.epoch_end(other_net, None, 0.02)
    for ours, theirs in zip(other_net.parameters(), net.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert other.architecture() == strategy.architecture()
    ours, theirs = (one.losses["gate_cost"].state_dict() for one in (other, strategy))
    assert ours == theirs


def test_nothing_is_pruned_before_alphas_move():
    """Of 3 epochs a warm-up of a half is 2, as 1.5 is rounded."""
    net, strategy = ready()
    weaken(strategy, "00_normal", 1, 1)
    strategy.warmup, before = 0.5, strategy.alive
    strategy.epoch_start(1, 3)
    strategy.epoch_end(net, None, 2 / 3)
    assert all(torch.equal(table, before[name]) for name, table in strategy.alive.items())
    strategy.epoch_start(2, 3)
    strategy.epoch_end(net, None, 0.99)
    assert not strategy.alive["00_normal"][1, 1]


def test_none_is_dead_from_the_start(toy_darts: Space):
    strategy = make(composed("strategy=goldnas").strategy, space=toy_darts)
    strategy.setup(supernet(toy_darts, strategy.mixed_op), torch.device("cpu"))
    for name, cell in toy_darts.groups.items():
        for edge, alive in zip(cell.edges, strategy.alive[name], strict=True):
            assert [bool(on) for on in alive] == [n != "none" for n in edge.names]


def test_what_the_second_order_unrolls_may_be_pruned():
    net, strategy = ready("strategy/pruning=share_threshold", name="darts_second_order")
    cell = strategy.space.groups["00_normal"]
    weaken(strategy, "00_normal", 0, 1)
    for e in cell.into(2):  # under softmax a share is that of its edge, over all edges
        strategy.alphas["00_normal"].data[e, 0] = 3.0
    strategy.epoch_end(net, None, 0.01)
    assert not strategy.alive["00_normal"][0, 1]
    batch: tuple[Tensor, Tensor] = torch.randn(4, 3, 8, 8), torch.randint(3, (4,))
    assert torch.isfinite(
        strategy.step(net, batch, batch, progress=0.1, move_alphas=True)["val_loss"]
    )
