"""A strategy: alphas, betas, both optimisers, and the ingredients that a YAML combines."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.settings import Count, NotNegative, Positive, Share, checked, setting
from search_spaces.space import Space
from strategies.contracts import (
    DiscretisationRule,
    Ingredient,
    LossTerm,
    Preference,
    Pruning,
    Regularisation,
    Relaxation,
    Schedule,
    Stage,
    Stopping,
    Topology,
    Update,
    check_kind,
    kinds_of,
)
from strategies.discretisation.constrained import Tables, connected, within
from strategies.discretisation.decisions import Structure
from strategies.gradients import Batch, Gradients, eagerly
from strategies.micro_batches import in_parts
from strategies.optimizer_state import load_named_state, named_state
from strategies.shares import every_option, weighed
from supernets import plain_layers
from supernets.mixture import Active, GroupMixture, Mixture, everything_active
from supernets.network import Network

Logits = Callable[[Tensor, Mixture], Tensor]  # a supernet, possibly with other weights
MakeOptimizer = Callable[..., torch.optim.Optimizer]


@checked
@dataclass(eq=False, repr=False, kw_only=True)
class Strategy:
    """Drives one supernet: relaxes alphas to gates, updates weights and alphas, discretises the
    architecture.

    The arguments are ingredients (`strategies.contracts`), or None if a method has none of a kind.

    Args:
        mixed_op: constructor of the module on an edge of the supernet; `supernet(space,
            strategy.mixed_op)`.
        alpha_optimizer, weight_optimizer: `parameters -> torch optimiser`.
        schedule, alpha_schedule: the learning rates of weights and of alphas by epoch; the weights'
            ends at `min_lr`, or at its first rate in a stage that begins below; the alphas' at 0.
        lr_batch: the batch size for which the weights' learning rate and `min_lr` are tuned; for
            other sizes they are scaled linearly. None: no scaling.
        alpha_lr_scale: factor on the learning rate of the alpha optimiser, of any class. The
            papers' rates suit some 20,000 alpha steps; in a search of a few hundred steps, alphas
            would hardly move.
        clip: largest norm of the weight gradient; None for no limit.
        alpha_init: standard deviation of the initial alphas and betas.
        warmup: share of the epochs, of each stage if there are several, in which alphas and betas
            are not updated.

    Raises:
        ValueError: a warm-up outside [0, 1), a negative learning rate or clip, a rate of the
            weights that would rise to `min_lr`, a scale or a batch size that is not positive, or an
            ingredient of the wrong kind.
    """

    space: Space = field(kw_only=False)
    relaxation: Relaxation
    mixed_op: Callable[..., nn.Module]
    topology: Topology | None
    update: Update
    pruning: Pruning | None
    stopping: Stopping | None
    regularisation: Regularisation | None
    losses: Mapping[str, LossTerm]
    discretisation: DiscretisationRule
    alpha_optimizer: torch.optim.Optimizer  # its constructor until `setup`
    weight_optimizer: torch.optim.Optimizer  # likewise
    schedule: Schedule
    alpha_schedule: Schedule
    min_lr: NotNegative
    lr_batch: Count | None
    alpha_lr_scale: Positive
    clip: Positive | None
    alpha_init: float
    warmup: Share
    preference: Preference | None = None

    def __post_init__(self) -> None:
        self.micro_batches = 1  # parts in which a batch is computed
        self.gradients: Gradients = eagerly  # of a pass
        self.structure = 0  # counts the changes of `alive`
        self.moving = True  # whether alphas are updated in the present epoch
        self._make_alpha_optimizer = cast(MakeOptimizer, self.alpha_optimizer)
        self.make_weight_optimizer = cast(MakeOptimizer, self.weight_optimizer)
        _check_optimizers(alpha=self._make_alpha_optimizer, weight=self.make_weight_optimizer)
        self.losses = dict(self.losses)
        self._check_kinds()
        self._check_rates()
        self._make_logits()
        if self.preference is not None:
            with setting("preference"):
                self.preference.build(self.space)
        self._refresh_active()

    # -- construction
    # -------------------------------------------------------------------------------------

    def _check_kinds(self) -> None:
        """Raises ValueError for an ingredient of the wrong kind, or a rule that is none."""
        for name, part in self._named_ingredients().items():
            check_kind(name, part, KINDS[name.partition(".")[0]])
        for name, term in self.losses.items():
            if not self.update.two_level and "train" not in term.roles:
                raise ValueError(
                    f"losses.{name}: is added on val images, of which an update of one level sees "
                    "none; leave it out, or set strategy/update=first_order"
                )
        for name in ("discretisation", "schedule", "alpha_schedule"):
            rule = getattr(self, name)
            if not callable(rule):
                raise ValueError(f"{name}: expected a function, found {rule!r}")
        for name, structure in self.structures().items():
            if structure is None and self.space.choices[name].single:
                raise ValueError(
                    f"discretisation: keeps several options of a row, of which space "
                    f"{self.space.name} takes one; set strategy/discretisation=strongest"
                )
        with setting("schedule"):
            self.schedule(1.0, min(1.0, self.min_lr), 0, 1.0)
        with setting("alpha_schedule"):
            self.alpha_schedule(1.0, 0.0, 0, 1.0)

    def _check_rates(self) -> None:
        """Raises ValueError if the schedule would raise the rate of the weights to `min_lr`."""
        (group,) = self.make_weight_optimizer([nn.Parameter(torch.zeros(1))]).param_groups
        lr = group["lr"]
        if self.min_lr > lr and self.schedule(lr, self.min_lr, 1, 3.0) > lr:
            raise ValueError(
                f"min_lr: {self.min_lr:g} is above weight_optimizer.lr={lr:g}, so the rate would "
                "rise; lower min_lr"
            )

    def _make_logits(self) -> None:
        """Draws the alphas (R, O) and betas (R,) of each choice; padding of a row is not alive."""

        def logits(*shape: int) -> nn.Parameter:
            return nn.Parameter(self.alpha_init * torch.randn(shape))

        choices = self.space.choices
        self.alphas = {name: logits(len(c.rows), c.width) for name, c in choices.items()}
        topology = self.topology
        self.betas = (
            {name: logits(topology.size(choice)) for name, choice in choices.items()}
            if topology is not None
            else {}
        )
        self.alive = {name: every_option(choice) for name, choice in choices.items()}

    def setup(self, net: Network, device: torch.device) -> None:
        """Moves to the supernet's device, creates optimisers. Raises ValueError for a bad fit."""
        for tensors in (self.alphas, self.betas):
            for name, tensor in tensors.items():
                tensors[name] = nn.Parameter(tensor.detach().to(device))
        self.alive = {name: tensor.to(device) for name, tensor in self.alive.items()}
        for ingredient in self.ingredients():
            if isinstance(ingredient, nn.Module):
                ingredient.to(device)
        self.net = net
        self.weights = list(net.parameters())
        self._outside = [
            layer for layer in net.modules() if not plain_layers.reads_tensors_alone(layer)
        ]
        self._weight_names = {id(p): name for name, p in net.named_parameters()}
        self.weight_optimizer = self.make_weight_optimizer(self.weights)
        self.alpha_optimizer = self._make_alpha_optimizer(self.arch_parameters())
        for group in self.alpha_optimizer.param_groups:
            group["lr"] *= self.alpha_lr_scale
        self.weight_lr = [group["lr"] for group in self.weight_optimizer.param_groups]
        self.alpha_lr = [group["lr"] for group in self.alpha_optimizer.param_groups]
        for name, part in self._named_ingredients().items():
            with setting(name):
                part.setup(net, self)

    def ingredients(self) -> Iterator[Ingredient]:
        """All ingredients with life-cycle hooks, in a fixed order."""
        yield from self._named_ingredients().values()

    def _named_ingredients(self) -> dict[str, Ingredient]:
        """The same, keyed by setting: `update`, `losses.mine`."""
        parts: dict[str, Ingredient] = {}
        for name in KINDS:
            given = getattr(self, name)
            several = isinstance(given, Mapping)
            parts |= (
                {f"{name}.{key}": each for key, each in given.items()} if several else {name: given}
            )
        return {name: part for name, part in parts.items() if part is not None}

    def arch_parameters(self) -> list[nn.Parameter]:
        return list(self.named_arch_parameters().values())

    def named_arch_parameters(self) -> dict[str, nn.Parameter]:
        named = {f"alpha.{name}": tensor for name, tensor in self.alphas.items()}
        named |= {f"beta.{name}": tensor for name, tensor in self.betas.items()}
        shifts = {} if self.preference is None else dict(self.preference.named_parameters())
        return named | {f"preference.{name}": tensor for name, tensor in shifts.items()}

    def shifted(self, name: str) -> Tensor:
        """The alphas (R, O) of a choice, with what the preference adds to them."""
        alphas = self.alphas[name]
        return alphas if self.preference is None else alphas + self.preference.shift(name)

    # -- one pass
    # -----------------------------------------------------------------------------------------

    def mixture(
        self, *, noise: bool = True, offsets: Mapping[str, Tensor] | None = None
    ) -> Mixture:
        """Relaxes every choice: gates, factors, active options. Measure without noise.

        offsets: choice -> what is added to the gates (R, O) of options that run; the sums are
            clipped to [0, 1].
        """
        self.relaxation.train(noise)
        groups = {}
        for name in self.alphas:
            choice, runs = self.space.choices[name], self.alive[name]
            gates, index = self.relaxation.of_choice(self.shifted(name), runs, choice)
            active = self._active[name]
            if index is not None:
                index = index.view(len(runs), -1)  # (R, K)
                active = [
                    [o for o in row if o in chosen]
                    for chosen, row in zip(index.tolist(), active, strict=True)
                ]
            if offsets is not None:
                if index is not None:
                    runs = runs & torch.zeros_like(runs).scatter(1, index, True)
                gates = torch.where(runs, (gates + offsets[name]).clamp(0, 1), gates)
            factors = None
            if self.topology is not None:
                self.topology.train(noise)
                factors, runs = self.topology(*self._weighed(name))
                if runs is not None:
                    active = [row if on else [] for row, on in zip(active, runs, strict=True)]
            groups[name] = GroupMixture(gates, factors, active)
        return Mixture(groups)

    def _weighed(self, name: str) -> tuple[Tensor, Choice, Tensor]:
        """What the topology weighs: betas, the choice and its alive rows (R,)."""
        return self.betas[name], self.space.choices[name], self.alive[name].any(1)

    def loss(
        self,
        net: Logits,
        batch: Batch,
        role: str = "train",
        offsets: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy plus the terms of `losses`, and the logits (B, classes).

        `role` is that of the batch, train or val; a term is added only for its `roles`.
        offsets: added to the gates, see `mixture`.
        """
        x, y = batch
        mixture = self.mixture(offsets=offsets)
        logits = in_parts(lambda part: net(part, mixture), x, self.micro_batches, self.net)
        loss = F.cross_entropy(logits, y)
        for term in self.losses.values():
            if role in term.roles:
                loss = loss + term(net, batch, logits, mixture)
        return loss, logits

    @property
    def averages(self) -> bool:
        """Whether the passes given to `gradients` are means over images: see `Ingredient`."""
        return all(part.averages for part in (self.update, *self.losses.values()))

    def constants(self) -> Hashable | None:
        """All that a pass reads except tensors that are changed in place: while this value is
        equal, a pass consists of the same operations on the same tensors.

        None if that is unknown: for micro-batches or recomputed cells, and for an ingredient or a
        user-defined operation whose class has no method of this name.
        """
        twice = getattr(self.net, "checkpoint_cells", False)
        if self.micro_batches > 1 or twice:
            return None
        always = [self.relaxation, self.topology, self.update, self.regularisation, self.preference]
        parts = [*always, *self.losses.values()]
        said = [part.constants() for part in parts if part is not None]
        said += [plain_layers.constants(layer) for layer in self._outside]
        return None if any(one is None for one in said) else (self.structure, *said)

    # -- life cycle
    # ---------------------------------------------------------------------------------------

    def alphas_move(self, epoch: int, epochs: float) -> bool:
        """Whether alphas are updated in this epoch (from 0, of `epochs`)."""
        stage = self.stage(epoch, epochs)
        return not stage.warmup or stage.epoch >= round(self.warmup * stage.epochs)

    def stage(self, epoch: int, epochs: float) -> Stage:
        """The stage of this epoch; without stages, the whole search."""
        return Stage(epoch, epochs) if self.pruning is None else self.pruning.stage(epoch, epochs)

    def for_batches(self, size: int) -> None:
        """Scales the weights' learning rates for this batch size; called once before a search."""
        scale = 1.0 if self.lr_batch is None else size / self.lr_batch
        self.min_lr *= scale
        self.weight_lr = [lr * scale for lr in self.weight_lr]
        for group, lr in zip(self.weight_optimizer.param_groups, self.weight_lr, strict=True):
            group["lr"] = lr

    def epoch_start(self, epoch: int, epochs: float) -> None:
        """Sets the learning rates of this epoch (from 0, of `epochs`) and calls the ingredients'
        hooks."""
        at, length, rate, _ = self.stage(epoch, epochs)
        self.moving = self.alphas_move(epoch, epochs)
        for group, lr in zip(self.weight_optimizer.param_groups, self.weight_lr, strict=True):
            low = min(self.min_lr, rate * lr or self.min_lr)  # a stage may begin below, not at 0
            group["lr"] = self.schedule(rate * lr, low, at, length)
        for group, lr in zip(self.alpha_optimizer.param_groups, self.alpha_lr, strict=True):
            group["lr"] = self.alpha_schedule(lr, 0.0, at, length)
        for ingredient in self.ingredients():
            ingredient.epoch_start(epoch, epochs)

    def step(
        self, net: Network, train: Batch, val: Batch | None, *, progress: float, move_alphas: bool
    ) -> dict[str, Tensor]:
        """One update of alphas (if they move) and weights; returns 0-dim tensors to log."""
        for ingredient in self.ingredients():
            ingredient.before_step(progress)
        if self.regularisation is not None:
            disturbed = self.regularisation.images
            train = disturbed(train[0]), train[1]
            val = None if val is None else (disturbed(val[0]), val[1])
        metrics = self.update.step(self, net, train, val, move_alphas=move_alphas)
        for ingredient in self.ingredients():
            ingredient.after_step(net, self)
        return metrics

    def epoch_end(self, net: Network, loaders: Any, progress: float) -> bool:
        """Calls the ingredients' hooks after an epoch; returns True if the search should stop.

        A preference is first: the gates that others read then are those that are measured.
        """
        verdicts = []
        parts = self._named_ingredients().items()
        for name, part in sorted(parts, key=lambda one: one[0] != "preference"):
            with setting(name):
                verdicts.append(part.epoch_end(net, self, loaders, progress))
        return any(verdict is True for verdict in verdicts)

    def keep(self, found: Architecture, *, last: bool) -> list[Architecture]:
        """Architectures worth keeping after an epoch that ended with `found`."""
        return [kept for part in self.ingredients() for kept in part.keep(found, last=last)]

    def result(self) -> int | None:
        """The epoch whose architecture is the result, None for the last one."""
        epochs = [part.result() for part in self.ingredients()]
        return min((epoch for epoch in epochs if epoch is not None), default=None)

    def costs_of(self, found: Architecture) -> dict[str, float]:
        """What the ingredients say of the costs of the architecture that was found."""
        return {k: v for part in self.ingredients() for k, v in part.costs_of(found).items()}

    @property
    def may_return(self) -> bool:
        """Whether an ingredient may take the search back to an earlier epoch."""
        return any(part.may_return for part in self.ingredients())

    def returns_to(self) -> int | None:
        """The epoch to whose end the search returns, the earliest of the ingredients'."""
        epochs = [part.returns_to() for part in self.ingredients()]
        return min((epoch for epoch in epochs if epoch is not None), default=None)

    def returned(self) -> None:
        """Called after the state of an earlier epoch was loaded to go on from it."""
        for ingredient in self.ingredients():
            ingredient.returned(self)

    def prune(self, alive: Mapping[str, Tensor]) -> None:
        """Switches candidates off permanently: the only place where structure changes."""
        self.alive = {name: self.alive[name] & alive[name] for name in self.alive}
        self._refresh_active()

    def _refresh_active(self) -> None:
        self._active: dict[str, Active] = {
            name: everything_active(alive) for name, alive in self.alive.items()
        }
        self.structure += 1

    # -- the result
    # ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def gates(self) -> dict[str, Tensor]:
        """Choice -> gates (R, O) without noise, times the factors of the rows."""
        return {name: weighed(*found) for name, found in self._expected().items()}

    @torch.no_grad()
    def _expected(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Choice -> gates (R, O) without noise and factors (R,), on the CPU."""
        found = {}
        for name in self.alphas:
            gates, _ = self.relaxation.expected(self.shifted(name), self.alive[name])
            factors = None
            if self.topology is not None:
                factors = self.topology.expected(*self._weighed(name)).cpu()
            found[name] = gates.cpu(), factors
        return found

    def architecture(self, **meta: Any) -> Architecture:
        """Discretises the current gates. Raises ValueError if pruning left nothing to keep.

        If zeros cut a choice's output off from its input, the best connected one is taken instead,
        and `meta["reconnected"]` names the choice.
        """
        choices, again = {}, []
        for name, (values, factors) in self._expected().items():
            choice, alive = self.space.choices[name], self.alive[name].cpu()
            with setting("pruning"):  # pruning left too few candidates
                choices[name] = self.discretisation(choice, values, factors, alive)
                if not choice.connects(choices[name]):
                    choices[name] = connected(choice, weighed(values, factors), alive)
                    again.append(name)
        return Architecture.of(
            self.space, choices, **meta, **({"reconnected": again} if again else {})
        )

    def structures(self) -> dict[str, Structure | None]:
        """The structure of each choice under the discretisation rule; None if it ignores gates."""
        rule = self.discretisation
        with setting("pruning"):
            return {n: Structure.of_rule(rule, choice) for n, choice in self.space.choices.items()}

    def within(
        self, costs: Sequence[Tables], limits: Sequence[float], **meta: Any
    ) -> Architecture | None:
        """The architecture with the largest sum of log gates whose costs are within the limits.

        costs: choice -> (R, O) each. None if there is none, or if the rule ignores gates.
        """
        known = {name: found for name, found in self.structures().items() if found is not None}
        if len(known) < len(self.alive):
            return None
        alive = {name: table.cpu() for name, table in self.alive.items()}
        choices = within(self.space.choices, known, self.gates(), alive, costs, limits)
        return None if choices is None else Architecture.of(self.space, choices, **meta)

    # -- state
    # --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed search needs: tensors, plain values, optimiser moments by name."""
        return {
            "arch": {name: p.detach() for name, p in self.named_arch_parameters().items()},
            "alive": self.alive,
            "weights": [self._weight_names[id(p)] for p in self.weights],
            "weight_optimizer": named_state(self.weight_optimizer, self._weight_names),
            "alpha_optimizer": named_state(
                self.alpha_optimizer, {id(p): n for n, p in self.named_arch_parameters().items()}
            ),
            "ingredients": [state for _, state in self._states()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, after `setup`. Raises ValueError if it does not fit."""
        named = self.named_arch_parameters()
        for name, value in state["alive"].items():
            if value.dtype != torch.bool or value.shape != self.alive[name].shape:
                raise ValueError(f"'alive' of '{name}' is not bool (R, O)")
        with torch.no_grad():
            for name, value in state["arch"].items():
                named[name].copy_(value)
        self.alive = {n: value.to(self.alive[n].device) for n, value in state["alive"].items()}
        self._refresh_active()
        weights = dict(self.net.named_parameters())
        self.weights = [weights[name] for name in state["weights"]]
        self.weight_optimizer.param_groups[0]["params"] = list(self.weights)
        load_named_state(self.weight_optimizer, self._weight_names, state["weight_optimizer"])
        load_named_state(
            self.alpha_optimizer, {id(p): n for n, p in named.items()}, state["alpha_optimizer"]
        )
        for (part, _), saved in zip(self._states(), state["ingredients"], strict=True):
            part.load_state_dict(saved)

    def _states(self) -> list[tuple[Ingredient, dict[str, Any]]]:
        """The ingredients with a state, and their states; `{}` for a module without buffers."""
        states = [(part, part.state_dict()) for part in self.ingredients()]
        return [(part, state) for part, state in states if state is not None]


KINDS = kinds_of(Strategy)


def _check_optimizers(**makers: MakeOptimizer) -> None:
    """Raises ValueError, which names the setting, if an optimiser rejects its settings."""
    for name, make in makers.items():
        try:
            make([nn.Parameter(torch.zeros(1))])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}_optimizer: {error}") from error
