"""Dask on Slurm as people meet it: a notebook, its dashboard in a browser, and JupyterLab's own page of clusters."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from support.browsing import START, Shoot, Visit, fill_in_log_in, wait_for_lab
from support.lab import Lab
from support.person import Person
from support.slurm import DASK, cancel_all, ended, ids, jobs_of, wait_for_jobs

TIMES, ROWS, COLUMNS = 24, 50, 80
DATA = "/data/of-dask.zarr"

# Each value is its time and a hundredth of its row, so that means are known without computing them.
MAKE = f"""
import numpy, xarray
time, row, _ = numpy.indices(({TIMES}, {ROWS}, {COLUMNS}))
values = xarray.DataArray(time + row / 100, dims=("time", "lat", "lon"), name="sst")
values.to_dataset().chunk(time=2, lat=25).to_zarr("of-dask.zarr")
"""
MEANS = [time + (ROWS - 1) / 2 / 100 for time in range(TIMES)]

WHEEL = """
import subprocess, sys, zipfile
info = "labsteadworker-1.0.dist-info"
with zipfile.ZipFile("labsteadworker-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("labsteadworker.py", "answer = 4711")
    wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: labsteadworker\\nVersion: 1.0\\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(f"{info}/RECORD", "")
pip = [sys.executable, "-m", "pip", "install", "--quiet", "--user", "--no-index", wheel.filename]
subprocess.run(pip, check=True)
"""

CELLS = (
    """
from dask_jobqueue import SLURMCluster
from dask.distributed import Client
cluster = SLURMCluster()
cluster.scale(2)
client = Client(cluster)
client.wait_for_workers(2)
print(len(client.scheduler_info()["workers"]), "workers")
""",
    f"""
import json, xarray
dataset = xarray.open_zarr("{DATA}")
means = dataset.sst.mean(("lat", "lon")).compute()
print(json.dumps([round(float(mean), 6) for mean in means]))
""",
    """
def who():
    import os, labsteadworker
    return [os.getuid(), os.environ["SLURM_JOB_ID"], labsteadworker.answer]
print(json.dumps(list(client.run(who).values())))
""",
    "print(cluster.dashboard_link)",
    "client.close()\ncluster.close()\nprint('closed')",
)
"""A notebook as somebody writes it who has read nothing of this hub."""
NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": cell.strip()}
        for cell in CELLS
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 4,
}


@pytest.fixture
def rosalind(lab: Lab, admin: Person) -> Iterator[Person]:
    """Give somebody with a notebook, a package of her own, and data that all may read."""
    person = lab.join("rosalind", admin).start()
    kernel = person.kernel()
    kernel.run(MAKE + WHEEL)
    lab.machine.sh('rm -rf "$2"; mv "/home/$1/of-dask.zarr" "$2"; chown -R root:root "$2"', person.name, DATA)
    kernel.run(f"open('dask.ipynb', 'w').write({json.dumps(NOTEBOOK)!r})")
    yield person
    if lab.machine.exists():
        person.stop()
        cancel_all(lab, person.name)
        lab.machine.run("rm", "-rf", DATA)


def _text(page: Page, number: int, pattern: str) -> str:
    """Run the cell that is selected, the one of that number, and give what it prints; it must not warn of anything."""
    cell = page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(number)
    page.keyboard.press("Shift+Enter")
    output = cell.locator("[data-mime-type='application/vnd.jupyter.stdout'] pre")
    expect(output).to_have_text(re.compile(pattern), timeout=START)
    expect(cell.locator("[data-mime-type='application/vnd.jupyter.stderr']")).to_have_count(0)
    return output.inner_text().strip()


def test_a_notebook_with_a_cluster(lab: Lab, rosalind: Person, admin: Person, visitor: Visit, shoot: Shoot) -> None:
    page, name = visitor(), rosalind.name
    uid = int(lab.machine.out("id", "-u", name))
    page.goto(f"/hub/login?next=/user/{name}/lab/tree/home/{name}/dask.ipynb")
    fill_in_log_in(page, name)
    wait_for_lab(page, name)
    expect(page.get_by_text("Python 3 | Idle")).to_be_visible(timeout=START)
    page.locator(".jp-NotebookPanel:visible .jp-Cell").first.locator(".cm-content").click()

    assert _text(page, 0, r"2 workers") == "2 workers"
    jobs = jobs_of(lab, name)
    assert [(job.uid, job.comment, job.state) for job in jobs] == [(uid, DASK, "RUNNING")] * 2
    assert json.loads(_text(page, 1, r"^\[.*\]\s*$")) == pytest.approx(MEANS)
    workers = json.loads(_text(page, 2, r"^\[\[.*\]\]\s*$"))
    assert {(who, answer) for who, _, answer in workers} == {(uid, 4711)}
    assert {job for _, job, _ in workers} == ids(jobs)
    link = _text(page, 3, r"status")
    shoot(page, "80-dask-notebook")

    dashboard = page.context.new_page()
    dashboard.goto(link)
    expect(dashboard.get_by_role("link", name="Workers")).to_be_visible(timeout=START)
    expect(dashboard.locator("canvas").first).to_be_visible(timeout=START)
    shoot(dashboard, "81-dask-dashboard")
    dashboard.close()
    path = link if link.startswith("/") else "/" + link.split("/", 3)[3]
    assert path.startswith(f"/user/{name}/")
    stranger = lab.join("stan", admin)
    assert stranger.visit(path).status_code in (403, 404)
    assert "/hub/login" in lab.person("nobody").visit(path).url

    assert _text(page, 4, r"closed") == "closed"
    wait_for_jobs(lab, name, set())
    for job in jobs:
        assert ended(lab, job.id)["UserId"] == f"{name}({uid})"
    told = rosalind.kernel().out("sacct --noheader --allocations --parsable2 --format=JobID,User")
    assert {f"{job.id}|{name}" for job in jobs} <= set(told.splitlines())


def test_a_cluster_of_jupyterlabs_own_page(lab: Lab, rosalind: Person, visitor: Visit, shoot: Shoot) -> None:
    """The extension's cluster is of the same kind: jobs of Slurm, and a dashboard behind the hub."""
    page, name = visitor(), rosalind.name
    page.goto(f"/hub/login?next=/user/{name}/lab")
    fill_in_log_in(page, name)
    wait_for_lab(page, name)
    page.get_by_role("tab", name="Dask").click()
    page.get_by_title("Start New Dask Cluster").click()
    cluster = page.locator(".dask-ClusterListingItem")
    expect(cluster).to_have_count(1, timeout=START)
    cluster.get_by_role("button", name="SCALE").click()
    dialog = page.get_by_role("dialog")
    dialog.locator(".dask-ScalingInput").first.fill("1")
    dialog.get_by_role("button", name="SCALE").click()
    expect(cluster.get_by_text(re.compile(r"Number of Workers:\s*1"))).to_be_visible(timeout=START)
    shoot(page, "82-dask-page")
    (job,) = jobs_of(lab, name)
    assert (job.comment, job.state) == (DASK, "RUNNING")
    page.get_by_role("button", name="Task Stream", exact=True).click()
    expect(page.frame_locator("iframe").locator("canvas").first).to_be_visible(timeout=START)
    shoot(page, "83-dask-task-stream")
    cluster.get_by_role("button", name="SHUTDOWN").click()
    expect(cluster).to_have_count(0, timeout=START)
    wait_for_jobs(lab, name, set())
