"""`python -m torch_bregman` is the command `bregman`."""

import sys

from torch_bregman.cli import main

if __name__ == "__main__":
    sys.exit(main())
