"""A live rollout at 25 %: whoever is killed, users feel nothing and the canary's lease runs out; people's orders count.

One rollout serves all tests that leave it at 25 %: `at_quarter` starts one, or takes up the one that stands.
"""

import getpass
import os
import signal
import time
from typing import Any

import psutil
import pytest

from services.home import LOOPBACK
from services.traffic.processes import session_members
from services.traffic.supervision import running as running_processes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
LEASE_S = 10.0


class AtQuarter:
    """A rollout that stands at 25 %, with its conductor."""

    def __init__(self, live: Any, candidate: str, rollout_id: str) -> None:
        self.live, self.candidate, self.rollout_id = live, candidate, rollout_id

    @property
    def conductor(self) -> Any:
        return self.live.conductors[-1]

    def watch_lease_end(self, killed_at: float) -> None:
        """From 10 s after the kill on, the canary answers nobody; and it did before."""
        work = self.live.workplace
        self.live.wait_weight(0.0, timeout_s=LEASE_S - (time.time() - killed_at))
        gone_after_s = time.time() - killed_at
        time.sleep(max(0.0, killed_at + LEASE_S + 1.0 - time.time()))
        assert work.weight_pct() == 0.0
        answered = work.answered(self.candidate, since=killed_at - 2.0)
        before = [at for at in answered if at < killed_at]
        late = [at for at in answered if at > killed_at + LEASE_S]
        assert before, "the canary answered nobody before the kill"
        assert late == []
        last_s = max(answered) - killed_at
        print(f"weight 0 after {gone_after_s:.1f} s, the canary's last answer after {last_s:.1f} s")
        assert self.live.failed() == 0

    def resume(self) -> float:
        """`trimtab rollout resume`; when the weight is back, epoch s."""
        began = time.time()
        self.live.conduct("resume", "--without-prefect")
        at = self.live.wait_weight(25.0, timeout_s=60)
        print(f"25 % again {at - began:.1f} s after `rollout resume`")
        return float(at)

    def answers_soon(self, since: float) -> None:
        """The canary answers users within 3 s."""
        time.sleep(3.0)
        assert self.live.workplace.answered(self.candidate, since=since)


@pytest.fixture
def at_quarter(rollouts_live: Any) -> AtQuarter:
    """A rollout at 25 % whose conductor lives: the one under way, else a new one (with Prefect, as users start it)."""
    live = rollouts_live
    status = live.status()
    if status["ended"]:
        candidate = live.forge(f"candidate-{time.time_ns()}")
        live.conduct("start", "--release", candidate)
        live.wait_weight(25.0, timeout_s=120)
        status = live.status()
        assert status["stage"] == "canary-25"
        time.sleep(3.0)
    elif live.conductors[-1].process.poll() is not None:
        live.conduct("resume", "--without-prefect")
        live.wait_weight(25.0, timeout_s=60)
        time.sleep(3.0)
    record = live.entries(live.status()["id"], "rollout_started")[0]
    return AtQuarter(live, str(record.body["candidate"]), str(record.rollout_id))


def test_rollout_process_killed(at_quarter: AtQuarter) -> None:
    """SIGKILL of the rollout flow at 25 %: within the lease no request is answered by the canary and no user request
    fails; `rollout resume` brings the 25 % back and it goes on."""
    killed_at = at_quarter.conductor.kill()
    at_quarter.watch_lease_end(killed_at)
    assert at_quarter.live.status()["stage"] == "canary-25"
    back_at = at_quarter.resume()
    at_quarter.answers_soon(back_at)
    assert "rollout_resumed" in at_quarter.live.kinds(at_quarter.rollout_id)
    assert at_quarter.live.status()["entered_at"] >= back_at - 5.0


def test_control_service_killed(at_quarter: AtQuarter) -> None:
    """SIGKILL of the control service at 25 %: the same, and when the supervisor has it back the same conductor goes
    on at 25 %, its bake neither passed nor failed."""
    work = at_quarter.live.workplace
    pid = work.control_pid()
    killed_at = time.time()
    os.kill(pid, signal.SIGKILL)
    at_quarter.watch_lease_end(killed_at)
    back_at = at_quarter.live.wait_weight(25.0, timeout_s=60)
    print(f"25 % again {back_at - killed_at:.1f} s after the kill, by itself")
    assert work.control_pid() != pid
    at_quarter.answers_soon(back_at)
    assert at_quarter.conductor.process.poll() is None
    assert at_quarter.live.status()["stage"] == "canary-25"


def test_both_killed(at_quarter: AtQuarter) -> None:
    """SIGKILL of the rollout flow and the control service at once: the same; restarted, the rollout goes on, and the
    ledger is whole."""
    work = at_quarter.live.workplace
    os.kill(work.control_pid(), signal.SIGKILL)
    killed_at = at_quarter.conductor.kill()
    at_quarter.watch_lease_end(killed_at)
    back_at = at_quarter.resume()
    at_quarter.answers_soon(back_at)
    assert work.trimtab_json("ledger", "verify")["ok"]
    assert at_quarter.live.failed() == 0


def test_control_service_hangs(at_quarter: AtQuarter) -> None:
    """SIGSTOP of the control service at 25 %: the weight is 0 within the lease by Envoy's time-to-live; when it goes
    on, so does the rollout."""
    live = at_quarter.live
    pid, stopped_at = live.workplace.control_pid(), time.time()
    os.kill(pid, signal.SIGSTOP)
    try:
        gone_after_s = live.wait_weight(0.0, timeout_s=LEASE_S) - stopped_at
    finally:
        os.kill(pid, signal.SIGCONT)
    live.wait_weight(25.0, timeout_s=30)
    print(f"weight 0 after {gone_after_s:.1f} s")
    assert live.failed() == 0


def test_two_conductors(at_quarter: AtQuarter) -> None:
    """One that comes while another conducts says so and stops. Of two that take up a dead one's rollout at the same
    instant, one conducts, the other says so and stops; the rollout is taken up once."""
    live, work = at_quarter.live, at_quarter.live.workplace
    late = work.trimtab("rollout", "resume", "--without-prefect")
    assert (late.returncode, "another process conducts" in late.stderr) == (1, True)
    assert at_quarter.conductor.process.poll() is None
    at_quarter.conductor.kill()
    before = live.kinds(at_quarter.rollout_id).count("rollout_resumed")
    rivals = [live.conduct("resume", "--without-prefect") for _ in range(2)]
    deadline = time.monotonic() + 60
    while all(one.process.poll() is None for one in rivals):
        assert time.monotonic() < deadline, "both conduct"
        time.sleep(0.1)
    (loser,) = (one for one in rivals if one.process.poll() is not None)
    assert (loser.process.returncode, "another process conducts" in loser.tail()) == (1, True)
    live.conductors.remove(loser)
    live.wait_weight(25.0, timeout_s=60)
    assert at_quarter.conductor.process.poll() is None
    assert live.kinds(at_quarter.rollout_id).count("rollout_resumed") == before + 1
    assert live.failed() == 0


def test_hold_resume_promote(at_quarter: AtQuarter) -> None:
    """Held, a stage is not passed even by promote; resumed, `promote` passes it with reason `approved`, on to full
    traffic and to promoted, without a failed request; the ledger names who and why."""
    live, work = at_quarter.live, at_quarter.live.workplace
    assert work.trimtab_json("hold", "--reason", "wait for the lawyer", "--by", "ann")["taken"]
    assert live.status()["held"] is True
    work.trimtab("promote", "--reason", "now", "--by", "bob", "--json")
    assert live.entries(at_quarter.rollout_id, "order_refused")[-1].body["verb"] == "promote"
    assert (live.status()["stage"], live.status()["held"]) == ("canary-25", True)
    assert work.trimtab_json("resume", "--reason", "he agrees", "--by", "ann")["taken"]
    assert work.trimtab_json("promote", "--reason", "seen the report", "--by", "ann")["taken"]
    assert at_quarter.conductor.end(timeout_s=60) == 0, at_quarter.conductor.tail()
    status = live.status()
    assert (status["phase"], status["ended"]) == ("promoted", True)
    verdicts = [e.body["verdict"] for e in live.entries(at_quarter.rollout_id, "verdict")]
    passed = next(v for v in verdicts if v["stage"] == "canary-25" and v["decision"] == "ADVANCE")
    assert (passed["reason"], passed["detail"]) == (
        "approved",
        f"ann (user {getpass.getuser()}): seen the report",
    )
    assert work.trimtab_json("status")["traffic"]["stable"] == [at_quarter.candidate]
    effects = live.entries(at_quarter.rollout_id, "effect")
    quiet = next(e for e in effects if e.body["action"] == "repoint_stable").body["read_back"]
    print(f"the old release's last request came {quiet['old_release_quiet_after_s']} s after the repointing")
    assert quiet["old_release_quiet_after_s"] <= 2.0
    assert live.failed() == 0


def test_kill_then_abort(at_quarter: AtQuarter) -> None:
    """`kill` at 25 %: weight 0 at Envoy within 2 s, frozen, not to be resumed or promoted; `abort` ends it rolled
    back, the candidate stopped."""
    live, work = at_quarter.live, at_quarter.live.workplace
    process = work.start("kill", "--reason", "customers complain", "--by", "ann")
    _wait_grant_revoked(at_quarter)
    revoked_at = time.time()
    zero_at = live.wait_weight(0.0, timeout_s=5)
    print(f"weight 0 at Envoy {zero_at - revoked_at:.2f} s after the grant was revoked")
    assert zero_at - revoked_at <= 2.0
    assert process.end(timeout_s=20) == 0
    time.sleep(2.5)
    assert live.status()["frozen"] is True
    assert work.weight_pct() == 0.0
    assert work.answered(at_quarter.candidate, since=revoked_at + 2.0) == []
    work.trimtab("resume", "--reason", "again", "--json")
    assert live.status()["frozen"] is True
    assert work.trimtab_json("abort", "--reason", "enough", "--by", "ann")["taken"]
    assert at_quarter.conductor.end(timeout_s=40) == 3
    status = live.status()
    assert (status["phase"], status["ended"]) == ("rolled_back", True)
    assert live.last_verdict(at_quarter.rollout_id)["reason"] == "aborted"
    found = work.trimtab_json("status")
    assert at_quarter.candidate not in found["processes"]
    assert at_quarter.candidate not in found["traffic"]["stable"]
    assert live.failed() == 0


def test_everything_listens_on_loopback_only(rollouts_live: Any) -> None:
    """Every listening socket of every owned process, Envoy's admin interface among them, is on 127.0.0.1 (gRPC writes
    it as an IPv6 address)."""
    home = rollouts_live.workplace.home
    found = {
        connection.laddr.port: connection.laddr.ip.removeprefix("::ffff:")
        for process in running_processes(home).values()
        for member in session_members(process.identity)
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert set(found) >= {home.ports.users, home.ports.envoy_admin, home.ports.control, home.ports.prefect}
    assert set(found.values()) == {LOOPBACK}


def test_envoy_killed(rollouts_live: Any) -> None:
    """SIGKILL of the only Envoy: users are without it for less than 3 s; last here, for their requests do fail."""
    live, home = rollouts_live, rollouts_live.workplace.home
    before = running_processes(home)["envoy"].pid
    os.kill(before, signal.SIGKILL)
    time.sleep(6.0)
    failed = live.failed()
    print(f"{failed} failed user requests at 80 a second")
    assert 0 < failed < 3.0 * 80
    assert running_processes(home)["envoy"].pid != before
    time.sleep(2.0)
    assert live.failed() == failed


def _wait_grant_revoked(at_quarter: AtQuarter) -> None:
    from services.store.grants import read_grant

    db = at_quarter.live.workplace.store()
    try:
        deadline = time.monotonic() + 20
        while True:
            grant = read_grant(db, "telemarketing")
            if grant is not None and grant.revoked:
                return
            assert time.monotonic() < deadline, "the grant was not revoked"
            time.sleep(0.02)
    finally:
        db.close()
