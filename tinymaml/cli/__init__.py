"""The command line: `tinymaml train|evaluate|plot|show|compare|data|doctor`.

To be read: main (the commands; what errors and interruptions become) · options (settings as options) · commands (what
train, evaluate, plot, show and compare do) · data (`tinymaml data`: images into one file a data set) · doctor (what is
installed and what can run here).
"""

from tinymaml.cli.main import main

__all__ = ["main"]
