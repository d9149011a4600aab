"""Promises of the published JSON Schemas: they are the models', the shipped files keep to them, a typo does not."""

import json
from pathlib import Path

import jsonschema_rs
import pytest

from policies.json_schemas import NAMES
from policies.language.yaml_source import load_document
from services.rollout.policy_set import POLICIES
from services.rollout.schema_files import SCHEMAS, published_schemas, write_schemas
from services.training.plan import CANDIDATES

OURS = (*NAMES, "training")
FILES = ("contract", *OURS)
SHIPPED = sorted(path for name in FILES for path in POLICIES.glob(f"*/{name}.yaml"))
EVERY_KEY = Path(__file__).parents[2] / "policies" / "every_key.yaml"


def validator(name: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    )


def data_of(path: Path) -> object:
    return load_document(path.read_text(encoding="utf-8"), str(path)).data


def test_published_schemas_are_those_of_the_models(tmp_path: Path) -> None:
    """What stands in policies/schemas is what the models say now: `trimtab policy schema --write` makes it."""
    assert {path.name for path in SCHEMAS.glob("*.json")} == set(published_schemas())
    for path in write_schemas(tmp_path):
        assert (SCHEMAS / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), (
            f"{path.name} differs from the models: run `trimtab policy schema --write`"
        )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_files_name_their_schema_and_keep_to_it(path: Path) -> None:
    """The first line of each policy file is the modeline with its schema, which exists, and the file is valid by it."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    schema = f"../schemas/{path.stem}.schema.json"
    assert first == f"# yaml-language-server: $schema={schema}"
    assert (path.parent / schema).is_file()
    assert [error.message for error in validator(path.stem).iter_errors(data_of(path))] == []


def test_a_policy_with_every_key_is_valid() -> None:
    """The schema knows every key of the rollout policy, and the forms of its quantities."""
    assert validator("rollout").is_valid(data_of(EVERY_KEY))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("onFail: rollback", "onFial: rollback"),
        ("onFail: rollback", "onFail: roll-back"),
        ("metric: slow_share", "metric: slow_shares"),
        ("maturity: 30s", "maturity: 30"),
        ("maturity: 30s", "maturity: 30 s"),
        ("weight: 25%", "weight: 0.25"),
        ("{ratio: 1.5}", "{ratio: 1.5, absolute: 0.1}"),
        ("{min: 10m, max: 1h}", "{min: 10m}"),
        ("version: 3", "version: 3.5"),
    ],
)
def test_a_mistake_of_form_is_no_policy(old: str, new: str) -> None:
    """An editor marks what the loader would refuse: a misspelled key or word, a quantity without its unit."""
    text = EVERY_KEY.read_text(encoding="utf-8")
    assert old in text
    assert not validator("rollout").is_valid(load_document(text.replace(old, new, 1), "r.yaml").data)


def test_a_training_plan_may_name_only_candidates_that_exist() -> None:
    """training.yaml: each candidate the engine has is valid, a misspelled one is marked."""
    schema = validator("training")
    assert schema.is_valid({"service": "toy", "candidates": list(CANDIDATES), "needsProof": True})
    assert not schema.is_valid({"service": "toy", "candidates": ["cross_entrpy"]})


@pytest.mark.parametrize("name", OURS)
def test_every_key_is_explained(name: str) -> None:
    """No key without a sentence that the editor shows."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    models = {name: schema, **schema["$defs"]}
    silent = [
        f"{model}.{key}"
        for model, body in models.items()
        for key, field in body.get("properties", {}).items()
        if not field.get("description")
    ]
    assert silent == []
