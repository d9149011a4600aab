"""How long the operating point and the alignment gap take, and how much memory: from 0.1 to 10 million scored rows.

    python tests/benchmarks/operating_point.py [--most 10000000]

Two actions, two outcomes, payoffs that depend on the row, three constraints of which two bind and fight for the same
rows (a bound on the false-positive rate, a capacity, a floor under a stakeholder). Each size runs in a process of its
own, so that the peak memory is its own; the rows are made before the clock starts but count as memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from policies.operating.point_search import search_point
from policies.utility.utility import load_utility
from services.alignment.align import align

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
UTILITY = """
service: benchmark
version: 1
owner: Test
reviewBy: 2027-06-30
unit: EUR
actions: [leave, call]
outcomes: [no_sale, sale]
defaultAction: leave
outcomeKnownAfter: [call]
range: {low: -1, high: 30}
stakeholders:
  - name: shop
    weight: 1
    why: A call costs 1 EUR.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: -1, sale: "clip(size, 0, 30) - 1"}
  - name: customer
    weight: 0
    why: Minds an unwanted call.
    payoffs:
      leave: {no_sale: 0, sale: 0}
      call: {no_sale: -1, sale: 0}
domains:
  - {name: safety, owner: Test, errorBudget: 0.05}
constraints:
  - {name: false_calls, kind: rate_among, domain: safety, action: call, among: no_sale, atMost: 0.25, rationale: Test.}
  - {name: calls, kind: capacity, domain: safety, action: call, atMost: 28000, per: 1d, decisions: 100000, rationale: T}
  - {name: spared, kind: stakeholder_utility, domain: safety, stakeholder: customer, atLeast: -0.18, rationale: Test.}
changelog:
  - {version: 1, date: 2026-01-01, who: Test, why: Test.}
"""


def measure(rows: int) -> None:
    """Print one line of the table."""
    draw = np.random.default_rng(7)
    p = draw.beta(1.0, 4.0, size=rows).astype(np.float32)
    probabilities = np.column_stack([1 - p, p])
    columns = {"size": draw.lognormal(1.4, 0.8, size=rows).astype(np.float32)}
    outcomes = (draw.random(rows, dtype=np.float32) < p).astype(np.int8)
    utility = load_utility(UTILITY, "benchmark.yaml")
    start = time.perf_counter()
    point = search_point(utility, columns, probabilities=probabilities, outcomes=outcomes)
    found_s = time.perf_counter() - start
    proof = point.proof
    assert proof is not None
    start = time.perf_counter()
    report = align(
        probabilities=probabilities,
        columns=columns,
        outcomes=outcomes,
        utility=utility,
        operating_point=point,
        seed=1,
    )
    aligned_s = time.perf_counter() - start
    gap = report.alignment_gap
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{rows:>10,} {found_s:8.1f} {aligned_s:8.1f} {found_s + aligned_s:8.1f} {peak_gb:8.2f}  "
        f"{'all kept' if proof.is_met else 'NOT KEPT'}; gap {gap.value:.2f} [{gap.lower:.2f}, {gap.upper:.2f}]",
        flush=True,
    )
    if "--say" in sys.argv:
        print("\n".join(proof.sentences()), point.prices, point.stakeholder_prices)


def main() -> None:
    """Run each size in its own process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=SIZES[-1])
    parser.add_argument("--only", type=int)
    parser.add_argument("--say", action="store_true")
    given = parser.parse_args()
    if given.only:
        measure(given.only)
        return
    head = f"{'rows':>10} {'point s':>8} {'align s':>8} {'both s':>8} {'peak GB':>8}"
    print(f"{head}  constraints; alignment gap, EUR per 1,000 decisions [95 %]", flush=True)
    for rows in SIZES:
        if rows <= given.most:
            subprocess.run([sys.executable, __file__, "--only", str(rows)], check=True)


if __name__ == "__main__":
    main()
