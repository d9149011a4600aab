"""The deployment file in infra/prefect stays true to the flows it deploys."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

FILE = Path(__file__).parents[2] / "infra" / "prefect" / "prefect.yaml"
CRONS = {"retrain-telemarketing": "0 6 * * 1", "retain-main": "0 3 * * *"}


@pytest.fixture(params=CRONS)
def deployment(request: pytest.FixtureRequest) -> dict[str, Any]:
    found = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))["deployments"]
    assert [one["name"] for one in found] == list(CRONS)
    return next(dict(one) for one in found if one["name"] == request.param)


def test_entrypoint_is_a_flow_that_takes_the_parameters(deployment: dict[str, Any]) -> None:
    """The entrypoint imports, is a Prefect flow, and takes every parameter of the file, with values of its types."""
    from prefect import Flow

    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    assert flow.name == deployment["name"].partition("-")[0]
    assert set(deployment["parameters"]) == set(inspect.signature(flow.fn).parameters)
    assert flow.validate_parameters(deployment["parameters"]) == deployment["parameters"]
    assert deployment["enforce_parameter_schema"] is True


def test_one_run_at_a_time_and_the_next_waits(deployment: dict[str, Any]) -> None:
    """Prefect's own models accept the limit and the schedule as they stand in the file."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.client.schemas.schedules import CronSchedule

    limit = ConcurrencyLimitConfig(**deployment["concurrency_limit"])
    assert limit.limit == 1
    assert limit.collision_strategy.value == "ENQUEUE"
    (schedule,) = deployment["schedules"]
    assert schedule["active"] is True
    cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]).cron
    assert cron == CRONS[deployment["name"]]
