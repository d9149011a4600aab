"""The JSON Schemas beside the policies, as files: ours made from the models, the contract's the standard's own.

The standard's schema is copied as its package on PyPI ships it, so that an editor works offline and agrees with the
check that the contract gate makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from policies.json_schemas import NAMES, published, schema_text
from services.rollout.policy_set import POLICIES
from services.training.plan import plan_schema

SCHEMAS = POLICIES / "schemas"


def published_schemas() -> Mapping[str, str]:
    """What must stand in `policies/schemas/`: file name to text."""
    standard = (files("open_data_contract_standard") / "schema.json").read_text(encoding="utf-8")
    return {
        "contract.schema.json": standard,
        **{f"{name}.schema.json": schema_text(name) for name in NAMES},
        "training.schema.json": published(plan_schema(), title="Training plan of a decision service"),
    }


def write_schemas(folder: Path = SCHEMAS) -> tuple[Path, ...]:
    """Write them all; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in published_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return tuple(written)
