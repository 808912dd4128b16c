"""What a session has of Slurm and Dask: mounts, variables, settings, certificates."""

import os
import re
import ssl
import subprocess
from pathlib import Path

import pytest

from labstead import contract, insession
from labstead.compute import dask, session, tls
from labstead.identity import Identity
from labstead.settings import Cluster, Compute, Image, SessionCompute, Sessions, Worker

PERSON = Identity.model_validate(
    {"name": "anna", "uid": 20001, "gid": 20001, "groups": (20001,), "home": "/home/anna", "shell": "/bin/bash"}
)
WITHOUT = Sessions(images=(Image(name="base", title="Base", reference="labstead/base:1"),))
COMPUTE = SessionCompute(images_root=Path("/srv/compute"), clusters_per_user=3)
WITH = WITHOUT.model_copy(update={"compute": COMPUTE})
IMAGE_ID = "sha256:0123456789abcdef" + 48 * "0"
LAUNCHER = Path(contract.__file__).with_name("launcher.sh").read_text(encoding="utf-8")


def body(settings: Sessions) -> dict[str, object]:
    return contract.container(PERSON, "labstead/base:1", ["server"], ["A=b"], settings, "{}")


def _mounts(settings: Sessions) -> list[dict[str, object]]:
    return body(settings)["HostConfig"]["Mounts"]  # type: ignore[index, no-any-return]


# --- mounts and variables


def test_a_session_without_slurm_has_nothing_of_it() -> None:
    assert session.mounts(WITHOUT) == []
    assert session.environment(PERSON, IMAGE_ID, WITHOUT) == {}


def test_what_a_session_has_of_slurm_it_can_only_read() -> None:
    added = [mount for mount in _mounts(WITH) if mount not in _mounts(WITHOUT)]
    assert [(mount["Source"], mount["Target"]) for mount in added] == [
        ("/run/labstead/relay", "/run/labstead/relay"),
        ("/opt/labstead/session/slurm", "/usr/local/bin/sbatch"),
        ("/opt/labstead/session/slurm", "/usr/local/bin/scancel"),
        ("/opt/labstead/session/slurm", "/usr/local/bin/squeue"),
        ("/opt/labstead/session/slurm", "/usr/local/bin/sinfo"),
        ("/opt/labstead/session/slurm", "/usr/local/bin/sacct"),
        ("/opt/labstead/session/tls_errors.py", "/opt/labstead/session/tls_errors.py"),
        ("/opt/labstead/session/dask_preload.py", "/opt/labstead/session/dask_preload.py"),
        ("/etc/labstead/dask.yaml", "/etc/dask/labstead.yaml"),
        ("/srv/compute/images", "/srv/compute/images"),
    ]
    assert all(mount["ReadOnly"] and mount["Type"] == "bind" for mount in added)


def test_hub_and_gate_agree_on_it() -> None:
    name = contract.container_name(PERSON.name)
    assert contract.checked(body(WITH), name, PERSON, WITH, "{}") == body(WITH)
    for asked, settings in ((body(WITH), WITHOUT), (body(WITHOUT), WITH)):
        with pytest.raises(contract.ContractViolation, match=r"HostConfig\.Mounts differs"):
            contract.checked(asked, name, PERSON, settings, "{}")


def test_programs_are_where_the_mounts_say() -> None:
    names = {path.name for path in Path(insession.__path__[0]).glob("*.py")} - {"__init__.py"}
    sources = {path for path, _ in session.mounts(WITH) if session.PROGRAMS_DIR in path.parents}
    assert {path.name.removesuffix(".py") for path in sources} == {name.removesuffix(".py") for name in names}


def test_variables_say_what_belongs_to_one_session() -> None:
    keys = "/run/user/20001/labstead/dask"
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    roles = {
        f"{prefix}{role}__{what}": f"{keys}/{file}.pem"
        for role in ("SCHEDULER", "WORKER", "CLIENT")
        for what, file in (("KEY", "key"), ("CERT", "cert"))
    }
    variables = session.environment(PERSON, IMAGE_ID, WITH)
    assert variables == {
        "LABSTEAD_IMAGE": "0123456789ab",
        "LABSTEAD_IMAGES_ROOT": "/srv/compute",
        "LABSTEAD_CLUSTERS": "3",
        "DASK_JOBQUEUE__SLURM__PYTHON": "/srv/compute/bin/in-image --dask 0123456789ab python3",
        "DASK_JOBQUEUE__SLURM__LOG_DIRECTORY": "/home/anna/.local/share/labstead/dask/logs",
        f"{prefix}CA_FILE": f"{keys}/ca.pem",
        **roles,
    }
    assert keys.startswith(contract.environment(PERSON, "x", WITH)["XDG_RUNTIME_DIR"] + "/")


def test_workers_on_this_machine_spill_into_scratch() -> None:
    name = "DASK_JOBQUEUE__SLURM__LOCAL_DIRECTORY"
    person = PERSON.model_copy(update={"scratch": Path("/scratch/anna")})
    assert session.environment(person, IMAGE_ID, WITH)[name] == "/scratch/anna"
    elsewhere = COMPUTE.model_copy(update={"cluster": Cluster(address="10.0.0.5", network="10.0.0.0/24")})
    settings = WITH.model_copy(update={"compute": elsewhere})
    assert name not in session.environment(person, IMAGE_ID, settings), "nodes have disks of their own"


# --- settings of Dask


def test_settings_follow_compute_yml() -> None:
    compute = Compute(
        mode="embedded",
        partition="labstead",
        worker=Worker(cores=2, memory=3 * 2**30, time="1-00:00:00"),
        idle_minutes=30,
    )
    found = dask.settings(compute)
    slurm = found["jobqueue"]["slurm"]
    assert {name: slurm[name] for name in ("queue", "cores", "processes", "memory", "walltime")} == {
        "queue": "labstead",
        "cores": 2,
        "processes": 1,
        "memory": "3072 MiB",
        "walltime": "1-00:00:00",
    }
    assert found["distributed"]["comm"]["default-scheme"] == "tls"
    assert found["distributed"]["scheduler"]["preload"] == [
        "/opt/labstead/session/tls_errors.py",
        "/opt/labstead/session/dask_preload.py",
    ]
    assert found["distributed"]["dashboard"]["link"] == "{JUPYTERHUB_SERVICE_PREFIX}proxy/{port}/status"
    assert found["labstead"]["idle-timeout"] == "30 minutes"
    factory = found["labextension"]["factory"]
    assert (factory["module"], factory["class"]) == ("dask_jobqueue", "SLURMCluster")


def test_a_site_may_leave_things_to_slurm_and_to_people() -> None:
    found = dask.settings(Compute(mode="existing", idle_minutes=0))
    assert found["jobqueue"]["slurm"]["queue"] is None
    assert found["labstead"]["idle-timeout"] is None


def test_nothing_but_dask_itself_listens_for_others() -> None:
    """Dashboards ask for no password."""
    slurm = dask.settings(Compute(mode="embedded"))["jobqueue"]["slurm"]
    assert slurm["scheduler-options"]["dashboard_address"] == "127.0.0.1:0"
    assert slurm["worker-extra-args"] == ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]


# --- certificates


def _launched(tmp_path: Path, bundle: str) -> Path:
    """Run the launcher; give the folder of the keys."""
    home, runtime = tmp_path / "home", tmp_path / "runtime"
    for folder in (home, runtime):
        folder.mkdir()
    environment = {**os.environ, "HOME": os.fspath(home), "XDG_RUNTIME_DIR": os.fspath(runtime), "LABSTEAD_TLS": bundle}
    show = 'umask; printf "%s" "${LABSTEAD_TLS-none}"; ls -A "$HOME"'
    words = ["/bin/sh", "-c", LAUNCHER, "labstead", "/bin/sh", "-c", show]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0002\nnone", "")
    return runtime / "labstead" / "dask"


def _context(side: ssl.Purpose, keys: Path, ca: Path) -> ssl.SSLContext:
    # As distributed makes them (distributed.security), and as strict as Python 3.13.
    context = ssl.create_default_context(side, cafile=os.fspath(ca / "ca.pem"))
    context.verify_mode, context.check_hostname = ssl.CERT_REQUIRED, False
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    return context


def _meet(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Shake hands in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    ends[0].write(b"hello")
    assert ends[1].read() == b"hello"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Give a session's certificates as the launcher leaves them."""
    return _launched(tmp_path, tls.pem_bundle("anna"))


def test_the_launcher_leaves_certificates_in_memory_for_their_owner_alone(keys: Path) -> None:
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in keys.iterdir()} == {
        "ca.pem": "0o600",
        "cert.pem": "0o600",
        "key.pem": "0o600",
    }
    assert oct(keys.stat().st_mode & 0o777) == "0o700"
    assert {path.name: re.findall("BEGIN (.*)-----", path.read_text(encoding="ascii")) for path in keys.iterdir()} == {
        "ca.pem": ["CERTIFICATE"],
        "cert.pem": ["CERTIFICATE"],
        "key.pem": ["PRIVATE KEY"],
    }


def test_parts_of_a_session_accept_each_other(keys: Path) -> None:
    _meet(_context(ssl.Purpose.SERVER_AUTH, keys, keys), _context(ssl.Purpose.CLIENT_AUTH, keys, keys))


def test_another_session_is_refused_on_either_side(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = _launched(tmp_path / "other", tls.pem_bundle("anna"))
    client, server = ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH
    with pytest.raises(ssl.SSLCertVerificationError):
        _meet(_context(client, other, other), _context(server, keys, keys))
    with pytest.raises(ssl.SSLCertVerificationError):
        _meet(_context(client, keys, other), _context(server, keys, keys))
    with pytest.raises(ssl.SSLCertVerificationError):
        _meet(_context(client, other, keys), _context(server, keys, keys))


def test_the_authority_signs_nothing_more() -> None:
    """Its key is nowhere, and what the session has cannot sign."""
    bundle = tls.pem_bundle("anna")
    assert [line for line in bundle.splitlines() if "BEGIN" in line] == [
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----",
    ]
    assert bundle != tls.pem_bundle("anna")


def test_a_session_without_slurm_gets_no_certificates(tmp_path: Path) -> None:
    assert not _launched(tmp_path, "").exists()


def test_a_session_starts_though_its_certificates_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "labstead").write_text("in the way", encoding="utf-8")
    environment = {
        **os.environ,
        "HOME": os.fspath(tmp_path),
        "XDG_RUNTIME_DIR": os.fspath(tmp_path),
        "LABSTEAD_TLS": tls.pem_bundle("anna"),
    }
    words = ["/bin/sh", "-c", LAUNCHER, "labstead", "/bin/sh", "-c", "echo started"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "started\n"
    told = f"labstead: no room in {tmp_path}/labstead; Dask clusters will not start in this session"
    assert told in done.stderr.splitlines()
    assert "PRIVATE" not in done.stderr
