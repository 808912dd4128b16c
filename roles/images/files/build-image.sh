#!/bin/sh
# Build one image: build-image.sh REFERENCE BASE ARCHIVE [--build-arg NAME=VALUE]…
# The rule: the reference is given last, by Docker, to a whole image. One build at a time, as one that belongs to a
# killed run may still be at work.
set -eu
reference=$1 base=$2 archive=$3
shift 3

exec 9>/run/lock/labstead-image.lock
flock --timeout 3600 9 || { echo "another build of an image has run for an hour; look for docker build" >&2; exit 1; }
if docker image inspect "$reference" >/dev/null 2>&1; then exit 0; fi
docker build --force-rm --tag "$reference" --build-arg "BASE=$base" "$@" - <"$archive" >&2
echo "built $reference"
