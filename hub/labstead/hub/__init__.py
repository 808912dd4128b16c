"""JupyterHub as labstead sets it up.

Rooms: `configure` (settings → JupyterHub's configuration); `authenticator`, `oidc`, `doors` and `lockout` (who comes
in); `handlers`, `loginpage`, `people`, `groups`, `passwords`, `note` and `templates` (pages); `spawner` (what people
get); `tokens` (those that people ask for); `logins`, `database` and `login_protocol` (log-ins in the hub's database,
for the hub and for root); `api` (what root's commands ask the running hub).
"""
