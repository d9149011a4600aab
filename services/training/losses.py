"""The losses a network may be trained with, one shape for all: (logits, outcomes, payoffs) -> loss per row.

Every loss receives the payoffs (n, A, O) of the ONE utility spec, for any number of actions and outcomes, whether it
uses them or not. Lower is better; units are nats, times the spec's unit where payoffs weigh, or the spec's unit. The
optimiser is blind to a loss's scale, so weights are not normalised. An objective says which loss holds at which moment
of the fit: most never change, the annealed one hardens.

How they hang together. G(p) = max over actions of the expected payoff is convex in the probabilities p; the proper loss
that belongs to it is minus the utility realised by the best action: right, but flat almost everywhere. Softened at
temperature T it is `threshold_local` (proper at every T); without its entropy term, `annealed_utility`.
Source: Gneiting and Raftery, "Strictly Proper Scoring Rules", JASA 2007 (proper losses from convex functions); Buja,
Stuetzle, Shen, "Loss Functions for Binary Class Probability Estimation", 2005 (weights local to a threshold).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

_FIRST_TEMPERATURE, _LAST_TEMPERATURE = 0.3, 0.02
_LOCAL_TEMPERATURE = 0.1
_EVERYWHERE = 0.2  # share of plain cross-entropy that keeps probabilities honest far from the threshold
_LEAST_HEAT = 1e-12  # in the spec's unit: what temperature 0, and a row with nothing at stake, come to


@dataclass(frozen=True)
class Objective:
    """A loss by name. `at(progress)` is the loss at `progress` in [0, 1] of the fit; where `is_annealed`, it changes,
    and validation is judged by `at(1.0)` alone, so that epochs compare.
    """

    name: str
    at: Callable[[float], Loss]
    is_annealed: bool = False


def cross_entropy(logits: Tensor, outcomes: Tensor, payoffs: Tensor) -> Tensor:
    """Negative log probability (n,) of the outcome (n,) int64 under softmax of logits (n, O); payoffs unused."""
    return functional.cross_entropy(logits, outcomes, reduction="none")


def payoff_weighted_cross_entropy(logits: Tensor, outcomes: Tensor, payoffs: Tensor) -> Tensor:
    """Cross-entropy (n,) times what the row has at stake: see `stakes`."""
    return stakes(payoffs) * cross_entropy(logits, outcomes, payoffs)


def annealed_utility(logits: Tensor, outcomes: Tensor, payoffs: Tensor, *, temperature: float) -> Tensor:
    """Minus the payoff (n,) that the outcome brings, expected over the action probabilities of `softened`.

    At temperature 0 it is minus policies.utility.utility.realised_utility of policies.utility.utility.best_action,
    ties aside.
    """
    log_chances, _ = softened(logits, payoffs, temperature=temperature)
    return -(log_chances.exp() * _payoffs_of(payoffs, outcomes)).sum(dim=1)


def threshold_local(logits: Tensor, outcomes: Tensor, payoffs: Tensor, *, temperature: float) -> Tensor:
    """Annealed utility less temperature x entropy of the action probabilities: a proper loss (n,).

    The expected loss is least where the probabilities are the true ones, at every temperature, and what it weighs is an
    error near a threshold of the row's own payoffs. At temperature 0 it equals annealed_utility.
    """
    log_chances, heat = softened(logits, payoffs, temperature=temperature)
    earned = _payoffs_of(payoffs, outcomes)
    return (log_chances.exp() * (heat[:, None] * log_chances - earned)).sum(dim=1)


def local_and_everywhere(logits: Tensor, outcomes: Tensor, payoffs: Tensor, *, temperature: float) -> Tensor:
    """threshold_local plus a share of payoff-weighted cross-entropy: strictly proper, and never flat."""
    local = threshold_local(logits, outcomes, payoffs, temperature=temperature)
    return local + _EVERYWHERE * payoff_weighted_cross_entropy(logits, outcomes, payoffs)


def softened(logits: Tensor, payoffs: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Log probabilities of the actions (n, A), the log softmax of expected utility over heat; and the heat (n,).

    heat = temperature x stake of the row, in the spec's unit, so that with two actions and two outcomes the temperature
    is in units of probability: P(action 1) = sigmoid((p - threshold) / temperature), whatever the row's currency.
    """
    expected = torch.einsum("nao,no->na", payoffs, torch.softmax(logits, dim=1))
    heat = (temperature * stakes(payoffs)).clamp_min(_LEAST_HEAT)
    return torch.log_softmax(expected / heat[:, None], dim=1), heat


def stakes(payoffs: Tensor) -> Tensor:
    """How much a change of probability can move the choice, (n,) >= 0, from payoffs (n, A, O).

    For two actions d = payoff difference per outcome; the stake is max(d) - min(d) over outcomes, the most
    over pairs of actions. With two outcomes this is |gain if it happens| + |loss if it does not|, the
    factor by which an error in the probability becomes lost utility: the utility lost at a wrong decision
    is stake * |p - threshold|. It depends on the row, not on its outcome, so the weighted network still
    estimates probabilities; only its care is uneven.
    """
    difference = payoffs.unsqueeze(2) - payoffs.unsqueeze(1)
    spread = difference.amax(dim=3) - difference.amin(dim=3)
    return spread.flatten(1).amax(dim=1)


def utility_regression(predicted: Tensor, outcomes: Tensor, payoffs: Tensor) -> Tensor:
    """Squared error (n,), mean over actions, of predicted utilities (n, A) against what each action would have earned.

    Its least expected value is at the conditional mean of each action's payoff, which is what a decision needs where
    the payoffs themselves are hidden at decision time: services/training/hidden_payoffs.py.
    """
    return ((predicted - _payoffs_of(payoffs, outcomes)) ** 2).mean(dim=1)


def _payoffs_of(payoffs: Tensor, outcomes: Tensor) -> Tensor:
    """What each action (n, A) earned under the outcome that happened."""
    index = outcomes.view(-1, 1, 1).expand(-1, payoffs.shape[1], 1)
    return payoffs.gather(2, index).squeeze(2)


def _annealed_at(progress: float) -> Loss:
    """Geometric from the first to the last temperature."""
    temperature = _FIRST_TEMPERATURE * (_LAST_TEMPERATURE / _FIRST_TEMPERATURE) ** progress
    return partial(annealed_utility, temperature=temperature)


def _always(name: str, loss: Loss) -> Objective:
    return Objective(name, lambda progress: loss)


LOSSES: Mapping[str, Objective] = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            _always("cross_entropy", cross_entropy),
            _always("payoff_weighted", payoff_weighted_cross_entropy),
            _always("threshold_local", partial(local_and_everywhere, temperature=_LOCAL_TEMPERATURE)),
            Objective("annealed_utility", _annealed_at, is_annealed=True),
        )
    }
)
UTILITY_REGRESSION = _always("utility_regression", utility_regression)


def loss_named(name: str) -> Objective:
    """The objective called `name`. Raises KeyError naming what exists."""
    if name not in LOSSES:
        raise KeyError(f"no loss {name!r}; there are {sorted(LOSSES)}")
    return LOSSES[name]
