"""Names that people may have."""

import pytest

from labstead.names import RESERVED, problem_with_name


@pytest.mark.parametrize("name", ["anna", "j-doe", "b2", "x_y", "a" * 32])
def test_good_names_have_no_problem(name: str) -> None:
    assert problem_with_name(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "choose a username"),
        ("a" * 40, "at most 32"),
        ("Anna", "small letters"),
        ("../x", "starts with a letter"),
        ("a/b", "letters a-z, digits"),
        ("a b", "letters a-z, digits"),
        ("1st", "starts with a letter"),
        ("-x", "starts with a letter"),
        ("jürg", "letters a-z, digits"),
        ("anna\n", "letters a-z, digits"),
        ("anna.b", "letters a-z, digits"),
        ("root", "reserved"),
        ("slurm", "reserved"),
        ("daemon", "reserved"),
        ("admin", "reserved"),
        ("systemd-network", "reserved"),
        ("labstead-gate", "reserved"),
    ],
)
def test_bad_names_are_told_why(name: str, words: str) -> None:
    problem = problem_with_name(name)
    assert problem is not None
    assert words in problem


def test_a_site_can_reserve_names() -> None:
    assert problem_with_name("director") is None
    assert "reserved" in str(problem_with_name("director", reserved=["director"]))


def test_all_static_accounts_of_debian_are_reserved() -> None:
    """The list is that of Debian's base-passwd 3.6, passwd.master."""
    static = "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc nobody"
    assert set(static.split()) <= RESERVED
