"""What `trimtab status` shows: who serves whom, the rollout under way, its weight as Envoy has it, why it holds.

Reads the store, the traffic files and Envoy's admin interface; each may be down and is then said to be.
Imports no Prefect.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.show_progress import gate_table
from flows.system import is_up
from flows.wiring import open_store
from policies.rollout.verdict import Verdict, VerdictError
from services.control.log_status import read_log_statuses
from services.control.switch import switched_off
from services.home import Home
from services.ledger.ledger import latest
from services.rehearsal.replay import progress_file, read_progress
from services.rollout.frozen_rules import differing_files
from services.rollout.sole_conductor import is_conducted
from services.store import decisions, rollouts
from services.store.database import Database
from services.store.grants import effective_weight, read_grant
from services.store.rollouts import RolloutRecord
from services.traffic.admin import EnvoyAdmin
from services.traffic.errors import TrafficError
from services.traffic.records import read_running
from services.traffic.throttle import read_throttle
from services.traffic.traffic import Traffic


def system_status(home: Home, service: str) -> dict[str, object]:
    """Everything, as JSON-safe values. A part that does not answer says why under `error`."""
    now = time.time()
    found: dict[str, object] = {"at": now, "state": str(home.root), "up": is_up(home)}
    slots = Traffic(home).read_slots()
    found["traffic"] = None if slots is None else slots.to_json()
    found["processes"] = {name: asdict(process) for name, process in read_running(home).items()}
    found["weight_pct_at_envoy"] = _envoy_weight(home)
    found["throttle"] = asdict(read_throttle(home))
    logs = read_log_statuses(home)
    found["decision_logs"] = {name: None if one is None else asdict(one) for name, one in logs.items()}
    if (home.root / "trimtab.db").exists():
        db = open_store(home)
        try:
            found["rollout"] = _rollout(home, db, service, now)
            found["switched_off"] = [asdict(one) for one in switched_off(db, service)]
            watermark = decisions.watermark(db)
            shipped = decisions.read_mark(db, decisions.SHIPPED_THROUGH)
            found["telemetry"] = {
                "shipper_lag_s": None if shipped is None else max(0.0, now - shipped),
                "watermark_age_s": None if watermark is None else now - watermark,
                "unlogged": decisions.unlogged_decisions(db),
            }
        finally:
            db.close()
    replay = read_progress(progress_file(home))
    found["replay"] = None if replay is None else asdict(replay)
    return found


def _envoy_weight(home: Home) -> float | dict[str, str]:
    try:
        return EnvoyAdmin(home).weight_pct()
    except TrafficError as error:
        return {"error": str(error)}


def _rollout(home: Home, db: Database, service: str, now: float) -> dict[str, object] | None:
    record = rollouts.active(db, service) or next(iter(rollouts.recent(db, service, limit=1)), None)
    if record is None:
        return None
    entry = latest(db, record.id, "verdict")
    grant = read_grant(db, service)
    return {
        "id": record.id,
        "champion": record.champion,
        "candidate": record.candidate,
        "state": _state(record),
        "ended": record.ended_at is not None,
        "has_conductor": record.ended_at is None and is_conducted(home, service),
        "granted_weight_pct": effective_weight(grant, now),
        "killed": None
        if grant is None or not grant.revoked
        else {"by": grant.revoked_by, "why": grant.reason},
        "updated_s_ago": now - record.updated_at,
        "rules_differ": differing_files(db, record.id) if record.ended_at is None else {},
        "last_verdict": None if entry is None else entry.body.get("verdict"),
    }


def _state(record: RolloutRecord) -> dict[str, object]:
    state = record.state.get("state")
    return dict(state) if isinstance(state, dict) else {}


def render_status(found: dict[str, object]) -> RenderableType:
    """The same for people."""
    parts: list[RenderableType] = []
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "system", Text("up", "green") if found["up"] else Text("down: `trimtab up` starts it", "red")
    )
    traffic = found["traffic"]
    if isinstance(traffic, dict):
        grid.add_row("stable", ", then ".join(traffic["stable"]))
        grid.add_row("canary", _words(traffic["canary"]))
        grid.add_row("shadow", _words(traffic["shadow"]))
    weight = found["weight_pct_at_envoy"]
    if found["up"] or isinstance(weight, float):
        grid.add_row("weight", f"{weight:g} % at Envoy" if isinstance(weight, float) else _error(weight))
    for limited, per_s in _mapping(found["throttle"]).items():
        if per_s is not None:
            variant = limited.removesuffix("_per_s")
            grid.add_row(
                "throttled", Text(f"{variant}: at most {per_s} a second (trimtab throttle)", "yellow")
            )
    off = found.get("switched_off")
    for one in off if isinstance(off, list) else []:
        words = f"switched off for everyone by {one['by']}: {one['reason']}"
        grid.add_row(str(one["action"]), Text(words, "yellow"))
    telemetry = found.get("telemetry")
    if isinstance(telemetry, dict):
        grid.add_row("shipper", f"decisions shipped up to {_ago(telemetry['shipper_lag_s'])}")
        grid.add_row("outcomes", f"known up to {_ago(telemetry['watermark_age_s'])}")
        for release, count in telemetry["unlogged"].items():
            grid.add_row(
                "not logged", Text(f"{count} decisions of {release}, answered on a full disk", "yellow")
            )
    for release, log in _mapping(found["decision_logs"]).items():
        if isinstance(log, dict) and log["missed"]:
            words = f"{log['missed']} decisions of the running {release}: is its disk full?"
            grid.add_row("not logged", Text(words, "red"))
    replay = found.get("replay")
    if isinstance(replay, dict):
        grid.add_row(
            "replay", f"failed user requests: {replay['failed']} of {replay['sent']} ({replay['state']})"
        )
    parts.append(grid)
    rollout = found.get("rollout")
    if isinstance(rollout, dict):
        parts += _render_rollout(rollout)
    return Group(*parts)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _render_rollout(rollout: dict[str, object]) -> list[RenderableType]:
    state = rollout["state"]
    stage = state.get("stage") if isinstance(state, dict) else "?"
    phase = state.get("phase") if isinstance(state, dict) else "?"
    head = Text(f"\nrollout {rollout['id']}: {rollout['candidate']} against {rollout['champion']}\n", "bold")
    ended = "ended" if rollout["ended"] else f"stage {stage}"
    head.append(f"{phase}, {ended}", "cyan")
    parts: list[RenderableType] = [head]
    if isinstance(state, dict) and state.get("frozen"):
        killed = rollout["killed"]
        who = f" by {killed['by']} ({killed['why']})" if isinstance(killed, dict) else ""
        parts.append(Text(f"killed{who}: weight 0, frozen; `trimtab abort` ends it", "red"))
    if isinstance(state, dict) and state.get("held"):
        parts.append(Text("held by a person; `trimtab resume` lets it go on", "yellow"))
    if not rollout["ended"] and not rollout["has_conductor"]:
        text = (
            "nobody conducts it: the canary's lease has lapsed or will; `trimtab rollout resume` takes it up"
        )
        parts.append(Text(text, "red"))
    differing = rollout["rules_differ"]
    for path, how in differing.items() if isinstance(differing, dict) else ():
        text = f"{path} was {how} since it began: it is judged by what was frozen then, the change counts from the next"
        parts.append(Text(text, "yellow"))
    stored = rollout["last_verdict"]
    if isinstance(stored, dict):
        try:
            verdict = Verdict.from_json(stored)
        except VerdictError as error:
            parts.append(Text(str(error), "red"))
        else:
            parts.append(Text(f"last change: {verdict.sentence()}"))
            if verdict.gates:
                parts.append(gate_table(verdict.gates))
    return parts


def _words(value: object) -> str:
    return "none" if value is None else str(value)


def _ago(age_s: object) -> str:
    """`2.3 s ago`, `5 min ago`; a source that never spoke is said to be one."""
    if not isinstance(age_s, float):
        return "no time yet"
    return f"{age_s:.1f} s ago" if age_s < 120 else f"{age_s / 60:.0f} min ago"


def _error(value: object) -> str:
    return str(value.get("error")) if isinstance(value, dict) else "unknown"
