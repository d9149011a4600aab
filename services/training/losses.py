"""The losses a network may be trained with, one shape for all: (logits, outcomes, payoffs) -> loss per row.

Every loss receives the payoffs (n, A, O) of the ONE utility spec, whether it uses them or not, so that
further losses (a differentiable expected utility) are one more function in `LOSSES`. Lower is better; units
are nats, times the spec's unit where payoffs weigh. The optimiser is blind to a loss's scale, so weights
are not normalised.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, outcomes: Tensor, payoffs: Tensor) -> Tensor:
    """Negative log probability (n,) of the outcome (n,) int64 under softmax of logits (n, O); payoffs
    unused.
    """
    return functional.cross_entropy(logits, outcomes, reduction="none")


def payoff_weighted_cross_entropy(logits: Tensor, outcomes: Tensor, payoffs: Tensor) -> Tensor:
    """Cross-entropy (n,) times what the row has at stake: see `stakes`."""
    return stakes(payoffs) * cross_entropy(logits, outcomes, payoffs)


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


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"cross_entropy": cross_entropy, "payoff_weighted": payoff_weighted_cross_entropy}
)


def loss_named(name: str) -> Loss:
    """The loss called `name`. Raises KeyError naming what exists."""
    if name not in LOSSES:
        raise KeyError(f"no loss {name!r}; there are {sorted(LOSSES)}")
    return LOSSES[name]


def mean_loss(loss: Loss, logits: Tensor, outcomes: Tensor, payoffs: Tensor) -> float:
    """Mean of `loss` over the rows, without gradients."""
    with torch.no_grad():
        return float(loss(logits, outcomes, payoffs).mean())
