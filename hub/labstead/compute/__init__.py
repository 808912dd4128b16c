"""Slurm for sessions: what a session has of it, and how a job runs in the session's image.

Rooms: `dask` (settings of dask-jobqueue and distributed), `session` (mounts and variables of a session), `tls` (the
certificates of its Dask clusters), `images` (images of sessions, flattened for jobs), `runner` (what runs a job in
one), `files` (settings and programs, put in place), `confine` (what keeps jobs within the limits of disks). The
programs that go into sessions are in `labstead.insession`.
"""
