"""What goes wrong in the alignment room, by its own name."""


class AlignmentError(ValueError):
    """Decisions, outcomes or groups that cannot be judged against the utility spec."""
