"""What load_contract promises about the shipped contract, leakage, sensitive attributes and typos."""

import copy
import functools
import operator
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.language.yaml_source import Path as Path_
from policies.language.yaml_source import PolicyError, load_document
from services.data.contract import load_contract, read_contract

CONTRACT = Path(__file__).parents[3] / "policies" / "telemarketing" / "contract.yaml"
TEXT = CONTRACT.read_text(encoding="utf-8")

EXCLUDED_DURATION = "- {property: mlRole, value: excluded}"


def line_of(text: str, needle: str) -> int:
    return text[: text.index(needle)].count("\n") + 1


def refusals(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_contract(text, "contract.yaml")
    return [str(issue) for issue in caught.value.issues]


def test_shipped_contract_declares_every_column_and_role() -> None:
    """The shipped contract has 19 columns; 13 are features, age and marital are for the audit only."""
    contract = load_contract(TEXT, "contract.yaml")
    assert len(contract.columns) == 19
    assert contract.feature_names == (
        "job", "education", "default", "balance", "housing", "loan", "contact", "day", "month", "campaign",
        "pdays", "previous", "poutcome",
    )  # fmt: skip
    assert contract.audit_names == ("age", "marital")
    assert contract.names("excluded") == ("duration",)
    assert (contract.entity_key, contract.event_time, contract.label) == ("call_id", "called_at", "y")
    assert contract.label_delay_s == 86_400.0
    assert dict(contract.label_outcomes) == {"no": "not_subscribed", "yes": "subscribed"}
    assert [c.name for c in contract.decision_columns] == ["age", "marital", *contract.feature_names]
    assert contract.column("housing").categories == ("no", "yes")
    balance = contract.column("balance")
    assert (balance.kind, balance.minimum, balance.maximum) == ("number", -100_000.0, 1_000_000.0)


def test_digest_ignores_comments_and_sees_values() -> None:
    """The digest is of the meaning: a comment leaves it, a bound changes it."""
    digest = load_contract(TEXT, "a").digest
    assert load_contract("# a remark\n" + TEXT, "b").digest == digest
    assert load_contract(TEXT.replace("maximum: 31", "maximum: 30"), "c").digest != digest


def test_duration_as_feature_is_refused_as_leakage() -> None:
    """A feature known only after the decision is an error at its line that says why."""
    text = TEXT.replace(EXCLUDED_DURATION, EXCLUDED_DURATION.replace("excluded", "feature"), 1)
    (message,) = refusals(text)
    assert message.startswith(f"contract.yaml:{line_of(TEXT, EXCLUDED_DURATION)}:")
    assert "mlRole of 'duration' must not be feature" in message
    assert "2h after the decision" in message
    assert "leakage" in message


def test_what_payoffs_read_is_a_number_known_afterwards() -> None:
    """mlRole payoff: kept beside the features, never among them; a value known when deciding, a word, or a sensitive
    value that training may not use is refused."""
    text = TEXT.replace(EXCLUDED_DURATION, EXCLUDED_DURATION.replace("excluded", "payoff"), 1)
    found = load_contract(text, "contract.yaml")
    assert found.payoff_names == ("duration",)
    assert "duration" not in (*found.feature_names, *(one.name for one in found.decision_columns))
    at = text.index("- name: duration\n")
    for old, new, said in (
        ("value: 2h", "value: 0s", "must not be payoff: its value is known when deciding (availableAt 0s)"),
        ("logicalType: integer", "logicalType: string", "of what payoffs read must be a number: string"),
        (
            "value: payoff}",
            "value: payoff}\n          - {property: allowedUses, value: [audit]}",
            "must not be payoff",
        ),
    ):
        options = "        logicalTypeOptions: {minimum: 0, maximum: 86400}\n"
        (message,) = refusals(text[:at] + text[at:].replace(old, new, 1).replace(options, "", 1))
        assert said in message


@pytest.mark.parametrize("column", ["age", "marital"])
def test_sensitive_attribute_is_no_feature_without_training_use(column: str) -> None:
    """A sensitive attribute whose allowed uses lack training cannot be a feature; with training it can."""
    start = TEXT.index(f"- name: {column}\n")
    text = TEXT[:start] + TEXT[start:].replace("value: audit}", "value: feature}", 1)
    (message,) = refusals(text)
    assert (
        f"mlRole of '{column}' must not be feature: a sensitive attribute is allowed for audit, monitoring only"
        in message
    )
    allowed = text[:start] + text[start:].replace("[audit, monitoring]", "[training, audit]", 1)
    assert column in load_contract(allowed, "contract.yaml").feature_names


def test_sensitive_attribute_must_say_its_uses() -> None:
    """A sensitive attribute without allowedUses is refused."""
    start = TEXT.index("- name: age\n")
    text = TEXT[:start] + TEXT[start:].replace(
        "          - {property: allowedUses, value: [audit, monitoring]}\n", "", 1
    )
    (message,) = refusals(text)
    assert "allowedUses is missing" in message


def test_feature_must_say_when_it_is_known() -> None:
    """A feature without availableAt is refused: there is no safe default."""
    start = TEXT.index("- name: balance\n")
    text = TEXT[:start] + TEXT[start:].replace("          - {property: availableAt, value: 0s}\n", "", 1)
    (message,) = refusals(text)
    assert "availableAt is missing" in message


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    """Three typos and a leak give four errors, each with line and column."""
    text = TEXT.replace("domain: retail", "domian: retail").replace("driver: regulatory", "drivr: regulatory")
    text = text.replace("property: labelDelay", "property: labelDelai").replace(
        EXCLUDED_DURATION, "- {property: mlRole, value: feature}"
    )
    messages = refusals(text)
    for needle in (
        "'domian'; did you mean 'domain'?",
        "'drivr'; did you mean 'driver'?",
        "'labelDelai'; did you mean 'labelDelay'?",
        "leakage",
    ):
        assert sum(needle in message for message in messages) == 1, needle
    lines = [int(message.split(":")[1]) for message in messages]
    assert lines == sorted(lines)


def test_rules_that_would_not_run_are_refused() -> None:
    """A custom engine, a schedule or an unknown placeholder is refused rather than passed over."""
    rule = "      - name: enoughCalls\n"
    custom = "      - {name: soda, type: custom, engine: soda, implementation: checks}\n" + rule
    assert any("custom is not run by Trimtab" in m for m in refusals(TEXT.replace(rule, custom)))
    scheduled = rule + "        schedule: 0 20 * * *\n"
    assert any(
        "'schema[0].quality[0].schedule' is not enforced" in m
        for m in refusals(TEXT.replace(rule, scheduled))
    )
    assert any(
        "unknown ${objct}; did you mean 'object'?" in m
        for m in refusals(TEXT.replace("FROM ${object}", "FROM ${objct}"))
    )


@pytest.mark.parametrize(
    ("old", "new", "needle"),
    [
        ("mlRole, value: audit", "mlRole, value: audti", "label, audit, excluded: 'audti'; did you mean 'audit'?"),
        ("value: 1d", "value: 1 day", "labelDelay must be a duration like 0s, 10min, 2h or 1d: '1 day'"),
        ("value: call_id", "value: callid", "entityKey must name a declared column: 'callid'"),
        ('{"no": not_subscribed, "yes": subscribed}', '{"no": not_subscribed}', "must name an outcome for yes"),
        ("apiVersion: v3.1.0", "apiVersion: v2.2.2", "'apiVersion' must be one of v3.1.0, v3.2.0: v2.2.2"),
        ("severity: warning", "severity: warn", "must be one of error, warning, info: warn; did you mean 'warning'?"),
        ("logicalType: timestamp", "logicalType: timestmp", "did you mean 'timestamp'?"),
        ("{minimum: 1, maximum: 31}", "{minimum: 31, maximum: 1}", "leaves no value: minimum 31 is above maximum 1"),
        ('["no", "yes"]', "[0, 1]", "must be a list of texts (quote them)"),
        ("- name: loan\n", "- name: housing\n", "column 'housing' is declared twice"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(old: str, new: str, needle: str) -> None:
    """A wrong value is refused with what was meant or what exists."""
    assert old in TEXT
    assert any(needle in message for message in refusals(TEXT.replace(old, new, 1)))


def key_paths(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The path of every key; the name of a custom property acts as a key and counts as one."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key)
            yield from key_paths(value, (*path, key))
        if "customProperties" in path[-2:]:
            yield (*path, "property", data["property"])
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from key_paths(item, (*path, index))


def misspelled(data: Any, path: Path_, wrong: str) -> Any:
    """A copy of the data with the last key of `path` (or the custom property's name) replaced by `wrong`."""
    copied = copy.deepcopy(data)
    *way, key = path
    if way[-1:] == ["property"]:
        owner, key, renamed = (
            functools.reduce(operator.getitem, way[:-1], copied),
            "property",
            {"property": wrong},
        )
    else:
        owner = functools.reduce(operator.getitem, way, copied)
        renamed = {wrong: owner[key]}
    items = [(k, v) if k != key else next(iter(renamed.items())) for k, v in owner.items()]
    owner.clear()
    owner.update(items)
    return copied


def test_every_key_misspelled_is_an_error_that_names_it() -> None:
    """Mutation: each key of the shipped contract, misspelled alone, is refused by name."""
    document = load_document(TEXT, "contract.yaml")
    paths = list(key_paths(document.data))
    assert len(paths) > 400
    for path in paths:
        wrong = f"{path[-1]}Xq"
        with pytest.raises(PolicyError) as caught:
            read_contract(replace(document, data=misspelled(document.data, path, wrong)))
        assert f"'{wrong}'" in str(caught.value), (path, str(caught.value))


def test_a_misspelled_key_is_shown_where_it_stands() -> None:
    """The error of a key misspelled in the text has its line and column, on every level of the file."""
    for line, key in (
        ("domain: retail-banking", "domain"),
        ("    dataGranularityDescription: One row", "dataGranularityDescription"),
        ("        logicalTypeOptions:\n          minimum", "logicalTypeOptions"),
        ("            mustBeLessThan: 0.1", "mustBeLessThan"),
        ("              validValues: [admin.", "validValues"),
        ("    - username: data-owner", "username"),
    ):
        at = TEXT.index(line) + line.index(key)
        column = at - TEXT.rindex("\n", 0, at)
        text = TEXT[:at] + "Xq" + TEXT[at:]
        where = f"contract.yaml:{TEXT[:at].count(chr(10)) + 1}:{column}:"
        assert any(m.startswith(where) and f"'Xq{key}'" in m for m in refusals(text)), (where, refusals(text))


def test_import_stays_light() -> None:
    """Serving imports the contract: it must bring in neither polars nor duckdb, torch, pandas or scipy."""
    heavy = ("polars", "duckdb", "torch", "pandas", "scipy")
    code = f"import sys, services.data.contract; print(sorted({{*{heavy}}} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
