"""The relay: how a session reaches Slurm.

`server` listens and knows who asks; `options` and `script` say what may be asked for, `commands` what is run for it;
`running` runs it as the person; `limits` says how much at a time; `completed` is sacct where Slurm has no database;
`client` is the hub's.

The one rule: whoever asks is who the kernel says, and what is run is run as them, so that Slurm and the kernel decide
what they may do. No reading of options or scripts is ever what keeps one person from another.
"""
