"""Where a request goes: the route tables of the two listeners, as Envoy's JSON.

Users: canary iff `xxh64(unit id + ":" + salt, seed 0) % 10000 >= 10000 - weight`, so it is sticky, monotone in the
weight, and independent between salts. Without a unit id: stable, assigned "none", no evidence.
Rule 1: the order of the weighted clusters is [stable, canary_then_stable]; the formula depends on it.
Rule 2: headers that begin with x-trimtab- are ours; the listeners strip what a client sends (bootstrap.py).
Source: design.md §7, facts.md (Envoy). Must never import anything that does I/O.
"""

from services.traffic.clusters import CANARY_THEN_STABLE, FORCED_CANARY, FORCED_STABLE, SHADOW, STABLE
from services.traffic.settings import EnvoySettings
from services.traffic.slots import Slots
from services.traffic.state_files import Json

ASSIGNED = "x-trimtab-assigned"
SHADOW_MARK = "x-trimtab-shadow"
UNIT = "x-unit-id"
FORCE = "x-force"
DECIDE_PATH = "/decide"

RUNTIME_PREFIX = "routing.trimtab"
STABLE_KEY = f"{RUNTIME_PREFIX}.{STABLE}"
CANARY_KEY = f"{RUNTIME_PREFIX}.{CANARY_THEN_STABLE}"
TOTAL_WEIGHT = 10_000
"""Weights are in hundredths of a percent."""

USERS_ROUTES = "users"
HEADER_FILTER = "envoy.filters.http.header_mutation"
"""The filter that must stand before the router (bootstrap.py), idle unless a route configures it."""


def users_routes(slots: Slots, settings: EnvoySettings) -> dict[str, Json]:
    """The route table of the user listener for these slots (a RouteConfiguration)."""
    with_unit: Json = {
        "match": {
            "path": DECIDE_PATH,
            "headers": [{"name": UNIT, "string_match": {"safe_regex": {"regex": ".+"}}}],
        },
        "route": {
            "weighted_clusters": {
                "clusters": [
                    _weighted(STABLE, TOTAL_WEIGHT, "stable"),
                    {**_weighted(CANARY_THEN_STABLE, 0, "canary"), **_per_try(settings)},
                ],
                "runtime_key_prefix": RUNTIME_PREFIX,
                "use_hash_policy": True,
            },
            "hash_policy": [
                {
                    "header": {
                        "header_name": UNIT,
                        "regex_rewrite": {
                            "pattern": {"regex": "^(.*)$"},
                            "substitution": f"\\1:{slots.salt}",
                        },
                    }
                }
            ],
            **_timing(settings),
            **_mirror(slots),
        },
    }
    without_unit: Json = {
        "match": {"path": DECIDE_PATH},
        "route": {"cluster": STABLE, **_timing(settings), **_mirror(slots)},
        "request_headers_to_add": [_overwrite(ASSIGNED, "none")],
    }
    readiness: Json = {
        "match": {"path": "/readyz"},
        "route": {"cluster": STABLE, **_timing(settings)},
        "request_headers_to_add": [_overwrite(ASSIGNED, "none")],
    }
    nothing_else: Json = {
        "match": {"prefix": "/"},
        "direct_response": {
            "status": 404,
            "body": {
                "inline_string": '{"error":"not found: this listener serves POST /decide and GET /readyz"}\n'
            },
        },
        "response_headers_to_add": [_overwrite("content-type", "application/json")],
    }
    return _table(USERS_ROUTES, [with_unit, without_unit, readiness, nothing_else], settings)


def forced_routes(settings: EnvoySettings) -> dict[str, Json]:
    """The fixed route table of the test listener: `x-force: canary|stable`, else stable; never evidence."""
    to_canary: Json = {
        "match": {"prefix": "/", "headers": [{"name": FORCE, "string_match": {"exact": "canary"}}]},
        "route": {"cluster": FORCED_CANARY, **_timing(settings)},
        "request_headers_to_add": [_overwrite(ASSIGNED, "none")],
    }
    to_stable: Json = {
        "match": {"prefix": "/"},
        "route": {"cluster": FORCED_STABLE, **_timing(settings)},
        "request_headers_to_add": [_overwrite(ASSIGNED, "none")],
    }
    return _table("forced", [to_canary, to_stable], settings)


def _table(name: str, routes: list[Json], settings: EnvoySettings) -> dict[str, Json]:
    host: Json = {
        "name": name,
        "domains": ["*"],
        "include_request_attempt_count": True,
        # A retry and a mirror need the whole body: what the buffer filter lets in must fit here too.
        "request_body_buffer_limit": settings.max_body_bytes,
        "routes": routes,
    }
    return {"name": name, "virtual_hosts": [host]}


def _weighted(cluster: str, weight: int, assigned: str) -> dict[str, Json]:
    return {"name": cluster, "weight": weight, "request_headers_to_add": [_overwrite(ASSIGNED, assigned)]}


def _per_try(settings: EnvoySettings) -> dict[str, Json]:
    """A time limit per try for the canary's requests only.

    The router takes it from the route or from this header, before it adds the weighted cluster's own headers, and
    never from the cluster; so a filter in front of the router sets it, switched on by the weighted cluster.
    """
    header = _overwrite(
        "x-envoy-upstream-rq-per-try-timeout-ms", str(round(settings.per_try_timeout_s * 1000))
    )
    per_route: Json = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        "mutations": {"request_mutations": [{"append": header}]},
    }
    return {"typed_per_filter_config": {HEADER_FILTER: per_route}}


def _mirror(slots: Slots) -> dict[str, Json]:
    if slots.shadow is None:
        return {}
    everything: Json = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    mirror: Json = {
        "cluster": SHADOW,
        "runtime_fraction": everything,
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [{"append": _overwrite(SHADOW_MARK, "1")}],
    }
    return {"request_mirror_policies": [mirror]}


def _timing(settings: EnvoySettings) -> dict[str, Json]:
    return {"timeout": f"{settings.timeout_s}s"}


def _overwrite(name: str, value: str) -> dict[str, Json]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
