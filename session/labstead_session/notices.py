"""From when on people are told that a disk fills up.

The one rule: the session and the hub's pages say the same, so the numbers are here alone.
"""

NOTICE = 80
"""Percent of a limit from which on a notice is shown."""
WARNING = 95
"""Percent from which on it is a warning."""
