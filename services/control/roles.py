"""Who may do what: viewer < operator < approver < admin, and who is calling.

A role may do all that the roles below it may. viewer reads; operator stops things and feeds outcomes; approver lets
a rollout pass a stage; admin gives and takes tokens. Must never import: any framework.
"""

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """Ordered: a higher value may do more."""

    VIEWER = 1
    OPERATOR = 2
    APPROVER = 3
    ADMIN = 4

    @property
    def word(self) -> str:
        return self.name.lower()


ROLE_WORDS = tuple(role.word for role in Role)


def role_of(word: str) -> Role:
    """The role of this name. Raises ValueError naming what exists."""
    if word not in ROLE_WORDS:
        raise ValueError(f"'role' must be one of {', '.join(ROLE_WORDS)}: {word!r}")
    return Role[word.upper()]


@dataclass(frozen=True)
class Caller:
    """Whom a token speaks for. `is_home`: it is the home's own token, held by whoever may read the home's files."""

    name: str
    role: Role
    is_home: bool = False
