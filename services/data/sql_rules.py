"""Runs the `type: sql` rules of a contract in DuckDB with everything locked that a policy file must not reach.

Rule 1: one SELECT, one row, one number. Rule 2: no files, network, extensions or settings: external access
is off and the configuration is locked before the query is seen. Rule 3: memory and time are bounded; a
timer interrupts.
"""

import math
import threading

import duckdb
import polars as pl

from services.data.columns import QualityRule
from services.data.contract import DataContract
from services.data.read_rules import fill_placeholders

MEMORY_LIMIT = "512MB"
TIMEOUT_S = 10.0
_LOCK = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class SqlRuleError(ValueError):
    """An SQL rule that could not be run, or did not return one finite number; the message says which and why."""


class SqlRules:
    """A locked database that holds the contract's table; use as a context manager."""

    def __init__(self, frame: pl.DataFrame, contract: DataContract, *, timeout_s: float = TIMEOUT_S) -> None:
        self._contract, self._timeout_s = contract, timeout_s
        self._connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": MEMORY_LIMIT})
        name = contract.table.replace('"', '""')
        self._connection.register("incoming rows", frame.to_arrow())
        self._connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM "incoming rows"')  # noqa: S608
        self._connection.unregister("incoming rows")
        for statement in _LOCK:
            self._connection.execute(statement)

    def __enter__(self) -> "SqlRules":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def value(self, rule: QualityRule) -> float:
        """The number that the rule's query returns. Raises SqlRuleError."""
        column = rule.columns[0] if rule.columns else None
        query = fill_placeholders(rule.query or "", table=self._contract.table, column=column)
        timer = threading.Timer(self._timeout_s, self._connection.interrupt)
        timer.start()
        try:
            statements = duckdb.extract_statements(query)
            if [s.type for s in statements] != [duckdb.StatementType.SELECT]:
                kinds = ", ".join(s.type.name for s in statements) or "nothing"
                raise SqlRuleError(f"rule '{rule.name}' must be one SELECT: {kinds}")
            rows = self._connection.execute(statements[0]).fetchmany(2)
        except duckdb.InterruptException as error:
            raise SqlRuleError(f"rule '{rule.name}' must end within {self._timeout_s:g} s") from error
        except duckdb.Error as error:
            raise SqlRuleError(f"rule '{rule.name}' failed: {error}") from error
        finally:
            timer.cancel()
        if len(rows) != 1 or len(rows[0]) != 1:
            raise SqlRuleError(f"rule '{rule.name}' must return one row with one number")
        try:
            value = float(rows[0][0])
        except (TypeError, ValueError) as error:
            raise SqlRuleError(f"rule '{rule.name}' must return a number: {rows[0][0]!r}") from error
        if not math.isfinite(value):
            raise SqlRuleError(f"rule '{rule.name}' must return a finite number: {value}")
        return value
