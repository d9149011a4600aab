"""What Envoy talks to: the clusters of the releases, their health, ejection and retries, as Envoy's JSON.

`stable`, `canary`, `shadow` are separate clusters so that their counters never mix; the forced listener has two of
its own over the same endpoints. `canary_then_stable` tries the canary, then stable: a sick canary costs the user
nothing.
Rule 1: retries are a property of the cluster, not the route, because stable must not repeat a 5xx.
Rule 2: `ignore_health_on_host_removal`, or a removed but healthy host keeps its share for ever.
Source: facts.md (Envoy). Must never import anything that does I/O.
"""

from collections.abc import Mapping
from pathlib import Path

from services.home import LOOPBACK
from services.traffic.settings import EnvoySettings
from services.traffic.state_files import Json

STABLE = "stable"
CANARY = "canary"
SHADOW = "shadow"
CANARY_THEN_STABLE = "canary_then_stable"
FORCED_STABLE = "forced_stable"
FORCED_CANARY = "forced_canary"
RTDS = "weights"

_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TYPE = "type.googleapis.com/"


def endpoints_file(folder: Path, service: str) -> Path:
    """The endpoint file of `stable`, `canary` or `shadow`."""
    return folder / f"eds_{service}.json"


def endpoints(service: str, ports: tuple[int, ...]) -> dict[str, Json]:
    """The endpoint file's content: one loopback port per priority, the first serves."""
    return {
        "resources": [
            {
                "@type": f"{_TYPE}envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": service,
                "endpoints": [
                    {"priority": priority, "lb_endpoints": [{"endpoint": {"address": address(port)}}]}
                    for priority, port in enumerate(ports)
                ],
            }
        ]
    }


def address(port: int) -> dict[str, Json]:
    """A loopback socket address."""
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def all_clusters(folder: Path, rtds_port: int, settings: EnvoySettings) -> list[Json]:
    """Every cluster of the bootstrap; `folder` holds the endpoint files."""
    watched = {**_health(settings), **_ejection(settings)}
    rescue = _retries(
        {
            "retry_on": "5xx,reset,connect-failure,retriable-status-codes",
            # A 4xx of the canary is the caller's mistake only if stable says so, too.
            "retriable_status_codes": list(range(400, 500)),
            **_other_priority(),
        }
    )
    # Stable's own restart takes seconds: who cannot reach it waits for it, up to the route's time limit.
    again = _retries(
        {
            "retry_on": "reset,connect-failure",
            "num_retries": 20,
            "retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"},
            **_other_priority(),
        }
    )
    return [
        {**_release(folder, STABLE, STABLE, again), **watched},
        {**_release(folder, CANARY, CANARY, {}), **watched},
        {**_release(folder, SHADOW, SHADOW, {}), **watched},
        _release(folder, FORCED_STABLE, STABLE, {}),
        _release(folder, FORCED_CANARY, CANARY, {}),
        {
            "name": CANARY_THEN_STABLE,
            "connect_timeout": "0.5s",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {
                "name": "envoy.clusters.aggregate",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                    "clusters": [CANARY, STABLE],
                },
            },
            "typed_extension_protocol_options": {_PROTOCOL_OPTIONS: _http1(rescue)},
            **_breakers(),
        },
        _weights(rtds_port),
    ]


def _release(folder: Path, name: str, service: str, retries: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": "0.5s",
        "eds_cluster_config": {
            "service_name": service,
            "eds_config": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(endpoints_file(folder, service))},
            },
        },
        "ignore_health_on_host_removal": True,
        "typed_extension_protocol_options": {_PROTOCOL_OPTIONS: _http1(retries)},
        **_breakers(),
    }


def _http1(retries: Mapping[str, Json]) -> Json:
    return {
        "@type": _TYPE + _PROTOCOL_OPTIONS,
        # Shorter than uvicorn's 5 s keep-alive, or a request meets a connection that is just being closed.
        "common_http_protocol_options": {"idle_timeout": "3s"},
        "explicit_http_config": {"http_protocol_options": {}},
        **retries,
    }


def _retries(policy: Mapping[str, Json]) -> dict[str, Json]:
    return {"retry_policy": {"num_retries": 1, **policy}}


def _other_priority() -> dict[str, Json]:
    name = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    return {
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {"@type": _TYPE + name, "update_frequency": 1},
        }
    }


def _health(settings: EnvoySettings) -> dict[str, Json]:
    interval = f"{settings.health_interval_s}s"
    return {
        "health_checks": [
            {
                "timeout": interval,
                "interval": interval,
                # 60 s by default: a killed canary without traffic would stay healthy.
                "no_traffic_interval": interval,
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        "common_lb_config": {
            "ignore_new_hosts_until_first_hc": True,
            # 1 s by default: so long would the workers go on sending to a host that was found sick or ejected.
            "update_merge_window": "0s",
        },
    }


def _ejection(settings: EnvoySettings) -> dict[str, Json]:
    return {
        "outlier_detection": {
            "consecutive_5xx": settings.ejection_after_errors,
            "interval": "1s",
            "base_ejection_time": f"{settings.ejection_s}s",
            "max_ejection_percent": 100,
            # By default a passing /readyz brings an ejected host back within a second, unseen.
            "successful_active_health_check_uneject_host": False,
        }
    }


def _breakers() -> dict[str, Json]:
    limits: Json = {
        "priority": "DEFAULT",
        "max_connections": 4096,
        "max_pending_requests": 4096,
        "max_requests": 4096,
        # 3 by default: a canary that answers 500 would then fail its users.
        "max_retries": 1000,
    }
    return {"circuit_breakers": {"thresholds": [limits]}}


def _weights(port: int) -> Json:
    return {
        "name": RTDS,
        "type": "STATIC",
        "connect_timeout": "0.5s",
        "load_assignment": {
            "cluster_name": RTDS,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
        "typed_extension_protocol_options": {
            _PROTOCOL_OPTIONS: {
                "@type": _TYPE + _PROTOCOL_OPTIONS,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
