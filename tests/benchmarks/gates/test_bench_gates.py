"""The benchmark of the gates runs: a few runs of every method, so that it cannot rot; its numbers are for people."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("bench_gates.py")


def test_the_benchmark_prints_its_tables() -> None:
    """With twenty runs it ends well, and every method, ours and theirs, has its row beside gates.md's numbers."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "20", "--utility-runs", "5"],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for row in (
        "F2 behind the guard (the gate)",
        "threshold > 2 % over 60 s, 3 failures",
        "success ≥ 99 % a minute, 5 failures",
        "Mann–Whitney, growing window",
        "z at every poll",
        "O'Brien–Fleming, 5 looks",
        "betting (F4)",
        "2.1; 320; 90; 20; 2.3",
    ):
        assert row in done.stdout
