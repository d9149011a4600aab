"""The one exception of the traffic room. Must never import anything of ours."""


class TrafficError(Exception):
    """The data plane cannot do what was asked; the text says what was found and what to do about it."""
