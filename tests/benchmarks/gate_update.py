"""What an update of every gate costs: median µs at the thousandth and at the millionth observation.

One update takes in one poll of 200 units (a second at 200 requests a second) at 25 % and reads both log E's. Between
the two measurements the gate is really fed a million units. Run: python tests/benchmarks/gate_update.py
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from policies.gates.gate_evidence import GateEvidence

UNITS, WEIGHT_PCT, RANGE = 200, 25.0, (-1.0, 29.8)
EARLY, LATE, TIMED = 1_000, 1_000_000, 300
_WORLDS = Path(__file__).parents[1] / "policies" / "error_rates" / "conftest.py"


def worlds() -> ModuleType:
    """The worlds of the error-rate tests, which know every gate kind."""
    spec = importlib.util.spec_from_file_location("gate_worlds", _WORLDS)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(_WORLDS)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gate_worlds"] = module
    spec.loader.exec_module(module)
    module.UNITS = UNITS
    return module


def timed(evidence: GateEvidence, blocks: list, number: int) -> float:  # type: ignore[type-arg]
    """Median µs of one update."""
    took = []
    for i in range(number):
        block = blocks[i % len(blocks)]
        started = time.perf_counter_ns()
        evidence.observe(block)
        _ = evidence.rollback_log_e, evidence.advance_log_e
        took.append(time.perf_counter_ns() - started)
    return statistics.median(took) / 1000


def main() -> None:
    """Print the table."""
    module = worlds()
    print(f"{'gate kind':22s} {'µs at 1e3':>10s} {'µs at 1e6':>10s} {'ratio':>6s}")
    for name, kind in module.KINDS.items():
        generator = np.random.default_rng(1)
        gate = replace(kind.gate, name=name)
        blocks = [kind.draw(module.World(generator, WEIGHT_PCT), "equal", gate) for _ in range(100)]
        evidence = GateEvidence(gate, 0.01, 0.05, planned_stages=1, payoff_range=RANGE)
        evidence.enter_stage(WEIGHT_PCT)
        for i in range(EARLY // UNITS):
            evidence.observe(blocks[i])
        early = timed(evidence, blocks, TIMED)
        for i in range((LATE - EARLY) // UNITS - TIMED):
            evidence.observe(blocks[i % len(blocks)])
        late = timed(evidence, blocks, TIMED)
        print(f"{name:22s} {early:10.1f} {late:10.1f} {late / early:6.2f}")


if __name__ == "__main__":
    main()
