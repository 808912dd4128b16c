#!/bin/sh
# Install one release of the packages: build-release.sh FOLDER LOCK WHEEL…
# The rule: FOLDER/.complete is written last; a folder without it is thrown away and made again. One build at a time,
# as one that belongs to a killed run may still be at work.
set -eu
folder=$1 lock=$2
shift 2

exec 9>/run/lock/labstead-release.lock
flock --timeout 900 9 || { echo "another build of a release has run for 15 minutes; look for pip" >&2; exit 1; }
[ ! -e "$folder/.complete" ] || exit 0

rm -rf -- "$folder"
/usr/bin/python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --no-input --disable-pip-version-check --require-hashes --requirement "$lock"
"$folder/bin/pip" install --quiet --no-input --disable-pip-version-check --no-deps "$@"
"$folder/bin/labstead" --help >/dev/null
"$folder/bin/share" --help >/dev/null
touch "$folder/.complete"
echo "installed $folder"
