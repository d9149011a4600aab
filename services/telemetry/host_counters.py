"""Canary failures and canary health, from the proxy's own host counters: what no release can keep quiet
about.

A failure that stable made good does not show to the user; it shows in the host's `rq_error`, as does a refusal (4xx) of
what stable took. What both refused is the caller's mistake (`rq_excused`) and no failure. Counters are totals that may
restart from 0 (the proxy was restarted): then the new value is the difference.
Source: facts.md (Envoy), infra/decisions/0017. Must never import: sqlalchemy, flows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.gates.evidence import Alarm
from policies.rollout.verdict import ReasonCode
from services.traffic.admin import Host


@dataclass(frozen=True)
class HostTotals:
    """What one host had done when last read; requests that have ended, refused connections among them.

    `excused`: errors among them that are the callers' own; a total of the cluster, so it may begin above 0.
    """

    requests: int
    errors: int
    excused: int = 0


@dataclass(frozen=True)
class Delta:
    """Requests and failed requests since the last poll, over some hosts."""

    requests: int
    errors: int


def difference(
    held: Mapping[str, HostTotals], cluster: str, hosts: Iterable[Host]
) -> tuple[Delta, dict[str, HostTotals]]:
    """What the hosts of a cluster did since `held`, and the totals to hold next.

    A host not held yet counts from 0: the proxy makes a host's counters when it first sees it. Not so what is excused.
    """
    requests = errors = 0
    totals: dict[str, HostTotals] = {}
    for host in hosts:
        key = f"{cluster}/{host.address}"
        now = HostTotals(host.rq_done, host.rq_error, host.rq_excused)
        before = held.get(key, HostTotals(0, 0, now.excused))
        restarted = now.requests < before.requests or now.errors < before.errors
        base = HostTotals(0, 0) if restarted else before
        requests += now.requests - base.requests
        # What is excused is counted a moment later, when stable has refused it as well.
        errors += max(0, now.errors - base.errors - max(0, now.excused - base.excused))
        totals[key] = now
    return Delta(requests, errors), totals


def sickness(hosts: Iterable[Host]) -> str:
    """Why the release behind these hosts gets no traffic: `ejected`, `unhealthy`, `absent`; empty when it
    may."""
    states = ["ejected" if host.ejected else "" if host.healthy else "unhealthy" for host in hosts]
    if not states:
        return "absent"
    return "" if "" in states else sorted(states)[0]


def alarm(sick: str, since: float | None, *, now: float, after_s: float) -> Alarm | None:
    """The alarm for a release that has been sick for at least `after_s`; None before that."""
    if not sick or since is None or now - since < after_s:
        return None
    words = {
        "ejected": "the proxy has ejected it",
        "unhealthy": "it fails its health checks",
        "absent": "the proxy has no endpoint of it",
    }
    reason = ReasonCode.CANARY_EJECTED if sick == "ejected" else ReasonCode.CANARY_UNHEALTHY
    return Alarm(reason, f"{words[sick]} for {now - since:.1f} s (at most {after_s:g} s)")
