"""The release's own launcher, in its Bento, with a decision log that writes nothing: what the log costs, by difference.

Run as the launcher is, in the Bento's src. A file of the benchmark, because the product has no switch for it.
"""

import os
import sys
from collections.abc import Sequence

from services.serving import decision_log
from services.serving.launch import main


def forget(_log: decision_log.DecisionLog, _lines: Sequence[bytes]) -> None:
    """Instead of append."""


if __name__ == "__main__":
    decision_log.DecisionLog.append = forget  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:], os.environ))
