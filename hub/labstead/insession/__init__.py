"""Programs that labstead puts into sessions, whatever their image; the hub itself never runs them.

The one rule: they come as single files and stand on what the image has: `slurm` on Python alone, `dask_preload` on
distributed, which loads it.
"""
