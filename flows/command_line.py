"""The command line: every verb an operator needs, `--json` on each that prints, help with examples.

Rule: a command imports what it needs when it runs; `status` and `kill` never import Prefect, torch or Evidently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from flows.commands import (
    benchmark_group,
    drill_candidate,
    inspect_records,
    openapi_group,
    operate_rollout,
    outcomes_group,
    policy_group,
    recalibrate,
    replay_rollout,
    replay_traffic,
    retention_group,
    run_main_job,
    schedule_releases,
    signing_group,
    start_system,
    switch_actions,
    throttle_variant,
    token_group,
    trace_decision,
    utility_group,
)
from flows.commands.output import fail

app = typer.Typer(
    name="trimtab",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Takes a decision model from a data contract to 100 % of live traffic; "
    "the stakeholders' utility decides at every stage.",
)
for part in (
    run_main_job,
    start_system,
    operate_rollout,
    switch_actions,
    throttle_variant,
    drill_candidate,
    replay_traffic,
    replay_rollout,
    trace_decision,
    inspect_records,
    policy_group,
    utility_group,
    benchmark_group,
    schedule_releases,
    recalibrate,
    outcomes_group,
    retention_group,
    token_group,
    signing_group,
    openapi_group,
):
    part.register(app)


def main(run: Callable[[], Any] = app) -> None:
    """Run the command line; an expected error is one clear message and exit status 1, never a traceback."""
    try:
        run()
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except Exception as error:
        if not _is_expected(error):
            raise
        fail(str(error))


def _is_expected(error: Exception) -> bool:
    """Whether the error is one that the rooms raise on purpose, with a text for people."""
    module = type(error).__module__
    return module.partition(".")[0] in ("policies", "services", "flows")


if __name__ == "__main__":
    main()
