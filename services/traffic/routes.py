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
from services.traffic.throttle import Throttle, token_bucket

ASSIGNED = "x-trimtab-assigned"
SHADOW_MARK = "x-trimtab-shadow"
THROTTLED = "x-trimtab-throttled"
UNIT = "x-unit-id"
FORCE = "x-force"
DECIDE_PATH = "/decide"

RUNTIME_PREFIX = "routing.trimtab"
STABLE_KEY = f"{RUNTIME_PREFIX}.{STABLE}"
CANARY_KEY = f"{RUNTIME_PREFIX}.{CANARY_THEN_STABLE}"
TOTAL_WEIGHT = 10_000
"""Weights are in hundredths of a percent."""

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_ASK_THE_ROUTES_AGAIN = f"""
function envoy_on_request(handle)
  if handle:headers():get("{THROTTLED}") then handle:clearRouteCache() end
end
"""

USERS_ROUTES = "users"
HEADER_FILTER = "envoy.filters.http.header_mutation"
"""The filter that must stand before the router (bootstrap.py), idle unless a route configures it."""
USERS_LIMIT = "trimtab.users_limit"
CANARY_LIMIT = "trimtab.canary_limit"
REROUTE = "trimtab.reroute"
"""Likewise: two rate limits, and what sends a request that the second one marked through the routes again."""


def users_routes(slots: Slots, settings: EnvoySettings, throttle: Throttle) -> dict[str, Json]:
    """The route table of the user listener for these slots and limits (a RouteConfiguration)."""
    throttled: Json = {
        "match": {"path": DECIDE_PATH, "headers": [{"name": THROTTLED, "present_match": True}]},
        "route": {"cluster": STABLE, **_timing(settings), **_mirror(slots)},
        "request_headers_to_add": [_overwrite(ASSIGNED, "none")],
    }
    with_unit: Json = {
        "match": {
            "path": DECIDE_PATH,
            "headers": [{"name": UNIT, "string_match": {"safe_regex": {"regex": ".+"}}}],
        },
        "route": {
            "weighted_clusters": {
                "clusters": [
                    _weighted(STABLE, TOTAL_WEIGHT, "stable"),
                    {**_weighted(CANARY_THEN_STABLE, 0, "canary"), **_for_canary(settings, throttle)},
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
        **_unlimited(throttle),
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
    routes: list[Json] = [throttled, with_unit, without_unit, readiness, nothing_else]
    return _table(USERS_ROUTES, routes, settings, _for_everyone(throttle))


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


def _table(
    name: str, routes: list[Json], settings: EnvoySettings, filters: dict[str, Json] | None = None
) -> dict[str, Json]:
    host: Json = {
        "name": name,
        "domains": ["*"],
        "include_request_attempt_count": True,
        # A retry and a mirror need the whole body: what the buffer filter lets in must fit here too.
        "request_body_buffer_limit": settings.max_body_bytes,
        "routes": routes,
        **(filters or {}),
    }
    return {"name": name, "virtual_hosts": [host]}


def _weighted(cluster: str, weight: int, assigned: str) -> dict[str, Json]:
    return {"name": cluster, "weight": weight, "request_headers_to_add": [_overwrite(ASSIGNED, assigned)]}


def _for_canary(settings: EnvoySettings, throttle: Throttle) -> dict[str, Json]:
    """What filters in front of the router do to the canary's requests only: a time limit per try, and a rate limit.

    The router takes the time limit from the route or from this header, before it adds the weighted cluster's own
    headers, and never from the cluster; so a filter in front of the router sets it, where the weighted cluster says so.
    """
    header = _overwrite(
        "x-envoy-upstream-rq-per-try-timeout-ms", str(round(settings.per_try_timeout_s * 1000))
    )
    per_try: Json = {
        "@type": f"{_FILTERS}.header_mutation.v3.HeaderMutationPerRoute",
        "mutations": {"request_mutations": [{"append": header}]},
    }
    filters: dict[str, Json] = {HEADER_FILTER: per_try}
    if throttle.canary_per_s is not None:
        # Over the limit it is marked, not refused; then the routes are asked again, of which the first knows the mark.
        filters[CANARY_LIMIT] = {
            **_limit("canary", throttle.canary_per_s),
            "filter_enforced": _percent(0),
            "request_headers_to_add_when_not_enforced": [_overwrite(THROTTLED, "1")],
        }
        filters[REROUTE] = {
            "@type": f"{_FILTERS}.lua.v3.LuaPerRoute",
            "source_code": {"inline_string": _ASK_THE_ROUTES_AGAIN},
        }
    return {"typed_per_filter_config": filters}


def _for_everyone(throttle: Throttle) -> dict[str, Json]:
    if throttle.users_per_s is None:
        return {}
    limit: Json = {
        **_limit("users", throttle.users_per_s),
        "filter_enforced": _percent(100),
        "response_headers_to_add": [_overwrite("retry-after", "1")],
    }
    return {"typed_per_filter_config": {USERS_LIMIT: limit}}


def _unlimited(throttle: Throttle) -> dict[str, Json]:
    if throttle.users_per_s is None:
        return {}
    off: Json = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    return {"typed_per_filter_config": {USERS_LIMIT: off}}


def _limit(name: str, per_s: float) -> dict[str, Json]:
    return {
        "@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": name,
        "token_bucket": token_bucket(per_s),
        "filter_enabled": _percent(100),
    }


def _percent(numerator: int) -> dict[str, Json]:
    return {"default_value": {"numerator": numerator, "denominator": "HUNDRED"}}


def _mirror(slots: Slots) -> dict[str, Json]:
    if slots.shadow is None:
        return {}
    mirror: Json = {
        "cluster": SHADOW,
        "runtime_fraction": _percent(100),
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [{"append": _overwrite(SHADOW_MARK, "1")}],
    }
    return {"request_mirror_policies": [mirror]}


def _timing(settings: EnvoySettings) -> dict[str, Json]:
    return {"timeout": f"{settings.timeout_s}s"}


def _overwrite(name: str, value: str) -> dict[str, Json]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
