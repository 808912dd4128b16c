"""labstead: a JupyterHub on one Linux machine whose users are real Unix users.

The package holds what changes while the machine runs (accounts, sessions, the hub); what belongs to the
machine itself (packages, units, certificates) is Ansible's. Each module says at its top what it is for and
the one rule it keeps.
"""

__version__ = "0.1.0"
