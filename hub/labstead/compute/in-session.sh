#!/bin/sh
# Runs a command of a job in the image of the session that submitted it: in-session COMMAND…
#
# The one rule: it is in-image with the image that the relay named to the job.
set -eu
if [ -z "${LABSTEAD_IMAGE:-}" ]; then
  echo "in-session: this job was not submitted from a session; write: in-image IMAGE COMMAND…" >&2
  exit 2
fi
# shellcheck disable=SC2154 # in_image is written above this
exec "$in_image" "$LABSTEAD_IMAGE" "$@"
