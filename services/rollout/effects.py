"""The effects of a rollout on the world: each is idempotent, carried out, and read back before it counts as done.

Rule 1: an effect that cannot be read back within its time raises EffectFailed; nobody assumes that it happened.
Rule 2: every effect may be repeated after a crash and ends in the same world.
Source: design.md section 7 (promotion repoints, never rebuilds). Must never import Prefect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from policies.rollout.rollout import Action, Step
from services.home import Home
from services.rollout.record_forms import place_of_step
from services.serving.release_command import ReleaseCommand
from services.store.database import Database
from services.store.grants import GrantRevoked, read_grant, revoke_grant, write_grant
from services.store.orders import open_orders
from services.store.rollouts import RolloutRecord
from services.traffic.admin import EnvoyAdmin
from services.traffic.errors import TrafficError
from services.traffic.slots import Slots
from services.traffic.supervision import (
    drop_release,
    port_if_running,
    running,
    wait_ready,
    want_release,
)
from services.traffic.traffic import Traffic

GRANT_SHARE_OF_LEASE = 0.5  # the other half is the proxy's own time-to-live
READY_TIMEOUT_S = 120.0
READ_BACK_TIMEOUT_S = 15.0
READ_BACK_EVERY_S = 0.1
QUIET_S = 1.0


class EffectFailed(RuntimeError):
    """An effect could not be carried out or read back; the text says which and what was seen instead."""


@dataclass(frozen=True)
class World:
    """What the effects act on. clock: epoch seconds, which go on record; timer: monotonic seconds, for all that waits.

    policies: the service's policy folder, watched for edits; None: nobody watches.

    tell: hears of each durable change and each effect, before and after. Only a rehearsal listens, to kill the
    conductor at one of these moments (tests/chaos/controller_kills.py).
    """

    home: Home
    db: Database
    admin: EnvoyAdmin
    traffic: Traffic
    command: Callable[[str, int], ReleaseCommand]
    clock: Callable[[], float]
    timer: Callable[[], float]
    sleep: Callable[[float], None]
    policies: Path | None = None
    tell: Callable[[str], None] = lambda moment: None

    @contextmanager
    def moment(self, what: str) -> Iterator[None]:
        """Tell of the block, before and after it."""
        self.tell(f"before {what}")
        yield
        self.tell(f"after {what}")


class Effects:
    """The effects of one rollout. `carry_out(step)` returns what was read back, for the ledger."""

    def __init__(self, world: World, record: RolloutRecord, *, lease_s: float) -> None:
        self._world = world
        self._record = record
        self._lease_s = lease_s
        self._place = "poll"
        self._by_action: dict[Action, Callable[[Step], dict[str, object]]] = {
            Action.START_CANDIDATE: self._start_candidate,
            Action.AWAIT_READY: self._start_candidate,
            Action.POINT_CANARY: self._point_canary,
            Action.NEW_SALT: self._new_salt,
            Action.MIRROR_ON: lambda step: self._mirror(on=True),
            Action.MIRROR_OFF: lambda step: self._mirror(on=False),
            Action.SET_WEIGHT: self._set_weight,
            Action.REPOINT_STABLE: self._repoint_stable,
            Action.UNDO_REPOINT: self._undo_repoint,
            Action.CLEAR_CANARY: self._clear_canary,
            Action.DROP_OLD: self._drop_old,
            Action.STOP_CANDIDATE: self._stop_candidate,
            Action.REVOKE_GRANT: self._revoke_grant,
        }

    def carry_out(self, step: Step) -> dict[str, object]:
        """Do it, read it back, return what was read. Raises EffectFailed."""
        self._place = place_of_step(step)
        try:
            with self._world.moment(self._place):
                return self._by_action[step.action](step)
        except TrafficError as error:
            raise EffectFailed(f"{step.action.value}: {error}") from error
        finally:
            self._place = "poll"

    def grant(self, weight_pct: float) -> None:
        """Write or renew the grant; it lapses by itself when nobody renews it. A revoked one stays at 0."""
        now = self._world.clock()
        try:
            with self._world.moment(f"{self._place} grant"):
                write_grant(
                    self._world.db,
                    service=self._record.service,
                    rollout_id=self._record.id,
                    weight_pct=weight_pct,
                    valid_until=now + self._lease_s * GRANT_SHARE_OF_LEASE,
                    at=now,
                )
        except GrantRevoked:
            if weight_pct != 0:
                raise

    @property
    def _old(self) -> str:
        if self._record.champion is None:
            raise EffectFailed("a rollout needs a champion to fall back on")
        return self._record.champion

    def _start_candidate(self, step: Step) -> dict[str, object]:
        world, candidate = self._world, self._record.candidate
        port = port_if_running(world.home, candidate)
        if port is None:  # one that runs is left alone: from another checkout its command would be another
            with world.moment(f"{self._place} want"):
                port = want_release(world.home, candidate, lambda port: world.command(candidate, port))
        wait_ready(world.home, candidate, timeout_s=READY_TIMEOUT_S)
        return {"release": candidate, "port": port, "ready": True}

    def _point_canary(self, step: Step) -> dict[str, object]:
        candidate = self._record.candidate
        self._change(lambda slots: replace(slots, canary=candidate))
        return self._read_back_slot("canary", candidate)

    def _new_salt(self, step: Step) -> dict[str, object]:
        salt = self._record.salt
        self._change(lambda slots: replace(slots, salt=salt))
        self._until(lambda: self._world.admin.route_salt() == salt, "the routes to carry the rollout's salt")
        return {"salt": salt}

    def _mirror(self, *, on: bool) -> dict[str, object]:
        candidate = self._record.candidate if on else None
        self._change(lambda slots: replace(slots, shadow=candidate))
        self._until(lambda: self._world.admin.mirror_on() is on, f"mirroring to be {'on' if on else 'off'}")
        return {"mirror": on, "shadow": candidate}

    def _set_weight(self, step: Step) -> dict[str, object]:
        weight_pct = step.weight_pct or 0.0
        admin = self._world.admin

        def is_set() -> bool:
            return abs(admin.weight_pct() - weight_pct) < 0.005

        self.grant(weight_pct)
        self._until(
            is_set, f"the canary's weight to read {weight_pct:g} %", every=lambda: self.grant(weight_pct)
        )
        return {"weight_pct": admin.weight_pct()}

    def _repoint_stable(self, step: Step) -> dict[str, object]:
        self._require_nobody_stopped_it()
        started = self._world.timer()
        candidate, old = self._record.candidate, self._old
        self._change(lambda slots: replace(slots, stable=(candidate, old)))
        self._read_back_slot("stable", candidate)
        quiet_after_s = self._until_quiet(old, started)
        return {"stable": [candidate, old], "old_release_quiet_after_s": quiet_after_s}

    def _require_nobody_stopped_it(self) -> None:
        """Everybody is about to be moved: a kill or an abort that nobody has taken yet comes first."""
        db, record = self._world.db, self._record
        grant = read_grant(db, record.service)
        if grant is not None and grant.rollout_id == record.id and grant.revoked:
            raise EffectFailed(f"killed by {grant.revoked_by}: {grant.reason}; stable is not repointed")
        for given in open_orders(db, record.id):
            if given.verb in ("abort", "kill"):
                raise EffectFailed(f"{given.verb} by {given.by}: {given.reason}; stable is not repointed")

    def _undo_repoint(self, step: Step) -> dict[str, object]:
        candidate, old = self._record.candidate, self._old
        self._change(lambda slots: replace(slots, stable=(old, candidate)))
        return self._read_back_slot("stable", old)

    def _clear_canary(self, step: Step) -> dict[str, object]:
        self._change(lambda slots: replace(slots, canary=None, shadow=None))
        self._until(
            lambda: not self._world.admin.endpoints().get("canary"), "the canary's endpoints to be gone"
        )
        return {"canary": None, "shadow": None}

    def _drop_old(self, step: Step) -> dict[str, object]:
        candidate, old = self._record.candidate, self._old
        self._change(lambda slots: replace(slots, stable=(candidate,)))
        self._until(
            lambda: len(self._world.admin.endpoints().get("stable", ())) == 1, "stable to have one endpoint"
        )
        with self._world.moment(f"{self._place} drop"):
            drop_release(self._world.home, old)
        self._until(lambda: old not in running(self._world.home), f"{old} to stop")
        return {"stable": [candidate], "stopped": old}

    def _stop_candidate(self, step: Step) -> dict[str, object]:
        candidate, old = self._record.candidate, self._old
        self._change(lambda slots: replace(slots, stable=(old,), canary=None, shadow=None))
        self._until(
            lambda: len(self._world.admin.endpoints().get("stable", ())) == 1, "stable to have one endpoint"
        )
        with self._world.moment(f"{self._place} drop"):
            drop_release(self._world.home, candidate)
        self._until(lambda: candidate not in running(self._world.home), f"{candidate} to stop")
        return {"stable": [old], "stopped": candidate}

    def _revoke_grant(self, step: Step) -> dict[str, object]:
        record = self._record
        grant = revoke_grant(
            self._world.db,
            service=record.service,
            rollout_id=record.id,
            by="conductor",
            reason="kill",
            at=self._world.clock(),
        )
        return {"revoked": grant.revoked, "by": grant.revoked_by, "reason": grant.reason}

    def _change(self, change: Callable[[Slots], Slots]) -> None:
        traffic = self._world.traffic
        slots = traffic.read_slots()
        if slots is None:
            raise EffectFailed("no stable release is set up; start one with `trimtab up`")
        with self._world.moment(f"{self._place} slots"):
            traffic.write_slots(change(slots))

    def _read_back_slot(self, cluster: str, release: str) -> dict[str, object]:
        port = self._port(release)

        def first_serves() -> bool:
            hosts = self._world.admin.endpoints().get(cluster, ())
            return any(host.port == port and host.priority == 0 and host.healthy for host in hosts)

        self._until(first_serves, f"{release} (port {port}) to serve {cluster} at priority 0")
        return {"cluster": cluster, "release": release, "port": port}

    def _until_quiet(self, release: str, started: float) -> float:
        """Seconds from `started` to the last request that the release was seen to take, once it is quiet."""
        port = self._port(release)
        last_seen = started
        count = self._requests_of(port)
        deadline = started + READ_BACK_TIMEOUT_S
        while self._world.timer() < deadline:
            self._world.sleep(READ_BACK_EVERY_S)
            try:
                now, current = self._world.timer(), self._requests_of(port)
            except TrafficError:  # one late answer of the admin interface is no reason to undo a promotion
                continue
            if current != count:
                count, last_seen = current, now
            elif now - last_seen >= QUIET_S:
                return round(last_seen - started, 2)
        raise EffectFailed(
            f"{release} still takes requests {READ_BACK_TIMEOUT_S:g} s after stable was repointed"
        )

    def _port(self, release: str) -> int:
        found = running(self._world.home).get(release)
        if found is None or found.port is None:
            raise EffectFailed(f"{release} does not run")
        return found.port

    def _requests_of(self, port: int) -> int:
        hosts = self._world.admin.endpoints().get("stable", ())
        return sum(host.rq_total for host in hosts if host.port == port)

    def _until(
        self, holds: Callable[[], bool], what: str, *, every: Callable[[], None] | None = None
    ) -> None:
        deadline = self._world.timer() + READ_BACK_TIMEOUT_S
        while True:
            try:
                if holds():
                    return
            except TrafficError as error:
                if self._world.timer() >= deadline:
                    raise EffectFailed(f"waited {READ_BACK_TIMEOUT_S:g} s for {what}: {error}") from error
            if self._world.timer() >= deadline:
                raise EffectFailed(f"waited {READ_BACK_TIMEOUT_S:g} s for {what}")
            if every is not None:
                every()
            self._world.sleep(READ_BACK_EVERY_S)
