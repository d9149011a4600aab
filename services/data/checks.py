"""Checks delivered data against its contract: counts first, then sets aside only the rows that break it.

Two lazy passes (polars, streaming): the first counts every check's violations and nothing else; the second
writes the good rows to a snapshot and, if there are bad ones, those with the names of what they broke to a
quarantine file.
Source: facts.md, "Data contracts". Must never import: torch, prefect, bentoml.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from policies.gates.evidence import Measured
from services.data.columns import QualityRule, Severity
from services.data.contract import DataContract
from services.data.row_checks import RAW, ROW, RowCheck, row_checks, typed_frame
from services.data.snapshot import snapshot_digest
from services.data.sql_rules import SqlRuleError, SqlRules

QUARANTINE_CAP = 10_000
BROKEN = "rules_broken"
_ANY = "any check broken"


class DataError(ValueError):
    """Delivered data that cannot be read at all."""


@dataclass(frozen=True)
class RuleResult:
    """What one check or rule found.

    `violations`: rows that break it (0 for rules that judge the whole). `value` is what `bound` was held
    against (rows or per cent; NaN where it could not be measured); checks without a bound are judged by
    `quarantined_share` only and have passed. `quarantines`: whether the rows were set aside.
    """

    name: str
    violations: int
    value: float
    bound: str
    severity: Severity
    passed: bool
    quarantines: bool
    detail: str = ""

    def sentence(self) -> str:
        """One line: verdict, name, value against bound."""
        word = "ok" if self.passed else "FAILED"
        judged = f", {self.value:g} against {self.bound}" if self.bound else ""
        more = f" ({self.detail})" if self.detail else ""
        return f"{word} {self.name}: {self.violations} rows break it{judged}{more}"


@dataclass(frozen=True)
class ContractReport:
    """The outcome of a check: of `rows` delivered, `kept` are in the snapshot and `quarantined` broke something.

    `quarantine` is None when no row was set aside; `quarantine_written` is less than `quarantined` when the
    file was capped. `dropped_columns`: delivered but not declared.
    """

    rows: int
    kept: int
    quarantined: int
    rules: tuple[RuleResult, ...]
    snapshot: Path
    snapshot_digest: str
    quarantine: Path | None
    quarantine_written: int
    dropped_columns: tuple[str, ...]
    missing_columns: tuple[str, ...]

    @property
    def is_capped(self) -> bool:
        return self.quarantine_written < self.quarantined

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """Rules of severity error whose bound is not met."""
        return tuple(rule for rule in self.rules if not rule.passed and rule.severity == "error")

    def measured(self) -> dict[str, Measured]:
        """`rows`, `failed_rules` and `quarantined_share` (in [0, 1]; absent without rows: no evidence)."""
        found = {
            "rows": Measured(float(self.rows), n=self.rows),
            "failed_rules": Measured(float(len(self.failed)), n=self.rows),
        }
        if self.rows:
            found["quarantined_share"] = Measured(self.quarantined / self.rows, n=self.rows)
        return found

    def sentences(self) -> tuple[str, ...]:
        """The report for people: one line of counts, one per column problem, one per check that found something."""
        lines = [f"{self.rows:,} rows: {self.kept:,} kept, {self.quarantined:,} quarantined"]
        if self.is_capped:
            written, all_bad = self.quarantine_written, self.quarantined
            lines.append(f"quarantine file capped: {written:,} of {all_bad:,} rows written")
        lines += [f"column '{name}' is declared but absent" for name in self.missing_columns]
        lines += [f"column '{name}' is not declared: dropped" for name in self.dropped_columns]
        lines += [rule.sentence() for rule in self.rules if rule.violations or not rule.passed]
        return tuple(lines)


def check(
    data: pl.LazyFrame | pl.DataFrame | Path,
    contract: DataContract,
    *,
    quarantine: Path,
    snapshot: Path | None = None,
    cap: int = QUARANTINE_CAP,
) -> ContractReport:
    """Check `data` (a frame, or a .parquet, .csv or .csv.gz file) and write snapshot and quarantine (mode 0600).

    `snapshot` defaults to `snapshot.parquet` beside the quarantine file. It holds the declared columns,
    typed, without those of role `excluded`. At most `cap` rows are written to the quarantine; the report
    says so when there were more. Raises DataError where the data cannot be read.
    """
    snapshot = snapshot or quarantine.with_name("snapshot.parquet")
    checks = row_checks(contract)
    try:
        source = _scan(data)
        delivered = source.collect_schema().names()
        frame = typed_frame(source, contract)
        counts = _count(frame, checks)
        rows, quarantined = counts["rows"], counts[_ANY]
        written = _write_quarantine(frame, checks, counts, path=quarantine, cap=cap)
        good = frame if not quarantined else frame.filter(~_any(_failing(checks, counts)))
        kept_names = [c.name for c in contract.columns if c.role != "excluded"]
        _private(snapshot)
        good.select(kept_names).sink_parquet(snapshot)
        declared = [c.name for c in contract.columns]
        missing = tuple(name for name in declared if name not in delivered)
        results = [_row_result(c, counts[c.name], rows) for c in checks]
        results += _whole_results(good.select(declared), contract, kept=rows - quarantined)
        results += [_missing_result(name) for name in missing]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"the data cannot be read: {error}") from error
    return ContractReport(
        rows=rows,
        kept=rows - quarantined,
        quarantined=quarantined,
        rules=tuple(results),
        snapshot=snapshot,
        snapshot_digest=snapshot_digest(snapshot),
        quarantine=quarantine if quarantined else None,
        quarantine_written=written,
        dropped_columns=tuple(name for name in delivered if name not in declared),
        missing_columns=missing,
    )


def _scan(data: pl.LazyFrame | pl.DataFrame | Path) -> pl.LazyFrame:
    if isinstance(data, pl.DataFrame | pl.LazyFrame):
        return data.lazy()
    if data.suffix == ".parquet":
        return pl.scan_parquet(data)
    if data.name.endswith((".csv", ".csv.gz")):
        return pl.scan_csv(data, infer_schema=False)
    raise DataError(f"the data must be .parquet, .csv or .csv.gz: {data.name}")


def _any(checks: Sequence[RowCheck]) -> pl.Expr:
    return pl.any_horizontal([c.breaks for c in checks if c.quarantines] or [pl.lit(value=False)])


def _failing(checks: Sequence[RowCheck], counts: dict[str, int]) -> list[RowCheck]:
    return [c for c in checks if c.quarantines and counts[c.name]]


def _count(frame: pl.LazyFrame, checks: Sequence[RowCheck]) -> dict[str, int]:
    """First pass: violations per check, rows that break any, rows."""
    sums = [c.breaks.sum().alias(c.name) for c in checks]
    totals = frame.select(pl.len().alias("rows"), _any(checks).sum().alias(_ANY), *sums)
    table = totals.collect(engine="streaming")
    return {name: int(value or 0) for name, value in table.row(0, named=True).items()}


def _write_quarantine(
    frame: pl.LazyFrame, checks: Sequence[RowCheck], counts: dict[str, int], *, path: Path, cap: int
) -> int:
    """Second pass, bad rows: number, values as delivered, names of what was broken. Returns how many were written."""
    path.unlink(missing_ok=True)
    failing = _failing(checks, counts)
    if not failing:
        return 0
    broken = pl.concat_list([pl.when(c.breaks).then(pl.lit(c.name)) for c in failing]).list.drop_nulls()
    raw = [name for name in frame.collect_schema().names() if name.startswith(RAW)]
    bad = frame.with_columns(broken.alias(BROKEN)).filter(pl.col(BROKEN).list.len() > 0)
    rows = bad.select(ROW, *[pl.col(name).alias(name.removeprefix(RAW)) for name in raw], BROKEN).head(cap)
    table = rows.collect(engine="streaming")
    _private(path)
    table.write_parquet(path)
    return table.height


def _private(path: Path) -> None:
    """An empty file that only its owner may read: rows are personal data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _row_result(one: RowCheck, violations: int, rows: int) -> RuleResult:
    if one.rule is None:
        return RuleResult(one.name, violations, float(violations), "", "error", True, one.quarantines)
    value = float(violations)
    if one.rule.unit == "percent":
        value = 100.0 * violations / rows if rows else math.nan
    return _judged(one.rule, value, violations=violations)


def _judged(rule: QualityRule, value: float, *, violations: int = 0, detail: str = "") -> RuleResult:
    bound = f"{rule.bound}{' %' if rule.unit == 'percent' else ''}"
    passed = rule.bound.holds(value)
    return RuleResult(rule.name, violations, value, bound, rule.severity, passed, rule.quarantines, detail)


def _whole_results(good: pl.LazyFrame, contract: DataContract, *, kept: int) -> list[RuleResult]:
    """Rules about the delivery as a whole, on the rows that passed: rowCount and sql."""
    counted = [_judged(rule, float(kept)) for rule in contract.rules if rule.metric == "rowCount"]
    queries = [rule for rule in contract.rules if rule.metric == "sql"]
    if not queries:
        return counted
    with SqlRules(good.collect(), contract) as database:
        for rule in queries:
            try:
                counted.append(_judged(rule, database.value(rule)))
            except SqlRuleError as error:
                counted.append(_judged(rule, math.nan, detail=str(error)))
    return counted


def _missing_result(name: str) -> RuleResult:
    detail = "declared but not delivered"
    return RuleResult(f"{name}.present", 0, math.nan, "", "error", False, quarantines=False, detail=detail)
