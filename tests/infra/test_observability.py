"""The scrape configuration, the alerts and the dashboard speak of metrics that the control service really has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ruamel.yaml import YAML

from services.control import metrics
from services.control.state import ControlState
from services.home import Home, Ports
from services.store import decisions
from services.store.database import open_database

ROOM = Path(__file__).parents[2] / "infra" / "observability"


def names_offered(folder: Path) -> set[str]:
    home = Home(folder, Ports(1))
    db = open_database(home.database_url)
    try:
        decisions.set_watermark(db, 1.0, at=1.0)
        text = metrics.exposition(metrics.registry_of(ControlState(home, db, clock=lambda: 2.0))).decode()
    finally:
        db.close()
    return set(re.findall(r"^# TYPE (trimtab_\w+)", text, re.MULTILINE))


# Only after the shipper's first pass; test_control_process.py reads it from a running service.
AFTER_A_PASS = {"trimtab_shipper_lag_seconds"}


def test_every_metric_named_here_exists(tmp_path: Path) -> None:
    """A panel or an alert on a name that nobody exposes would be empty, and look like calm."""
    named = {
        name
        for file in ROOM.iterdir()
        for name in re.findall(r"trimtab_[a-z_]+[a-z]", file.read_text("utf-8"))
    }
    assert len(named) > 8
    assert named - names_offered(tmp_path) - AFTER_A_PASS == set()


def test_files_parse() -> None:
    """The YAML and the JSON are whole; each panel asks for something."""
    scrapes = YAML(typ="safe").load((ROOM / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert [one["job_name"] for one in scrapes] == ["trimtab", "envoy"]
    groups = YAML(typ="safe").load((ROOM / "alerts.yml").read_text("utf-8"))["groups"]
    assert all(rule["expr"] for group in groups for rule in group["rules"])
    dashboard = json.loads((ROOM / "grafana-trimtab.json").read_text("utf-8"))
    assert all(panel["targets"] for panel in dashboard["panels"])
