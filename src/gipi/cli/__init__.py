"""The command line: parsing and checking here, work in `gipi.api`, torch only when work begins."""

from gipi.cli.entry import main

__all__ = ["main"]
