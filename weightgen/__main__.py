"""`python -m weightgen` is the command line."""

import sys

from weightgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
