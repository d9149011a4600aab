"""The scheduled retention: what `trimtab retention run` does, with its periods as parameters of the deployment.

A run that was killed is finished by the next one; two at once wait for each other (services/retention).
"""

from __future__ import annotations

import time

from prefect import flow

from flows.wiring import WiringError, locate_home, open_store
from policies.language.quantities import seconds_of
from services.retention.retention import Kept, run_retention


@flow(name="retain", flow_run_name="{home}: store {older_than}", retries=0, persist_result=False)
def retain(
    older_than: str, logs_older_than: str, erase_after: str | None = None, home: str = "main"
) -> dict[str, object]:
    """Rows older than `older_than` go to Parquet, shipped logs and, where asked, days of Parquet go; what it did.

    Periods as in policies, e.g. 90d. Raises ValueError for a period that cannot be, WiringError without a home.
    """
    archive_s = None if erase_after is None else seconds_of(erase_after)
    kept = Kept(seconds_of(older_than), seconds_of(logs_older_than), archive_s)
    place = locate_home(home)
    if not (place.root / "ports.json").is_file():
        raise WiringError(f"there is no state in {place.root}: nothing to keep")
    return run_retention(place, open_store(place), kept, now=time.time(), by="schedule").to_json()
