"""Fit one network: mini-batches, Adam with decoupled weight decay, early stopping on the validation rows.

The weights of the best validation epoch are kept, not the last. The same seed and the same rows give the
same weights to the bit (one torch thread; torch's global generator and thread count are put back as they
were).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.training.candidate import Epoch
from services.training.errors import TrainingError
from services.training.forward import Architecture
from services.training.losses import Loss, Objective
from services.training.network import Network
from services.training.preprocessing import Encoded

Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # numbers, categories, outcomes, payoffs, weights


@dataclass(frozen=True)
class Settings:
    """How to fit. Early stopping: after `patience` epochs without a better validation loss; an annealed loss hardens
    over the first half of `most_epochs`, and is not stopped before.
    """

    hidden: tuple[int, ...] = (64, 32)
    batch_rows: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    dropout: float = 0.1
    category_dropout: float = 0.05
    most_epochs: int = 40
    patience: int = 6


@dataclass(frozen=True)
class Progress:
    """One epoch is done: for a progress bar. `done` is set on the last event of a network."""

    loss_name: str
    epoch: int
    most_epochs: int
    training_loss: float
    validation_loss: float
    best_epoch: int
    done: bool


@dataclass(frozen=True)
class Labelled:
    """Encoded rows with their outcome indices (n,), the spec's payoffs (n, A, O), and how much each row counts (n,)."""

    encoded: Encoded
    outcomes: NDArray[np.int64]
    payoffs: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Fitted:
    """Weights of the best epoch and how it got there."""

    weights: dict[str, NDArray[np.float32]]
    best_epoch: int
    history: tuple[Epoch, ...]


def fit(
    training: Labelled,
    validation: Labelled,
    *,
    architecture: Architecture,
    objective: Objective,
    settings: Settings,
    seed: int,
    on_progress: Callable[[Progress], None],
) -> Fitted:
    """Fit a network of `architecture`. Raises TrainingError if a loss is not finite."""
    annealing = settings.most_epochs // 2 if objective.is_annealed else 0
    judged_by = objective.at(1.0)
    history: list[Epoch] = []
    best_loss, best_epoch, best_weights = float("inf"), 0, {}
    with one_thread_seeded(seed):
        network = Network(architecture, dropout=settings.dropout, category_dropout=settings.category_dropout)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        rows, held_out = tensors_of(training), tensors_of(validation)
        for epoch in range(1, settings.most_epochs + 1):
            loss = objective.at(min(1.0, epoch / annealing) if annealing else 1.0)
            training_loss = _one_epoch(network, optimiser, loss, rows, batch_rows=settings.batch_rows)
            network.eval()
            with torch.no_grad():
                logits = network(held_out[0], held_out[1])
                validation_loss = float((held_out[4] * judged_by(logits, held_out[2], held_out[3])).mean())
            if not (np.isfinite(training_loss) and np.isfinite(validation_loss)):
                raise TrainingError(f"'{objective.name}' must stay finite: epoch {epoch}, {validation_loss}")
            history.append(Epoch(epoch, training_loss, validation_loss))
            if validation_loss < best_loss:
                best_loss, best_epoch, best_weights = validation_loss, epoch, network.export()
            done = epoch == settings.most_epochs or (
                epoch - best_epoch >= settings.patience and epoch >= annealing + settings.patience
            )
            on_progress(
                Progress(
                    loss_name=objective.name,
                    epoch=epoch,
                    most_epochs=settings.most_epochs,
                    training_loss=training_loss,
                    validation_loss=validation_loss,
                    best_epoch=best_epoch,
                    done=done,
                )
            )
            if done:
                break
    return Fitted(best_weights, best_epoch, tuple(history))


def _one_epoch(
    network: Network,
    optimiser: torch.optim.Optimizer,
    loss: Loss,
    rows: Rows,
    *,
    batch_rows: int,
) -> float:
    """Step once through the rows in a fresh random order; the mean training loss."""
    network.train()
    total = 0.0
    order = torch.randperm(len(rows[2]))
    for batch in torch.split(order, batch_rows):
        numeric, categories, outcomes, payoffs, weights = (part[batch] for part in rows)
        optimiser.zero_grad(set_to_none=True)
        value = (weights * loss(network(numeric, categories), outcomes, payoffs)).mean()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(value.detach()) * len(batch)
    return total / len(order)


def tensors_of(rows: Labelled) -> Rows:
    """As float32 and int64; weights scaled to a mean of 1."""
    weights = np.ones(len(rows.outcomes)) if rows.weights is None else rows.weights / rows.weights.mean()
    return (
        torch.from_numpy(rows.encoded.numeric),
        torch.from_numpy(rows.encoded.categories),
        torch.from_numpy(rows.outcomes),
        torch.from_numpy(rows.payoffs.astype(np.float32)),
        torch.from_numpy(weights.astype(np.float32)),
    )


@contextmanager
def one_thread_seeded(seed: int) -> Iterator[None]:
    """Random numbers from `seed`, one thread; torch's own state as it was afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
