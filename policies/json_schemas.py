"""JSON Schemas of the policy files, made from the models that read them: what an editor completes and explains.

They are published in `policies/schemas/`, and each policy file names its own in the first line; a test holds them to
the models. A schema knows keys, forms and words; what the keys mean together only the lint knows.
Source: https://json-schema.org/draft/2020-12; the `yaml-language-server` modeline of the YAML language server.
Must never import: anything that does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from policies.rollout.metrics import METRICS
from policies.rollout.rollout_file import RolloutFile
from policies.scripted.policy_test_file import TestsFile
from policies.utility.scenario_file import ScenariosFile
from policies.utility.utility_file import UtilityFile

_MODELS: Mapping[str, tuple[type[BaseModel], str]] = {
    "rollout": (RolloutFile, "Rollout policy of a decision service"),
    "utility": (UtilityFile, "Utility spec of a decision service"),
    "scenarios": (ScenariosFile, "Scenarios that a decision service's releases must stand"),
    "tests": (TestsFile, "Tests of a decision service's rollout policy"),
}
NAMES = tuple(_MODELS)


def schema_text(name: str) -> str:
    """The schema of `<name>.yaml` as it is published, with a newline at its end. Raises KeyError for another name."""
    model, title = _MODELS[name]
    schema = model.model_json_schema(by_alias=True)
    if name == "rollout":
        metric = schema["$defs"]["GateFile"]["properties"]["metric"]
        metric["description"] = "What is measured. " + "; ".join(
            f"{one.name}: {one.says}" for one in METRICS.values()
        )
        metric["enum"] = list(METRICS)
    return published(schema, title=title)


def published(schema: Mapping[str, Any], *, title: str) -> str:
    """A model's JSON Schema as it is published: tidied, with its title and a newline at its end."""
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_tidy(schema), "title": title}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _tidy(node: Any) -> Any:
    """Without the titles that repeat the key, and without `null`, which is not how a key is left out here."""
    if isinstance(node, list):
        return [_tidy(one) for one in node]
    if not isinstance(node, Mapping):
        return node
    kept = {
        key: {name: _tidy(one) for name, one in value.items()}
        if key in ("properties", "$defs")
        else _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
    }
    choices = [one for one in kept.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1:
        del kept["anyOf"]
        return {**choices[0], **kept}
    return {**kept, "anyOf": choices} if choices else kept
