"""The command line: `tinymaml train|evaluate|plot|show|data|doctor`.

To be read: main (the commands and their options; what errors and interruptions become), data (`tinymaml data`: images
into one file a data set), doctor (`tinymaml doctor`: what is installed and what can run here).
"""

from tinymaml.cli.main import main

__all__ = ["main"]
