"""The data contract as Trimtab uses it: columns with type, bounds, role, availability; and the quality rules.

Decides which column may reach the model (role `feature`), which only the audit step, and which nobody;
refuses leakage and unlawful use when the file is read. Source: Open Data Contract Standard v3.1 (Bitol),
with the ML fields in its `customProperties`. Serving imports this module for request validation, so it must
stay quick to import: it must never import polars, duckdb, pandas or torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.language.digest import canonical_sha256
from policies.language.yaml_source import Document, Issue, PolicyError, load_document
from services.data.columns import Bound, Column, Kind, QualityRule, Role
from services.data.custom_properties import CustomProperties, name_issues
from services.data.odcs_schema import schema_issues
from services.data.read_columns import read_columns
from services.data.read_rules import read_rules

__all__ = ["Bound", "Column", "DataContract", "Kind", "QualityRule", "Role", "load_contract", "read_contract"]

VERSIONS = ("v3.1.0", "v3.2.0")


@dataclass(frozen=True)
class DataContract:
    """A checked contract. Columns stand in the file's order, and so do `feature_names`, the model's inputs.

    `label_outcomes` maps each value of the label to the outcome that utility.yaml speaks of.
    `digest` changes with any value in the file, not with its layout or comments.
    """

    id: str
    version: str
    table: str
    columns: tuple[Column, ...]
    label: str
    label_outcomes: Mapping[str, str]
    entity_key: str
    event_time: str
    label_delay_s: float
    rules: tuple[QualityRule, ...]
    digest: str

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns that may be the model's input: known at the decision, allowed for training."""
        return self.names("feature")

    @property
    def audit_names(self) -> tuple[str, ...]:
        """Columns that only the audit step (group gaps) may see."""
        return self.names("audit")

    @property
    def decision_columns(self) -> tuple[Column, ...]:
        """What a request brings: features, and the audit columns that are known when deciding."""
        return tuple(c for c in self.columns if c.role in ("feature", "audit") and c.available_at_s <= 0.0)

    @property
    def payoff_names(self) -> tuple[str, ...]:
        """Numbers known only after the decision that payoffs may read: a release decides on its prediction of them."""
        return self.names("payoff")

    def hidden_in_log(self, needed: Iterable[str]) -> tuple[str, ...]:
        """Features and `needed` fields that the decision log hashes or leaves out: from it no decision on them can be
        worked out again."""
        wanted = {*self.feature_names, *needed}
        return tuple(c.name for c in self.columns if c.in_log != "plain" and c.name in wanted)

    def names(self, role: Role) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.role == role)

    def column(self, name: str) -> Column:
        """The column called `name`. Raises KeyError that names what exists."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"no column {name!r} in the contract; there are {[c.name for c in self.columns]}")


def load_contract(text: str, source: str) -> DataContract:
    """Read and check a contract; `source` names the file in messages.

    Raises policies.language.yaml_source.PolicyError with every error found, each as file:line:column.
    """
    return read_contract(load_document(text, source))


def read_contract(document: Document) -> DataContract:
    """As load_contract, from a document that is parsed already."""
    issues, is_readable = schema_issues(document)
    issues += name_issues(document)
    if is_readable:
        issues += _version_issues(document)
        contract = _read(document, issues)
    if issues:
        ordered = sorted(dict.fromkeys(issues), key=lambda i: (i.line, i.column))
        raise PolicyError(tuple(ordered))
    return contract


def _version_issues(document: Document) -> list[Issue]:
    """Only the versions that these rules were written for; `enum` came with v3.2."""
    version = document.data["apiVersion"]
    if version not in VERSIONS:
        return [document.issue(("apiVersion",), f"must be one of {', '.join(VERSIONS)}: {version}")]
    issues = []
    for i, table in enumerate(document.data.get("schema", ())):
        for j, column in enumerate(table.get("properties", ())):
            if version == "v3.1.0" and "enum" in column:
                message = (
                    "needs apiVersion v3.2.0; in v3.1.0 write a quality rule invalidValues with validValues"
                )
                issues.append(document.issue(("schema", i, "properties", j, "enum"), message, of_key=True))
    return issues


def _read(document: Document, issues: list[Issue]) -> DataContract:
    """The contract of a document that keeps to the standard; adds to `issues` what Trimtab asks beyond it."""
    tables = document.data.get("schema", [])
    if len(tables) != 1:
        issues.append(
            document.issue(("schema",), f"must declare exactly one table: {len(tables)}", of_key=True)
        )
    table = tables[0] if tables else {}
    owner = ("schema", 0)
    custom = CustomProperties.read(document, owner, table.get("customProperties"), issues=issues)
    custom.require("entityKey", "which column names a row, once?")
    custom.require("eventTime", "which column says when the decision was taken?")
    entity_key, event_time = custom.text("entityKey") or "", custom.text("eventTime") or ""
    found = read_columns(document, entity_key=entity_key, event_time=event_time, issues=issues)
    names = tuple(column.name for column in found.columns)
    for name, value in (("entityKey", entity_key), ("eventTime", event_time)):
        if value and value not in names:
            custom.refuse(name, f"must name a declared column: '{value}' (there are {', '.join(names)})")
    return DataContract(
        id=document.data["id"],
        version=document.data["version"],
        table=table.get("name", ""),
        columns=found.columns,
        label=found.label,
        label_outcomes=found.label_outcomes,
        entity_key=entity_key,
        event_time=event_time,
        label_delay_s=found.label_delay_s,
        rules=read_rules(document, found.columns, issues=issues),
        digest=canonical_sha256(document.data),
    )
