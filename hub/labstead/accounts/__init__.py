"""The accounts service: the only part of labstead that is root while the machine runs.

Rooms: `protocol` (what may be asked), `server` (who may ask), `client` (how the others ask), `service` (what is done
about people), `doors` (PAM and OpenID Connect), `pam` (passwords, in a process of their own), `making` (accounts),
`homes`, `groups` (with their folders), `spaces` (who has which, and how much they may hold), `limits` (how the disks
follow), `session_files` (a session's passwd and group), `machine` (NSS and the system's account tools), `ledger`,
`group_ledger` and `space_ledger` (which number was given to whom, who is in what, what was said of limits) in
`database` (their file).
"""
