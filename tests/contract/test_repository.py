"""What holds for all roles, inventories and files of the repository."""

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from labstead import settings
from labstead.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())
PYTHON_TYPES = {"str": str, "path": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment that the tests run in, in the root of the repository."""
    program = Path(sys.executable).with_name(str(words[0]))
    return subprocess.run(
        [program if program.exists() else words[0], *words[1:]],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        check=False,
        timeout=600,
    )


def specs(role: str) -> dict[str, Any]:
    """Read the settings that a role accepts."""
    document = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options: dict[str, Any] = document["argument_specs"]["main"]["options"]
    return options


def defaults(role: str) -> dict[str, Any]:
    """Read the defaults of a role."""
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def repository_files() -> list[Path]:
    """List what is, or would be, in git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file() and not path.is_symlink()]


def module(path: Path) -> Any:
    """Load a Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_what_the_specs_say(role: str) -> None:
    wanted = {name: spec["default"] for name, spec in specs(role).items() if "default" in spec}
    assert defaults(role) == wanted
    for name, value in wanted.items():
        assert type(value) is PYTHON_TYPES[specs(role)[name]["type"]], name


@pytest.mark.parametrize("role", ROLES)
def test_settings_are_named_for_their_role_and_explained(role: str) -> None:
    for name, spec in specs(role).items():
        assert name.startswith(f"{role}_")
        assert ("default" in spec) != bool(spec.get("required")), f"{name} has either a default or is required"
        assert any(line.startswith("Example: ") for line in spec["description"]), f"{name} has no example"


def tasks(role: str) -> list[dict[str, Any]]:
    """Give all tasks of a role, those in blocks too."""
    waiting = [
        task
        for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml"))
        for task in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]
    found = []
    while waiting:
        task = waiting.pop()
        waiting += task.get("block", [])
        found.append(task)
    return found


def notified(task: dict[str, Any]) -> set[str]:
    """Give the handlers that a task notifies."""
    names = task.get("notify", [])
    return {names} if isinstance(names, str) else set(names)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_notifies_has_the_handlers(role: str) -> None:
    path = ROOT / "roles" / role / "handlers" / "main.yml"
    handlers = {task["name"] for task in yaml.safe_load(path.read_text(encoding="utf-8"))} if path.exists() else set()
    assert set().union(*map(notified, tasks(role))) == handlers


@pytest.mark.parametrize("role", ROLES)
def test_a_restart_follows_from_what_is_on_the_machine(role: str) -> None:
    """A task that writes a file must not notify: its handler would be lost with a run that is killed."""
    for task in filter(notified, tasks(role)):
        assert "ansible.builtin.command" in task, task["name"]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_that_is_enabled_says_what_wants_it(role: str) -> None:
    """systemd takes `enable` of a unit without [Install] for done, and does not start it at boot."""
    for task in tasks(role):
        unit = task.get("ansible.builtin.systemd_service", {})
        name = unit.get("name", "")
        for path in (ROOT / "roles" / role / "files" / name, ROOT / "roles" / role / "templates" / f"{name}.j2"):
            if unit.get("enabled") and path.is_file():
                assert "\n[Install]\nWantedBy=" in path.read_text(encoding="utf-8"), path


def test_readmes_of_the_roles_are_the_specs() -> None:
    done = run("python", ROOT / "roles" / "readme.py", "--check")
    assert done.returncode == 0, done.stdout


def test_formats_are_for_settings_that_exist() -> None:
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    known = {name for role in ROLES for name in specs(role)}
    assert {re.split(r"[\[.]", name)[0] for name in checks.FORMATS} <= known


def test_sizes_mean_the_same_to_ansible_and_to_the_package() -> None:
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    texts = ("4G", "1", "512M", "2T", "0", "0G", "", "4GB", "5 apples", "-1G", "1.5G", "4g", "G", "٤G", "٠")
    for text in (*texts, "8388607T", "8388608T", "9223372036854775807", "9" * 5000):
        try:
            settings.parse_size(text)
            fits = True
        except ValueError:
            fits = False
        assert (checks.FORMATS["sessions_memory"](text) is None) is fits, text


@pytest.mark.parametrize(
    "limit",
    [
        *("none", "4G", "512M", "1", "0", "0G", "", "4GB", "5 apples", "None", "unlimited", "-1G"),
        *("8388607T", "8388608T", "99999999999T", "٤G", "٠٠"),
        *(0, 1, 4096, -1, 1.5, True, 2**63 - 2**40, 2**63 - 2**40 + 1, 2**63 - 1, 2**63, 10**30),
    ],
)
@pytest.mark.parametrize(("key", "field"), [("quota", "bytes"), ("files", "files")])
def test_limits_of_people_mean_the_same_to_ansible_and_to_the_package(limit: Any, key: str, field: str) -> None:
    people = {"users": [{"name": "anna", key: limit}]}
    try:
        settings.parse(settings.People, yaml.safe_dump(people), "people.yml")
        settings.Limit.model_validate({field: limit})
        fits = True
    except (BadInput, ValueError):
        fits = False
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    variables = {"hub_admins": ["jane"], "proxy_hostname": "hub.example.org", "accounts_users": people["users"]}
    assert (checks.problems_of(variables, checks.load_specs(ROOT / "roles"), lambda _: True) == []) is fits


PATHS = ["/srv/a", "/srv/ü", "/srv/a/", "srv", "/srv/../etc", "/srv/./a", "/", "//srv", "/srv/\u3000a"]


@pytest.mark.parametrize(
    "name",
    [
        *("accounts_shell", "storage_archive_root", "storage_data_root", "storage_group_root", "storage_home_root"),
        *("storage_scratch_root", "slurm_commands", "slurm_conf", "slurm_images_root"),
    ],
)
def test_a_path_that_ansible_takes_is_one_to_the_package(name: str) -> None:
    """What the package alone refuses ends a run in its middle, with disks made and files written."""
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    paths = [*PATHS, *(f"/srv/a{chr(code)}b" for code in range(1, 127))]
    taken = [path for path in paths if checks.FORMATS[name](path) is None]
    assert "/srv/a" in taken
    TypeAdapter(tuple[settings.AbsolutePath, ...]).validate_python(taken)


@pytest.mark.parametrize(
    ("name", "texts", "model", "field"),
    [
        (
            "slurm_worker_time",
            ["12:00:00", "7-00:00:00", "0-1:00:00", "36:00:00", "12:00", "90", "1-0", "1-00:00:00\n", "٤:00:00"],
            settings.Worker,
            "time",
        ),
        ("slurm_worker_memory", ["2G", "0", "", "2GB", "1024"], settings.Worker, "memory"),
        ("slurm_partition", ["short", "a.b_c-d", "-a", "a b", "a,b", "a\n"], settings.Compute, "partition"),
    ],
)
def test_what_ansible_takes_of_slurm_the_package_takes(
    name: str, texts: list[str], model: type[BaseModel], field: str
) -> None:
    """What the package alone refuses ends a run in its middle."""
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    taken = [text for text in texts if checks.FORMATS[name](text) is None]
    assert taken
    assert len(taken) < len(texts)
    for text in taken:
        model.model_validate({"mode": "embedded", field: text} if model is settings.Compute else {field: text})


@pytest.mark.parametrize(
    "limit",
    [
        *("none", "4G", "512M", "1", "0", "0G", "", "4GB", "5 apples", "None", "-1G", "8388607T", "8388608T", "٤G"),
        "9" * 5000,
    ],
)
def test_limits_of_all_mean_the_same_to_ansible_and_to_the_package(limit: str) -> None:
    try:
        settings.Limit.model_validate({"bytes": limit})
        fits = True
    except ValueError:
        fits = False
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    assert (checks.FORMATS["storage_home_quota"](limit) is None) is fits


@pytest.mark.parametrize(
    ("role", "variable", "model"),
    [
        ("accounts", "__accounts_settings", settings.Accounts),
        ("accounts", "__accounts_quotas", settings.Quotas),
        ("accounts", "__accounts_people", settings.People),
        ("sessions", "__sessions_settings", settings.Sessions),
        ("slurm", "__slurm_settings", settings.Compute),
        ("slurm", "__slurm_worker", settings.Worker),
        ("slurm", "__slurm_sessions", settings.SessionCompute),
        ("hub", "__hub_settings", settings.Hub),
        ("hub", "__hub_oidc", settings.Oidc),
        ("hub", "__hub_mail", settings.Mail),
    ],
)
def test_roles_write_every_key_that_the_package_reads(role: str, variable: str, model: type[BaseModel]) -> None:
    written = yaml.safe_load((ROOT / "roles" / role / "vars" / "main.yml").read_text(encoding="utf-8"))[variable]
    assert written.keys() == model.model_fields.keys()


@pytest.mark.parametrize(
    ("setting", "model"),
    [("accounts_users", settings.DeclaredUser), ("accounts_groups", settings.DeclaredGroup)],
)
def test_people_and_groups_are_declared_with_the_keys_that_the_package_reads(
    setting: str, model: type[BaseModel]
) -> None:
    assert specs("accounts")[setting]["options"].keys() == model.model_fields.keys()


@pytest.mark.parametrize(
    "user",
    [
        {"full_name": "Änne O'Berg-Å (guest)"},
        {"full_name": "Berg, Anna"},
        {"full_name": "a:b"},
        {"full_name": 'a"b'},
        {"full_name": "a\\b"},
        {"email": "anna@example.org"},
        {"email": "anna"},
        {"email": "anna@ex ample.org"},
        {"expires": "2027-09-30"},
        {"expires": "2027-02-30"},
        {"expires": "tomorrow"},
        {"expires": True},
        {"name": ""},
    ],
)
def test_people_are_right_or_wrong_to_ansible_and_to_the_package_alike(user: dict[str, Any]) -> None:
    people = {"users": [{"name": "anna", **user}]}
    try:
        settings.parse(settings.People, yaml.safe_dump(people), "people.yml")
        fits = True
    except BadInput:
        fits = False
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    variables = {"hub_admins": ["jane"], "proxy_hostname": "hub.example.org", "accounts_users": people["users"]}
    assert (checks.problems_of(variables, checks.load_specs(ROOT / "roles"), lambda _: True) == []) is fits


@pytest.mark.parametrize(
    "doors",
    [list(doors) for count in (0, 1, 2, 3) for doors in itertools.product(("native", "pam", "oidc"), repeat=count)],
)
def test_doors_are_right_or_wrong_to_ansible_and_to_the_package_alike(doors: list[str]) -> None:
    oidc = {"issuer": "https://login.example.org", "client_id": "labstead"} if "oidc" in doors else None
    hub = {
        "url": "https://hub.example.org",
        "address": "172.31.240.1",
        "admins": ["jane"],
        "doors": doors,
        "oidc": oidc,
    }
    try:
        settings.parse(settings.Hub, yaml.safe_dump(hub), "hub.yml")
        fits = True
    except BadInput:
        fits = False
    variables: dict[str, Any] = {"hub_admins": ["jane"], "proxy_hostname": "hub.example.org", "hub_doors": doors}
    if oidc:
        variables |= {f"hub_oidc_{key}": value for key, value in oidc.items()} | {"hub_oidc_client_secret": "x"}
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    assert (checks.problems_of(variables, checks.load_specs(ROOT / "roles"), lambda _: True) == []) is fits


def test_secrets_are_marked_as_such() -> None:
    """The check of the settings shows no value that is marked; the task that writes them tells nothing."""
    secrets = {name for role in ROLES for name in specs(role) if re.search("secret|password$", name)}
    assert secrets == {name for role in ROLES for name, spec in specs(role).items() if spec.get("no_log")}
    (task,) = (task for task in tasks("hub") if "site.env.j2" in str(task))
    assert task["no_log"] is True


@pytest.mark.parametrize("name", ["example", "vagrant", "demo"])
def test_inventories_pass_the_checks(name: str) -> None:
    checks = module(ROOT / "ansible" / "action_plugins" / "validate_settings.py")
    document = yaml.safe_load((ROOT / "inventory" / f"{name}.yml").read_text(encoding="utf-8"))["all"]
    variables = dict(document["vars"])
    for host in document.get("hosts", {}).values():
        variables.update(host or {})
    # What Ansible works out from the machine.
    variables = {key: value for key, value in variables.items() if "{{" not in str(value)}
    variables.setdefault("proxy_hostname", "198.51.100.2")
    assert checks.problems_of(variables, checks.load_specs(ROOT / "roles"), lambda _: True) == []


def test_the_example_is_short_and_says_why() -> None:
    text = (ROOT / "inventory" / "example.yml").read_text(encoding="utf-8")
    settings = yaml.safe_load(text)["all"]["vars"]
    assert len(settings) < 20
    assert settings.keys() <= {name for role in ROLES for name in specs(role)}
    lines = text.splitlines()
    for name in ("storage_home_root", "accounts_uid_min", "docker_session_subnet"):
        place = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        assert "annot be changed" in " ".join(lines[place - 3 : place]), f"{name} cannot be changed later: say so"
    for required in (name for role in ROLES for name, spec in specs(role).items() if spec.get("required")):
        assert required in settings


@pytest.mark.parametrize("folder", [".", "ansible"])
def test_site_yml_is_found_from_both_folders(folder: str) -> None:
    playbook = "ansible/site.yml" if folder == "." else "site.yml"
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            playbook,
            "--syntax-check",
            "-i",
            ROOT / "inventory" / "example.yml",
        ],
        cwd=ROOT / folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_run_without_inventory_fails_and_says_what_to_do() -> None:
    done = run("ansible-playbook", "-i", "nosuch.yml", "ansible/site.yml")
    assert done.returncode == 2
    assert "inventory: no host; copy inventory/example.yml to inventory/site.yml" in done.stdout


def test_a_mistake_ends_the_run_before_any_host_is_touched(tmp_path: Path) -> None:
    inventory = tmp_path / "site.yml"
    # Nothing answers at this address: a run that went on would hang or be unreachable.
    inventory.write_text(
        "all:\n  hosts:\n    hub: {ansible_host: 192.0.2.1}\n"
        "  vars: {hub_admins: [], proxy_hostname: hub.example.org, sessions_memory: 5 apples, hub_tilte: x}\n",
        encoding="utf-8",
    )
    done = run("ansible-playbook", "-i", inventory, "ansible/site.yml")
    assert done.returncode == 2
    told = [line.removeprefix("[ERROR]: ") for line in done.stderr.splitlines() if "inventory: hub: " in line]
    assert told == [
        "inventory: hub: hub_tilte: unknown setting; did you mean hub_title?",
        "inventory: hub: sessions_memory: '5 apples' is not a size; write a number and K, M, G or T, such as 4G",
        "inventory: hub: hub_admins: no admin, so nobody could approve anybody; name at least one",
    ]
    assert "Traceback" not in done.stdout + done.stderr
    assert "unreachable=0" in done.stdout


def test_the_package_is_packed_the_same_way_twice(tmp_path: Path) -> None:
    source = tmp_path / "hub"
    shutil.copytree(ROOT / "hub", source, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    script = ROOT / "roles" / "labstead" / "files" / "build_wheel.py"
    first = run("python", script, source, tmp_path / "a")
    for path in source.rglob("*"):
        os.utime(path, (0, 0))
    second = run("python", script, source, tmp_path / "b")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert yaml.safe_load(first.stdout)["sha256"] == yaml.safe_load(second.stdout)["sha256"]


def test_an_image_has_another_tag_when_anything_in_it_differs(tmp_path: Path) -> None:
    pack = module(ROOT / "roles" / "images" / "files" / "pack_images.py")
    certificate = tmp_path / "site.crt"
    certificate.write_text("one", encoding="utf-8")
    wheel = tmp_path / "session.whl"
    wheel.write_text("one", encoding="utf-8")
    request = {
        "images": str(ROOT / "images"),
        "names": ["base"],
        "base": "debian:1",
        "wheels": [str(wheel)],
        "certificates": [str(certificate)],
    }

    def tag(**changes: Any) -> str:
        return str(pack.main(tmp_path, {**request, **changes})[0]["reference"])

    first = tag()
    assert re.fullmatch(r"labstead/base:[0-9a-f]{12}", first)
    assert tag() == first
    assert tag(base="debian:2") != first
    assert tag(certificates=[]) != first
    for file in (certificate, wheel):
        file.write_text("two", encoding="utf-8")
        assert tag() != first
        file.write_text("one", encoding="utf-8")


def test_python_is_never_a_template() -> None:
    assert [path for path in repository_files() if path.name.endswith(".py.j2")] == []
    for path in (ROOT / "roles").rglob("*.py"):
        assert "{{" not in path.read_text(encoding="utf-8").replace("{{ ansible", ""), path


def test_nothing_names_the_checkout_it_was_written_in() -> None:
    place = str(ROOT).encode()
    assert [path for path in repository_files() if place in path.read_bytes()] == []


def test_linters_are_content() -> None:
    done = run("make", "lint")
    assert done.returncode == 0, done.stdout + done.stderr
