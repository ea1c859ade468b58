"""`python -m gipi` is the command `gipi`."""

import sys

from gipi.cli import main

if __name__ == "__main__":
    sys.exit(main())
