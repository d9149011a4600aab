"""The picture of a history judged again: two policies, a PNG and one HTML file that needs no network."""

from pathlib import Path

import numpy as np
from PIL import Image

from policies.gates.evidence import CountBlock, PollEvidence
from policies.gates.history import LoggedPoll, rehearse
from policies.rollout.rollout_policy import load_rollout
from policies.utility.utility import load_utility
from services.reports.history_plot import write_html, write_png
from services.rollout.policy_set import POLICIES

TEXT = (POLICIES / "telemarketing" / "rollout.yaml").read_text(encoding="utf-8")
RANGE = load_utility(
    (POLICIES / "telemarketing" / "utility.yaml").read_text(encoding="utf-8"), "utility.yaml"
).range


def test_both_pictures_show_every_gate_and_both_policies(tmp_path: Path) -> None:
    """Every gate of the stage is named in the page, each policy's lines too; the page loads nothing from elsewhere."""
    ran = load_rollout(TEXT, "rollout.yaml")
    other = load_rollout(
        TEXT.replace("bake: {min: 15s, max: 40s}", "bake: {min: 25s, max: 40s}"), "other.yaml"
    )
    polls = [
        LoggedPoll("canary-5", 100.0, PollEvidence(100 + at / 2, 5.0, {"canary_errors": CountBlock(0, 5)}))
        for at in range(1, 80)
    ]
    found = [
        (name, rehearse(policy, polls, RANGE, recorded_by=ran))
        for name, policy in (("ran", ran), ("other", other))
    ]
    write_png(tmp_path / "h.png", found, title="t")
    write_html(tmp_path / "h.html", found, title="t")
    with Image.open(tmp_path / "h.png") as picture:
        assert picture.size[0] > 1000
        assert (
            len(np.unique(np.asarray(picture.convert("RGB").resize((200, 200))).reshape(-1, 3), axis=0)) > 20
        )
    page = (tmp_path / "h.html").read_text(encoding="utf-8")
    for words in ("errors", "slow", "utility", "ran: evidence for passing", "other: evidence against it"):
        assert words in page
    assert "<script src=" not in page
