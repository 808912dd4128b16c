"""The accounts service: the only part of labstead that is root while the machine runs.

Rooms: `protocol` (what may be asked), `ledger` (which uid was given to whom), `service` (what is done),
`server` (who may ask), `client` (how the others ask).
"""
