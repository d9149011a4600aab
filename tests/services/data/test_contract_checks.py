"""What check promises: good rows in the snapshot, bad rows in quarantine with what they broke, digests, SQL locked."""

import stat
from pathlib import Path

import polars as pl
import pytest

from services.data.checks import ContractReport, DataError, RuleResult, check
from services.data.contract import DataContract, load_contract
from services.data.sql_rules import SqlRuleError, SqlRules
from services.rehearsal.bank_marketing import read_calls

TEXT = (Path(__file__).parents[3] / "policies" / "telemarketing" / "contract.yaml").read_text(
    encoding="utf-8"
)
CONTRACT = load_contract(TEXT, "contract.yaml")


@pytest.fixture(scope="module")
def calls() -> pl.DataFrame:
    return read_calls()


def run(
    data: pl.DataFrame | pl.LazyFrame | Path, folder: Path, contract: DataContract = CONTRACT, **more: int
) -> ContractReport:
    return check(data, contract, quarantine=folder / "quarantine.parquet", **more)


def result(report: ContractReport, name: str) -> RuleResult:
    return next(rule for rule in report.rules if rule.name == name)


def test_calls_are_read_in_strict_time_order(calls: pl.DataFrame) -> None:
    """The year rises where the month falls: 45,211 calls, 5 May 2008 to 17 November 2010, strictly in order."""
    assert calls.height == 45_211
    assert (calls["call_id"][0], calls["call_id"][-1]) == ("c00001", "c45211")
    assert str(calls["called_at"][0]) == "2008-05-05 09:00:00+00:00"
    assert calls["called_at"][-1].date().isoformat() == "2010-11-17"
    assert calls["called_at"].diff().drop_nulls().min().total_seconds() > 0
    years = calls.group_by(pl.col("called_at").dt.year().alias("year")).len().sort("year")
    assert years.rows() == [(2008, 27_729), (2009, 14_862), (2010, 2_620)]
    months = [name.lower()[:3] for name in calls["called_at"].dt.strftime("%b").to_list()]
    assert months == calls["month"].to_list()


def test_real_data_passes_with_these_counts(calls: pl.DataFrame, tmp_path: Path) -> None:
    """All 45,211 real rows are kept and no rule fails; one rule's 5 known rows stay under its bound."""
    report = run(calls, tmp_path)
    assert (report.rows, report.kept, report.quarantined) == (45_211, 45_211, 0)
    assert report.quarantine is None
    assert not (tmp_path / "quarantine.parquet").exists()
    assert report.failed == ()
    assert len(report.rules) == 63
    assert result(report, "earlierContactHasOutcome").value == pytest.approx(100 * 5 / 8_257)
    assert result(report, "jobIsMostlyKnown").violations == 288
    measured = report.measured()
    assert {name: m.value for name, m in measured.items()} == {
        "rows": 45_211.0,
        "failed_rules": 0.0,
        "quarantined_share": 0.0,
    }
    snapshot = pl.read_parquet(report.snapshot)
    assert "duration" not in snapshot.columns
    assert snapshot.columns == [c.name for c in CONTRACT.columns if c.name != "duration"]
    assert snapshot["y"].value_counts().sort("y").rows() == [("no", 39_922), ("yes", 5_289)]
    assert stat.S_IMODE(report.snapshot.stat().st_mode) == 0o600


PLANTED = (
    (0, {"balance": "plenty"}, ["balance.type"]),
    (1, {"age": "17"}, ["age.range"]),
    (2, {"age": "41.5"}, ["age.type"]),
    (3, {"job": "wizard"}, ["jobIsKnownKind"]),
    (4, {"marital": None}, ["marital.required"]),
    (5, {"call_id": "c00007"}, ["call_id.unique"]),
    (6, {}, ["call_id.unique"]),
    (7, {"call_id": "7"}, ["call_id.pattern"]),
    (8, {"called_at": "yesterday"}, ["called_at.type"]),
    (9, {"called_at": "1999-12-31T10:00:00Z"}, ["called_at.range"]),
    (
        10,
        {"balance": "inf", "campaign": "0", "y": "maybe"},
        ["balance.type", "campaign.range", "outcomeIsYesOrNo"],
    ),
)


def as_texts(calls: pl.DataFrame) -> pl.DataFrame:
    times = pl.col("called_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return calls.with_columns(times).with_columns(pl.all().cast(pl.String))


def planted(calls: pl.DataFrame) -> pl.DataFrame:
    rows = as_texts(calls.head(2_000)).to_dicts()
    for index, changes, _ in PLANTED:
        rows[index].update(changes)
    return pl.DataFrame(rows)


def test_planted_rows_land_in_quarantine_with_the_rules_they_broke(
    calls: pl.DataFrame, tmp_path: Path
) -> None:
    """11 planted rows are set aside, as delivered, each with exactly what it broke; the other 1,989 are kept."""
    path = tmp_path / "calls.csv"
    planted(calls).write_csv(path)
    report = run(path, tmp_path)
    assert (report.rows, report.kept, report.quarantined, report.is_capped) == (2_000, 1_989, 11, False)
    assert report.quarantine is not None
    bad = pl.read_parquet(report.quarantine)
    assert bad["row_number"].to_list() == [index + 1 for index, _, _ in PLANTED]
    assert bad["rules_broken"].to_list() == [rules for _, _, rules in PLANTED]
    assert bad["balance"][0] == "plenty"
    assert stat.S_IMODE(report.quarantine.stat().st_mode) == 0o600
    assert report.measured()["quarantined_share"].value == pytest.approx(11 / 2_000)
    failed = {rule.name: rule.violations for rule in report.failed}
    assert failed == {"outcomeIsYesOrNo": 1}  # jobIsKnownKind tolerates 0.05 % of 0.1 %
    assert pl.read_parquet(report.snapshot).height == 1_989


def test_typed_and_textual_deliveries_have_the_same_digest(calls: pl.DataFrame, tmp_path: Path) -> None:
    """The digest is of the values: a CSV of texts, a typed frame and a Parquet file of the same rows agree."""
    whole_seconds = calls.head(500).with_columns(pl.col("called_at").dt.truncate("1s"))
    csv, parquet = tmp_path / "calls.csv", tmp_path / "calls.parquet"
    as_texts(whole_seconds).write_csv(csv)
    whole_seconds.write_parquet(parquet, row_group_size=7)
    digests = {
        run(data, tmp_path / name).snapshot_digest
        for name, data in (("a", whole_seconds), ("b", csv), ("c", parquet))
    }
    assert len(digests) == 1


@pytest.mark.parametrize(("column", "value"), [("balance", 2_144), ("job", "services"), ("y", None)])
def test_one_changed_cell_changes_the_digest(
    calls: pl.DataFrame, tmp_path: Path, column: str, value: int | str | None
) -> None:
    """Any single cell, also one that becomes null, changes the digest; so does the order of rows."""
    few = calls.head(300)
    rows = few.to_dicts()
    rows[0][column] = value
    changed = pl.DataFrame(rows, schema=few.schema)
    digest = run(few, tmp_path).snapshot_digest
    assert run(changed, tmp_path).snapshot_digest != digest
    assert run(few.reverse(), tmp_path).snapshot_digest != digest
    assert run(few, tmp_path).snapshot_digest == digest


def test_capped_quarantine_says_so(calls: pl.DataFrame, tmp_path: Path) -> None:
    """With 50 bad rows and a cap of 20, all 50 are counted, 20 are written, and the report says both."""
    bad = calls.head(200).with_columns(
        pl.when(pl.int_range(pl.len()) < 50).then(-1).otherwise(pl.col("day")).alias("day")
    )
    report = run(bad, tmp_path, cap=20)
    assert (report.quarantined, report.quarantine_written, report.is_capped) == (50, 20, True)
    assert "quarantine file capped: 20 of 50 rows written" in report.sentences()
    assert report.kept == 150


def test_undeclared_columns_are_dropped_everywhere(calls: pl.DataFrame, tmp_path: Path) -> None:
    """A column the contract does not know reaches neither snapshot nor quarantine, and the report names it."""
    data = calls.head(100).with_columns(pl.lit("secret").alias("iban"), pl.lit(99).alias("day"))
    report = run(data, tmp_path)
    assert report.dropped_columns == ("iban",)
    assert report.quarantine is not None
    assert "iban" not in pl.read_parquet(report.snapshot).columns
    assert "iban" not in pl.read_parquet(report.quarantine).columns


def test_absent_column_fails_and_keeps_nothing(calls: pl.DataFrame, tmp_path: Path) -> None:
    """A declared column that is not delivered fails a rule; where it is required, no row passes."""
    report = run(calls.head(100).drop("balance"), tmp_path)
    assert report.missing_columns == ("balance",)
    assert "balance.present" in {rule.name for rule in report.failed}
    assert (report.kept, report.quarantined) == (0, 100)


def test_no_rows_is_no_evidence(calls: pl.DataFrame, tmp_path: Path) -> None:
    """An empty delivery has no quarantined share (missing, not zero) and fails the row count."""
    report = run(calls.head(0), tmp_path)
    assert report.rows == 0
    assert "quarantined_share" not in report.measured()
    assert "enoughCalls" in {rule.name for rule in report.failed}


def test_failed_rule_counts_only_when_it_is_an_error(calls: pl.DataFrame, tmp_path: Path) -> None:
    """A warning that fails is reported but is none of failed_rules; an error is."""
    text = TEXT.replace("mustBeLessThan: 5\n", "mustBeLessThan: 0\n")
    report = run(calls, tmp_path, load_contract(text, "warning"))
    assert (result(report, "jobIsMostlyKnown").passed, report.measured()["failed_rules"].value) == (
        False,
        0.0,
    )
    text = TEXT.replace("mustBeLessThan: 0.5\n", "mustBeLessThan: 0.05\n")
    report = run(calls, tmp_path, load_contract(text, "error"))
    assert [rule.name for rule in report.failed] == ["earlierContactHasOutcome"]
    assert report.measured()["failed_rules"].value == 1.0


def test_unreadable_data_is_a_data_error(tmp_path: Path) -> None:
    """A file that is not there, or of a kind that is not read, is a DataError."""
    with pytest.raises(DataError, match="cannot be read"):
        run(tmp_path / "absent.parquet", tmp_path)
    with pytest.raises(DataError, match=r"must be .parquet, .csv or .csv.gz: calls.xlsx"):
        run(tmp_path / "calls.xlsx", tmp_path)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
        ("SELECT count(*) FROM '/etc/passwd'", "does not exist"),
        ("COPY ${object} TO 'out.csv'", "must be one SELECT: COPY"),
        ("INSTALL httpfs", "must be one SELECT: LOAD"),
        ("SET threads = 8", "must be one SELECT: SET"),
        ("SELECT 1; SELECT 2", "must be one SELECT: SELECT, SELECT"),
        ("DELETE FROM ${object}", "must be one SELECT: DELETE"),
        ("SELECT day FROM ${object}", "one row with one number"),
        ("SELECT 'many'", "must return a number"),
        ("SELECT max(nothing) FROM ${object}", "failed"),
        ("SELECT sum(i % 7) FROM range(1000000000000) t(i)", "must end within 0.5 s"),
    ],
)
def test_sql_rules_are_locked_in(calls: pl.DataFrame, query: str, why: str) -> None:
    """An SQL rule reads its own table and nothing else: no files, extensions, settings, writes or endless queries."""
    text = (
        TEXT[: TEXT.index("        query: >-")]
        + f'        query: "{query}"\n'
        + TEXT[TEXT.index("        mustBeLessThan: 0.5\n") :]
    )
    rule = next(r for r in load_contract(text, "sql").rules if r.metric == "sql")
    with (
        SqlRules(calls.head(50), CONTRACT, timeout_s=0.5) as database,
        pytest.raises(SqlRuleError, match=why),
    ):
        database.value(rule)
