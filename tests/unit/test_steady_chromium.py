"""The browser of the tests: networks that come and go on the machine do not reach it."""

import subprocess
import sys

from support.machine import ROOT

TRY = """
import errno, runpy, socket, sys

def can(family, kind):
    try:
        socket.socket(family, kind).close()
    except OSError as error:
        assert error.errno == errno.EAFNOSUPPORT
        return False
    return True

def tell():
    print(can(socket.AF_NETLINK, socket.SOCK_RAW), can(socket.AF_INET, socket.SOCK_STREAM))

tell()
runpy.run_path(sys.argv[1])["refuse_netlink"]()
tell()
"""


def test_it_hears_nothing_of_networks_and_uses_them_all_the_same() -> None:
    script = ROOT / "tests" / "browser" / "steady_chromium.py"
    done = subprocess.run([sys.executable, "-c", TRY, script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True True", "False True"]
    assert script.stat().st_mode & 0o111
