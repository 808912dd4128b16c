"""JupyterHub as labstead sets it up.

Rooms: `configure` (settings → JupyterHub's configuration), `authenticator` and `handlers` (who comes in),
`spawner` (what they get), `database` (log-ins made from the command line), `templates` (pages).
"""
