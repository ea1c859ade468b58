"""Counts and places as people say them."""

from __future__ import annotations


def counted(number: int, what: str, *, one: str = "", more: str = "") -> str:
    """Return a number of things, one without an s; with a verb where both its forms are given.

    >>> counted(1, "layer"), counted(3, "layer", one="learns", more="learn")
    ('1 layer', '3 layers learn')
    """
    things = what if number == 1 else f"{what}s"
    return " ".join(filter(None, [str(number), things, one if number == 1 else more]))


def place_of(name: str) -> str:
    """Return the name of a module in quotes; the whole model has none.

    >>> place_of("body.0"), place_of("")
    ("'body.0'", 'the model itself')
    """
    return f"'{name}'" if name else "the model itself"
