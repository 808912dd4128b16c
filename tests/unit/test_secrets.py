"""Secrets are made once and for root alone."""

import re
from pathlib import Path

from labstead import secrets


def test_tokens_are_made_once_and_shared(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    assert secrets.ensure(directory) == ["hub.env", "proxy.env"]
    hub, proxy = (directory / "hub.env").read_text(), (directory / "proxy.env").read_text()
    assert secrets.ensure(directory) == []
    assert (directory / "hub.env").read_text() == hub
    assert re.fullmatch(r"CONFIGPROXY_AUTH_TOKEN=[0-9a-f]{64}\n", proxy)
    assert proxy in hub
    assert secrets.selfcheck_token(directory) in hub
    assert secrets.selfcheck_token(directory) not in proxy
    assert secrets.command_token(directory) in hub
    assert len({secrets.selfcheck_token(directory), secrets.command_token(directory)}) == 2


def test_a_token_that_an_older_release_did_not_have_is_added(tmp_path: Path) -> None:
    secrets.ensure(tmp_path)
    before = (tmp_path / "hub.env").read_text().splitlines()
    (tmp_path / "hub.env").write_text("\n".join(line for line in before if secrets.COMMAND_TOKEN not in line) + "\n")
    assert secrets.command_token(tmp_path) == ""
    assert secrets.ensure(tmp_path) == ["hub.env"]
    assert secrets.selfcheck_token(tmp_path) in "".join(before)
    assert len(secrets.command_token(tmp_path)) == 64


def test_secrets_of_the_inventory_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    assert secrets.of_site("LABSTEAD_MAIL_PASSWORD", tmp_path) == ""
    (tmp_path / "site.env").write_text(
        '# It\'s from the inventory.\nA="x"\nLABSTEAD_MAIL_PASSWORD="a \\"b\\" $c \\\\d #e=f"\n'
    )
    assert secrets.of_site("LABSTEAD_MAIL_PASSWORD", tmp_path) == 'a "b" $c \\d #e=f'
    assert secrets.of_site("B", tmp_path) == ""


def test_only_root_can_read_them(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    secrets.ensure(directory)
    secrets.keep_admin_password("carla", "canary", directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    for file in directory.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_a_lost_proxy_file_gets_the_same_token_again(tmp_path: Path) -> None:
    secrets.ensure(tmp_path)
    before = (tmp_path / "proxy.env").read_text()
    (tmp_path / "proxy.env").unlink()
    assert secrets.ensure(tmp_path) == ["proxy.env"]
    assert (tmp_path / "proxy.env").read_text() == before


def test_passwords_are_long_and_legible() -> None:
    passwords = {secrets.new_password() for _ in range(100)}
    assert len(passwords) == 100
    assert all(re.fullmatch(r"[a-km-zA-HJ-NP-Z2-9]{20}", password) for password in passwords)
