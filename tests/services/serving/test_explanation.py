"""/decide?explain=true: what an explanation holds, for whom it is made, and what is refused."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.operating.abstention import AbstentionBand, OutcomeBand
from services.data.contract import DataContract
from services.serving.decide_endpoint import DecideEndpoint
from services.serving.decider import Decider
from services.serving.decision_log import DecisionLog
from services.serving.explanation import Explainer, Explanation
from services.serving.release import Release
from services.serving.row_check import RowCheck
from services.serving.scorer import Scorer

Row = dict[str, Any]


@pytest.fixture
def ask(make_decider: Callable[..., Decider]) -> Callable[..., tuple[int, Any]]:
    """One request straight into the application, with a query."""
    endpoint = DecideEndpoint()
    endpoint.open(make_decider())

    def post(body: object, query: str = "explain=true", **headers: str) -> tuple[int, Any]:
        sent: list[Any] = []
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "headers": named, "query_string": query.encode()}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(endpoint(scope, receive, send))
        return sent[0]["status"], json.loads(sent[1]["body"])

    return post


@pytest.fixture(scope="module")
def scorer(release: Release) -> Scorer:
    return Scorer.load(release)


def explained(
    scorer: Scorer, contract: DataContract, rows: list[Row], *, unnamed: tuple[str, ...] = ()
) -> list[Explanation]:
    columns = RowCheck(contract.columns, payoff_fields=scorer.utility.fields).columns(rows)
    return list(Explainer(scorer, unnamed=unnamed).explain(rows, columns, scorer.decide(columns)))


def test_an_explanation_says_lead_threshold_and_features(
    ask: Callable[..., tuple[int, Any]], rows: list[Row]
) -> None:
    """Every number follows from the answer it stands in: lead, distance, log-odds, and a sum that is whole."""
    for row in rows[:40]:
        status, answer = ask(row)
        assert status == 200
        why, utility = answer["explanation"], answer["expected_utility"]
        assert (why["method"], why["unit"]) == ("integrated_gradients", "EUR")
        assert why["explains"] == "log-odds of 'subscribed'"
        assert why["lead"] == pytest.approx(abs(utility["call"] - utility["leave"]), abs=1e-9)
        assert why["threshold"] == answer["operating_point"]["threshold"]
        if why["threshold"] is None:
            assert why["distance"] is None
        else:
            assert why["distance"] == pytest.approx(answer["score"] - why["threshold"])
            assert (why["distance"] > 0) == (answer["action"] == "call")
        assert why["log_odds"] == pytest.approx(np.log(answer["score"] / (1 - answer["score"])), abs=1e-5)
        parts = sum(part["contribution"] for part in why["features"])
        whole = why["baseline"]["log_odds"] + parts + why["others"]
        assert whole == pytest.approx(why["log_odds"], abs=1e-9)


def test_the_strongest_ten_features_come_first(
    ask: Callable[..., tuple[int, Any]], rows: list[Row], scorer: Scorer
) -> None:
    """Ten features, greatest |contribution| first, each with the value that was sent; the rest is in `others`."""
    why = ask(rows[3])[1]["explanation"]
    sizes = [abs(part["contribution"]) for part in why["features"]]
    assert len(sizes) == 10 < len(scorer.preprocessing.feature_names)
    assert sizes == sorted(sizes, reverse=True)
    assert all(part["value"] == rows[3][part["name"]] for part in why["features"])


def test_what_is_for_audits_only_never_appears(
    ask: Callable[..., tuple[int, Any]], rows: list[Row], scorer: Scorer, contract: DataContract
) -> None:
    """Age and marital status may be sent, move nothing and are not in the text of the explanation."""
    with_audit = {**rows[0], "age": 77, "marital": "divorced"}
    why = ask(with_audit)[1]["explanation"]
    assert why == ask(rows[0])[1]["explanation"]
    assert not {"age", "marital"} & set(scorer.preprocessing.feature_names)
    assert "divorced" not in json.dumps(why)


def test_a_sensitive_feature_is_counted_but_not_named(
    scorer: Scorer, contract: DataContract, rows: list[Row]
) -> None:
    """What an unnamed field adds moves into `others`, and the sum stays whole."""
    (openly,) = explained(scorer, contract, rows[:1])
    hidden = openly.features[0]
    (covered,) = explained(scorer, contract, rows[:1], unnamed=(hidden.name,))
    assert [part.name for part in covered.features][:9] == [part.name for part in openly.features][1:]
    last = covered.features[-1]
    assert covered.others == pytest.approx(openly.others + hidden.contribution - last.contribution)


def test_no_single_threshold_is_named_beside_an_abstention_band(
    scorer: Scorer, contract: DataContract, rows: list[Row]
) -> None:
    """A band changes the action at other probabilities, too: threshold and distance are null, the lead stays."""
    band = AbstentionBand(0, least_stake=1e9, outcomes=(OutcomeBand((0.0, 1.0), (0.0, 0.9), (0.1, 1.0)),))
    point = replace(scorer.operating_point, abstention=band)
    for one in explained(replace(scorer, operating_point=point), contract, rows[:5]):
        assert (one.threshold, one.distance) == (None, None)
        assert one.lead >= 0


def test_a_batch_is_explained_row_by_row(ask: Callable[..., tuple[int, Any]], rows: list[Row]) -> None:
    """Fifty rows get fifty explanations, each the one that the row alone gets; one more row is refused."""
    status, batch = ask({"rows": rows[:50]})
    assert status == 200
    found = [decision["explanation"] for decision in batch["decisions"]]
    assert len(found) == 50
    for i in (0, 17, 49):
        alone = ask(rows[i])[1]["explanation"]
        assert [p["name"] for p in alone["features"]] == [p["name"] for p in found[i]["features"]]
        assert alone["log_odds"] == pytest.approx(found[i]["log_odds"], abs=1e-5)
    status, refused = ask({"rows": rows[:51]})
    assert (status, refused["field"], refused["value"], refused["bound"]) == (400, "rows", 51, 50)


@pytest.mark.parametrize("query", ["", "explain=false", "trace=1"])
def test_nothing_is_explained_unless_asked(
    ask: Callable[..., tuple[int, Any]], rows: list[Row], query: str
) -> None:
    """Without explain=true the answer is as ever, and a thousand rows are decided."""
    assert "explanation" not in ask(rows[0], query)[1]
    assert len(ask({"rows": rows}, query)[1]["decisions"]) == 1000


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("explain=yes", "yes"),
        ("explain", ""),
        ("explain=", ""),
        ("explain=True", "True"),
        ("explain=1", "1"),
        ("explain=true&explain=false", "true, false"),
        ("explain=%00", "\x00"),
    ],
)
def test_another_value_of_explain_is_refused_by_name(
    ask: Callable[..., tuple[int, Any]], rows: list[Row], decision_log: DecisionLog, query: str, value: str
) -> None:
    """400 names the field, the value and what is allowed; nothing is decided, nothing is logged."""
    status, answer = ask(rows[0], query)
    assert (status, answer["field"], answer["value"]) == (400, "explain", value)
    assert answer["bound"] == ["true", "false"]
    assert decision_log.path.read_bytes() == b""


def test_a_shadow_is_not_explained(ask: Callable[..., tuple[int, Any]], rows: list[Row]) -> None:
    """Nobody reads a shadow's answer: the mirrored request is decided and logged without the cost."""
    status, answer = ask(rows[0], x_trimtab_shadow="1")
    assert status == 200
    assert "explanation" not in answer
