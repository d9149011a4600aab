"""What a report quotes (data values, people's reasons) is shown, never run."""

import re
from pathlib import Path

import pandas as pd

from policies.rollout.verdict import Decision, ReasonCode, Verdict
from services.home import Home, Ports
from services.reports.stage_report import write_stage_report

MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_markup_in_values_and_reasons_stays_text(tmp_path: Path) -> None:
    """A category and a reason that hold `</script>` stand in the page's data with every `<` escaped, nowhere raw."""
    verdict = Verdict("contract", Decision.HOLD, ReasonCode.NO_DATA, f"ana: {MARKUP}", (), 1.0)
    link = write_stage_report(
        Home(tmp_path, Ports(39_000)),
        service="telemarketing",
        release="telemarketing-0123456789ab",
        stage="contract",
        verdict=verdict,
        kind="contract",
        current=pd.DataFrame({"job": [MARKUP, "clerk", "cook"] * 10}),
        reference=None,
        at=1.0,
    )
    page = link.path.read_text(encoding="utf-8")
    assert "ana: \\u003c/script>\\u003cscript>alert(1)" in page
    assert "alert(1)" not in re.sub(r"\\u003cscript>alert\(1\)", "", page)
    assert "<img src=x" not in page
