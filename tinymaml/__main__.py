"""`python -m tinymaml` is the command `tinymaml`."""

import sys

from tinymaml.cli import main

sys.exit(main())
