"""The same split as Envoy's by nginx and by HAProxy: sticky by unit id, one retry on stable, a line for every decision.

Both get two threads, as Envoy does, and stable and canary are the same process, as in Envoy's case here.
"""

from __future__ import annotations

from pathlib import Path


def nginx_conf(folder: Path, *, port: int, upstream: int) -> str:
    """nginx.conf; nginx cannot retry on another pool, so canary's pool has stable as its backup."""
    return f"""
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 1024; }}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_body_buffer_size 1m; client_max_body_size 1m; keepalive_requests 1000000;
  log_format decisions escape=json '{{"request_id":"$request_id","unit":"$http_x_unit_id","assigned":"$pool",'
    '"at":"$time_iso8601","status":$status,"duration_s":$request_time,"upstreams":"$upstream_status"}}';
  access_log {folder}/nginx-access.jsonl decisions buffer=64k flush=1s;
  split_clients "$http_x_unit_id:s1" $pool {{ 50% canary; * stable; }}
  upstream stable {{ server 127.0.0.1:{upstream}; keepalive 32; keepalive_requests 1000000; }}
  upstream canary {{ server 127.0.0.1:{upstream}; server 127.0.0.1:{upstream} backup; keepalive 32;
                     keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location = /decide {{
      proxy_pass http://$pool;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Request-Id $request_id;
      proxy_set_header X-Trimtab-Assigned $pool;
      proxy_next_upstream error timeout http_500 http_503 non_idempotent;
    }}
  }}
}}
"""


def haproxy_cfg(*, port: int, upstream: int) -> str:
    """haproxy.cfg; the log goes to standard output."""
    return f"""
global
  nbthread 2
  log stdout format raw local0
defaults
  mode http
  timeout client 30s
  timeout server 10s
  timeout connect 500ms
  option http-keep-alive
  log global
  log-format '{{"unit":"%[var(txn.unit)]","assigned":"%b","at":"%tr","status":%ST,"duration_ms":%Ta,"retries":%rc}}'
frontend users
  bind 127.0.0.1:{port}
  option http-buffer-request
  http-request set-var(txn.unit) req.hdr(x-unit-id)
  http-request set-var(txn.bucket) req.hdr(x-unit-id),concat(:s1),xxh64(0),mod(10000)
  use_backend canary if {{ var(txn.bucket) -m int ge 5000 }}
  default_backend stable
backend stable
  http-request set-header X-Trimtab-Assigned stable
  http-reuse always
  server stable 127.0.0.1:{upstream} check inter 1s
backend canary
  http-request set-header X-Trimtab-Assigned canary
  http-reuse always
  retries 1
  retry-on conn-failure empty-response 500 503
  option redispatch 1
  server canary 127.0.0.1:{upstream} check inter 1s
  server stable 127.0.0.1:{upstream} backup
"""
