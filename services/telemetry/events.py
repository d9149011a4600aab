"""Log events as key=value, one line each, for the services that run without a person watching.

Values are quoted where they hold spaces. Never pass a token, a row or a whole log line.
Must never import: any other module of this project.
"""

import json
import logging


def log_event(logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log `event=<event> key=value …`, keys in the order given."""
    if logger.isEnabledFor(level):
        parts = [f"event={event}", *(f"{key}={_value(value)}" for key, value in fields.items())]
        logger.log(level, " ".join(parts))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if text and all(c.isprintable() and c not in ' "=' for c in text) else json.dumps(text)
