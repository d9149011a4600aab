"""What Envoy really does now, read back from its admin port: weight, endpoints and counters, salt, mirror.

A written file or a sent weight is an intent; these are the observations. Counters may reset (Envoy restarts):
read deltas. A failure that stable made good shows only in the canary host's `rq_error` (an answer 4xx or 5xx, a reset,
a refused connection, a per-try timeout: once each) and in `cluster.canary_then_stable.upstream_rq_retry`.
Source: facts.md (Envoy). Must never import bentoml, torch or sqlalchemy.
"""

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.home import LOOPBACK, Home
from services.traffic.clusters import CANARY, CANARY_THEN_STABLE
from services.traffic.errors import TrafficError
from services.traffic.routes import CANARY_KEY, CANARY_LIMIT, STABLE_KEY, TOTAL_WEIGHT, USERS_LIMIT
from services.traffic.state_files import Json
from services.traffic.throttle import Throttle

_REFUSED_BY_BOTH = rf"^cluster\.{CANARY_THEN_STABLE}\.upstream_rq_4xx$"
_SUBSTITUTION = re.compile(r"\\1:(.*)\Z")


@dataclass(frozen=True)
class Host:
    """One endpoint of a cluster: its state, and totals since Envoy first saw it (rq_active: now).

    `rq_excused`, of the canary only: requests assigned to it that were answered 4xx in the end, since Envoy started. It
    refused them and stable did, too: in its `rq_error`, but the caller's mistakes.
    """

    address: str
    priority: int
    healthy: bool
    ejected: bool
    rq_total: int
    rq_success: int
    rq_error: int
    rq_timeout: int
    rq_active: int
    cx_connect_fail: int
    rq_excused: int = 0

    @property
    def rq_done(self) -> int:
        """Requests with a known end. Use it, not rq_total, beside rq_error: a refused connection is no rq_total."""
        return self.rq_success + self.rq_error

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


class EnvoyAdmin:
    """Reads the Envoy of one home. Every method raises TrafficError when Envoy does not answer."""

    def __init__(self, home: Home, *, timeout_s: float = 2.0) -> None:
        self._port = home.ports.envoy_admin
        self._timeout_s = timeout_s

    def ready(self) -> bool:
        """Whether Envoy answers and serves; False, never an error, when it does not."""
        try:
            status, _ = self._request("GET", "/ready")
        except TrafficError:
            return False
        return status == 200

    def weight_pct(self) -> float:
        """The canary's weight in force, percent in [0, 100]."""
        entries = _mapping(self._json("/runtime?format=json").get("entries"))
        stable, canary = (_runtime_value(entries, key) for key in (STABLE_KEY, CANARY_KEY))
        if stable + canary <= 0:
            raise TrafficError(f"Envoy's weights must add up to {TOTAL_WEIGHT}: {stable} + {canary}")
        return 100.0 * canary / (stable + canary)

    def endpoints(self) -> dict[str, tuple[Host, ...]]:
        """Cluster name → its hosts, by priority; an empty cluster is there with no hosts."""
        found: dict[str, tuple[Host, ...]] = {}
        excused = self.counters(_REFUSED_BY_BOTH).values()
        for cluster in _sequence(self._json("/clusters?format=json").get("cluster_statuses")):
            status = _mapping(cluster)
            name = str(status["name"])
            total = sum(excused) if name == CANARY else 0
            hosts = [_host(_mapping(host), total) for host in _sequence(status.get("host_statuses"))]
            found[name] = tuple(sorted(hosts, key=lambda host: (host.priority, host.address)))
        return found

    def route_salt(self) -> str | None:
        """The salt of the user routes in force; None before Envoy has any."""
        for route in self._routes():
            for policy in _sequence(_mapping(route.get("route")).get("hash_policy")):
                rewrite = _mapping(_mapping(_mapping(policy).get("header")).get("regex_rewrite"))
                match = _SUBSTITUTION.match(str(rewrite.get("substitution", "")))
                if match:
                    return match.group(1)
        return None

    def limits(self) -> Throttle:
        """The rate limits of the user routes in force."""
        host = next(iter(self._hosts()), {})
        users = _mapping(host.get("typed_per_filter_config")).get(USERS_LIMIT)
        canary: Json = None
        for route in _sequence(host.get("routes")):
            weighted = _mapping(_mapping(_mapping(route).get("route")).get("weighted_clusters"))
            for cluster in _sequence(weighted.get("clusters")):
                filters = _mapping(_mapping(cluster).get("typed_per_filter_config"))
                canary = filters.get(CANARY_LIMIT, canary)
        return Throttle(canary_per_s=_per_s(canary), users_per_s=_per_s(users))

    def mirror_on(self) -> bool:
        """Whether the user routes in force mirror to the shadow cluster."""
        return any(_mapping(route.get("route")).get("request_mirror_policies") for route in self._routes())

    def counters(self, pattern: str) -> dict[str, int]:
        """Envoy's counters and gauges whose name matches the regular expression `pattern`."""
        quoted = pattern.replace("+", "%2B").replace("|", "%7C")
        answer = self._json(f"/stats?format=json&filter={quoted}")
        found: dict[str, int] = {}
        for entry in _sequence(answer.get("stats")):
            stat = _mapping(entry)
            value = stat.get("value")
            if "name" in stat and isinstance(value, int):
                found[str(stat["name"])] = value
        return found

    def rejected_files(self) -> tuple[str, ...]:
        """The subscriptions (endpoints, routes) of which Envoy refused a file since it started."""
        refused = self.counters(r"update_rejected$")
        return tuple(
            sorted(name.removesuffix(".update_rejected") for name, count in refused.items() if count)
        )

    def drain(self) -> None:
        """Stop accepting connections; what is in flight goes on."""
        self._request("POST", "/drain_listeners")

    def active_requests(self) -> int:
        """User and forced requests in flight."""
        return sum(self.counters(r"^http\.(users|forced)\.downstream_rq_active$").values())

    def _routes(self) -> list[Mapping[str, Json]]:
        return [_mapping(route) for host in self._hosts() for route in _sequence(host.get("routes"))]

    def _hosts(self) -> list[Mapping[str, Json]]:
        dump = self._json("/config_dump?resource=dynamic_route_configs")
        tables = [_mapping(_mapping(config).get("route_config")) for config in _sequence(dump.get("configs"))]
        return [_mapping(host) for table in tables for host in _sequence(table.get("virtual_hosts"))]

    def _json(self, path: str) -> Mapping[str, Json]:
        status, body = self._request("GET", path)
        if status != 200:
            raise TrafficError(f"Envoy's admin answered {status} to {path}: {body[:200]!r}")
        try:
            return _mapping(json.loads(body))
        except ValueError as error:
            raise TrafficError(f"Envoy's admin did not answer JSON to {path}") from error

    def _request(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise TrafficError(
                f"Envoy does not answer on {LOOPBACK}:{self._port} ({error}); is it up? see `trimtab status`"
            ) from error
        finally:
            connection.close()


def _host(status: Mapping[str, Json], excused: int) -> Host:
    socket = _mapping(_mapping(status.get("address")).get("socket_address"))
    health = _mapping(status.get("health_status"))
    ejected = bool(health.get("failed_outlier_check", False))
    sick = any(
        health.get(flag, False)
        for flag in ("failed_active_health_check", "pending_active_hc", "pending_dynamic_removal")
    )
    entries = [_mapping(entry) for entry in _sequence(status.get("stats"))]
    stats = {str(entry.get("name")): entry.get("value", 0) for entry in entries}
    priority = status.get("priority", 0)
    return Host(
        address=f"{socket.get('address')}:{socket.get('port_value')}",
        priority=priority if isinstance(priority, int) else 0,
        healthy=not sick and not ejected,
        ejected=ejected,
        rq_total=_count(stats.get("rq_total")),
        rq_success=_count(stats.get("rq_success")),
        rq_error=_count(stats.get("rq_error")),
        rq_timeout=_count(stats.get("rq_timeout")),
        rq_active=_count(stats.get("rq_active")),
        cx_connect_fail=_count(stats.get("cx_connect_fail")),
        rq_excused=excused,
    )


def _per_s(limit: Json) -> float | None:
    """Requests a second of a rate limit's token bucket; None where there is none."""
    bucket = _mapping(_mapping(limit).get("token_bucket"))
    if not bucket:
        return None
    return _count(bucket.get("tokens_per_fill")) / float(str(bucket.get("fill_interval")).removesuffix("s"))


def _runtime_value(entries: Mapping[str, Json], key: str) -> int:
    return _count(_mapping(entries.get(key)).get("final_value"))


def _count(value: Json) -> int:
    return int(value) if isinstance(value, int | float | str) and str(value) else 0


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Json) -> list[Json]:
    return list(value) if isinstance(value, list | tuple) else []
