"""The rehearsals: a candidate that is bad on purpose is rolled back at 50 %, and no user request fails."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from services.home import Home, Ports
from services.ledger.ledger import entries, verify
from services.store.database import open_database

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

# drill -> the gate that must catch it, and the value it must have been over or under
CAUGHT_BY = {"harmful": "utility", "erroring": "errors", "nan": "errors", "slow": "slow"}
AT_ONCE = 2


@pytest.fixture(scope="module")
def drilled(
    main_job: Any, workplace: Any, request: pytest.FixtureRequest
) -> dict[str, "Future[tuple[int, Any]]"]:
    """The chosen drills, two at a time: most of a drill is waiting, and each has ports and state of its own."""
    assert main_job.code == 0
    chosen = [
        item.callspec.params["drill"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.function is test_drill_is_rolled_back
        and item.fspath == request.fspath
    ]

    def run(drill: str) -> tuple[int, Any]:
        import json

        done = workplace.trimtab("drill", drill, "--json", timeout_s=240)
        assert done.stdout, done.stderr[-3000:]
        return done.returncode, json.loads(done.stdout)

    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    futures = {drill: pool.submit(run, drill) for drill in chosen}
    pool.shutdown(wait=False)
    return futures


@pytest.mark.parametrize("drill", list(CAUGHT_BY))
def test_drill_is_rolled_back(drill: str, drilled: dict[str, Any], workplace: Any) -> None:
    """Exit 0, rolled back out of the 50 % step, 0 failed user requests; the ledger's verdict names the gate with value
    and bound, or the ejection that a failing canary ends in; the ledger is whole, the candidate gone."""
    code, found = drilled[drill].result()
    verdict = found["verdict"]
    print(f"{drill}: failed user requests: {found['failed_user_requests']} of {found['user_requests']}")
    print(f"  {verdict['reason']}: {verdict['detail']}")
    assert (code, found["phase"], found["passed"]) == (0, "rolled_back", True)
    assert found["failed_user_requests"] == 0
    assert found["user_requests"] > 1_000
    assert (verdict["stage"], verdict["decision"]) == ("canary-50", "ROLLBACK")
    folder = workplace.state / f"drill-{drill}"
    home = Home(folder, Ports(1))
    db = open_database(home.database_url)
    try:
        assert verify(db).ok
        recorded = [e.body["verdict"] for e in entries(db, kind="verdict")][-1]
        ended = entries(db, kind="rollout_ended")[-1]
    finally:
        db.close()
    assert recorded == verdict
    assert ended.body["phase"] == "rolled_back"
    gate = next(one for one in verdict["gates"] if one["gate"] == CAUGHT_BY[drill])
    assert gate["observed"] is not None
    assert gate["bound"] is not None
    assert gate["n"] > 0
    if verdict["reason"] in ("canary_ejected", "canary_unhealthy"):
        assert drill in ("erroring", "nan")
    else:
        assert gate["status"] == "fail"
        worse = gate["observed"] < gate["bound"] if drill == "harmful" else gate["observed"] > gate["bound"]
        assert worse, gate
