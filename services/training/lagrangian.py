"""Train a network whose own decisions keep bounds on rates: the Lagrangian of utility and rates, by gradient both ways.

The network minimises the threshold-local loss (services/training/losses.py); each bound has a multiplier that rises
while the bound is broken and falls while it is kept with room. Gradients flow through softened rates, multipliers
move with the hard ones (a proxy constraint). The epoch kept is the one of most validation utility among those that
keep every bound on the validation rows. The network's answers are scores that decide, no longer probabilities: they
are not calibrated, and what a release says of expected utility is the rule's view, not EUR. Its operating point adds
what price is still missing for the stated confidence. A price on a calibrated network is stronger on every data set
tried, and the default; this is for bounds that no price can steer to.
`cooper` is an optional extra (`pip install 'trimtab[lagrangian]'`). Source: Cotter et al., "Optimization with
Non-Differentiable Constraints", JMLR 2019 (proxy constraints); Gallego-Posada et al., "Cooper", 2025. Must never
be imported by serving's request path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from policies.operating.operating_point import OperatingPoint
from policies.utility.utility import UtilitySpec, realised_utility
from services.training.calibration import softmax
from services.training.errors import TrainingError
from services.training.fit import Labelled, Rows, Settings, one_thread_seeded, tensors_of
from services.training.forward import Architecture, Weights, forward
from services.training.known_rows import TrainingContract, known_rows
from services.training.losses import local_and_everywhere, softened, stakes
from services.training.network import Network, architecture_for
from services.training.preprocessing import Columns, Preprocessing
from services.training.rate_bounds import RateBound

_TEMPERATURE = 0.1
_RATE_TEMPERATURE = 0.05
_MULTIPLIER_RATE = 0.05
_PATIENCE = 2  # times the usual one: multipliers swing before they settle


@dataclass(frozen=True)
class Bounded:
    """The weights of the epoch kept; `multipliers` as they were then, `rates` on the validation rows, by bound."""

    weights: Weights
    epoch: int
    multipliers: tuple[float, ...]
    rates: tuple[float, ...]
    keeps_bounds: bool


@dataclass(frozen=True)
class BoundedNetwork:
    """A network that decides; `multipliers` as training left them, `rates` on the validation rows, by bound."""

    preprocessing: Preprocessing
    architecture: Architecture
    weights: Weights
    default_action: int
    multipliers: tuple[float, ...]
    rates: tuple[float, ...]
    keeps_bounds: bool

    def choose(self, columns: Columns, payoffs: NDArray[np.float64]) -> NDArray[np.intp]:
        """The action (n,) for rows with payoffs (n, A, O): best under the network's distorted probabilities."""
        logits = forward(self.architecture, self.weights, self.preprocessing.transform(columns))
        return _decide(logits, payoffs, self.default_action)


def fit_under_bounds(
    training: Columns,
    validation: Columns,
    *,
    contract: TrainingContract,
    utility: UtilitySpec,
    bounds: Sequence[RateBound],
    seed: int,
    settings: Settings | None = None,
) -> BoundedNetwork:
    """Fit with multipliers. Raises TrainingError where cooper is not installed or a loss is not finite."""
    settings = settings or Settings()
    known = [known_rows(columns, contract, utility) for columns in (training, validation)]
    preprocessing = Preprocessing.fit(known[0][0], contract)
    rows, held_out = (
        Labelled(preprocessing.transform(columns), outcomes, utility.payoffs(columns))
        for columns, outcomes in known
    )
    architecture = architecture_for(preprocessing, outcomes=len(utility.outcomes), hidden=settings.hidden)
    kept = fit_bounded(
        rows,
        held_out,
        architecture=architecture,
        bounds=bounds,
        default_action=utility.default_index,
        settings=settings,
        seed=seed,
    )
    return BoundedNetwork(
        preprocessing=preprocessing,
        architecture=architecture,
        weights=kept.weights,
        default_action=utility.default_index,
        multipliers=kept.multipliers,
        rates=kept.rates,
        keeps_bounds=kept.keeps_bounds,
    )


def fit_bounded(
    rows: Labelled,
    held_out: Labelled,
    *,
    architecture: Architecture,
    bounds: Sequence[RateBound],
    default_action: int,
    settings: Settings,
    seed: int,
) -> Bounded:
    """Fit with multipliers, on encoded rows; which epoch is kept, the held-out ones decide. Raises TrainingError."""
    best: tuple[bool, float] = (False, -np.inf)
    kept, since = None, 0
    with one_thread_seeded(seed):
        network = Network(architecture, dropout=settings.dropout, category_dropout=settings.category_dropout)
        steps = _steps(network, tensors_of(rows), bounds, settings)
        for epoch, multipliers in enumerate(steps, start=1):
            weights, since = network.export(), since + 1
            actions = _decide(
                forward(architecture, weights, held_out.encoded), held_out.payoffs, default_action
            )
            rates = tuple(bound.rate(actions, held_out.outcomes) for bound in bounds)
            excess = max(
                (rate - bound.at_most for rate, bound in zip(rates, bounds, strict=True)), default=0.0
            )
            earned = float(realised_utility(held_out.payoffs, actions, held_out.outcomes).mean())
            score = (excess <= 0.0, earned if excess <= 0.0 else -excess)
            if score > best:
                best, since = score, 0
                kept = Bounded(weights, epoch, multipliers, rates, keeps_bounds=score[0])
            if since >= _PATIENCE * settings.patience:
                break
    if kept is None:
        raise TrainingError("no epoch gave finite rates: is every bound's outcome among the validation rows?")
    return kept


def _steps(
    network: Network, rows: Rows, bounds: Sequence[RateBound], settings: Settings
) -> Iterator[tuple[float, ...]]:
    """One epoch per item; the multipliers after it."""
    try:
        import cooper
    except ImportError as error:
        raise TrainingError("Lagrangian training needs cooper: pip install 'trimtab[lagrangian]'") from error
    scale = stakes(rows[3]).mean()

    class Problem(cooper.ConstrainedMinimizationProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rates = cooper.Constraint(
                constraint_type=cooper.ConstraintType.INEQUALITY,
                multiplier=cooper.multipliers.DenseMultiplier(num_constraints=len(bounds)),
            )

        def compute_cmp_state(self, batch: Sequence[Tensor]) -> Any:
            numbers, categories, outcomes, payoffs, weights = batch
            logits = network(numbers, categories)
            loss = local_and_everywhere(logits, outcomes, payoffs, temperature=_TEMPERATURE)
            chances = softened(logits, payoffs, temperature=_RATE_TEMPERATURE)[0].exp()
            hard = functional.one_hot(chances.argmax(dim=1), chances.shape[1]).float()
            state = cooper.ConstraintState(
                violation=excess(chances, outcomes, bounds), strict_violation=excess(hard, outcomes, bounds)
            )
            return cooper.CMPState((weights * loss).mean() / scale, {self.rates: state})

    problem = Problem()
    optimiser = cooper.optim.SimultaneousOptimizer(
        cmp=problem,
        primal_optimizers=torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        dual_optimizers=torch.optim.SGD(problem.dual_parameters(), lr=_MULTIPLIER_RATE, maximize=True),
    )
    for _ in range(settings.most_epochs):
        network.train()
        for batch in torch.split(torch.randperm(len(rows[2])), settings.batch_rows):
            optimiser.roll(compute_cmp_state_kwargs={"batch": [part[batch] for part in rows]})
        network.eval()
        yield tuple(float(value) for value in problem.rates.multiplier.weight.detach())


def excess(chances: Tensor, outcomes: Tensor, bounds: Sequence[RateBound]) -> Tensor:
    """How far each bound's rate (bounds,) is above it, from action chances (n, A); 0 where no row counts."""
    excess = []
    for bound in bounds:
        counts = torch.ones_like(outcomes) if bound.among is None else (outcomes == bound.among)
        rows = counts.sum().clamp_min(1)
        rate = (chances[:, bound.action] * counts).sum() / rows
        excess.append(torch.where(counts.any(), rate - bound.at_most, rate * 0.0))
    return torch.stack(excess)


def _decide(
    logits: NDArray[np.float32], payoffs: NDArray[np.float64], default_action: int
) -> NDArray[np.intp]:
    point = OperatingPoint((0.0,) * payoffs.shape[1], default_action)
    return point.choose(payoffs, softmax(logits.astype(np.float64)))
