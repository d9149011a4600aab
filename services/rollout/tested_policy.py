"""The tests of a decision service's rollout policy, read from its folder. What stands in them is judged by policies.

Must never import Prefect.
"""

from __future__ import annotations

import os
from pathlib import Path

from policies.scripted.policy_tests import PolicyTests, load_policy_tests
from services.rollout.policy_set import POLICIES, PolicyFolderError, PolicySet

TESTS = "tests.yaml"


def read_policy_tests(policies: PolicySet, *, folder: Path = POLICIES) -> PolicyTests:
    """Read `<folder>/<service>/tests.yaml`. Raises PolicyError with every mistake, and PolicyFolderError without it."""
    file = folder / policies.service / TESTS
    if not file.is_file():
        raise PolicyFolderError(
            f"{file} is missing: it holds the policy's tests; policies/telemarketing/{TESTS} is an example"
        )
    return load_policy_tests(
        file.read_text(encoding="utf-8"),
        os.path.relpath(file),
        policy=policies.rollout,
        payoff_range=policies.utility.range,
    )
