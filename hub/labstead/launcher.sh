#!/bin/sh
# What a session's container runs first, in any image: the sessions' umask, and a start in a home without room.
#
# The one rule: with room in the home it leaves everything to Jupyter. Without, what Jupyter and IPython must be able to
# write lies in memory until the session ends; they die where they cannot (measured: JupyterLab 4.6 with a full home
# does not start for its missing ~/.jupyter/migrated). What is in the home is still read.
#
# It is read into the container's command line: nothing here may need a file of the host's.

# With user-private groups this is what makes files in a shared folder writable for its group.
umask 0002

has_room() {
  # As much as a session writes before anybody asks it to: 32 files and 1 MiB.
  # shellcheck disable=SC2046 # words are meant
  mkdir "$1" && (cd "$1" && touch $(seq 32)) && head -c 1048576 /dev/zero >"$1/1"
}

try=$HOME/.labstead-room
spare=$XDG_RUNTIME_DIR/labstead
rm -rf "$try"
if ! has_room "$try" 2>/dev/null; then
  echo "labstead: no room in $HOME; settings and history of this session are kept in memory" >&2
  mkdir -p "$spare/config/lab" "$spare/data" "$spare/ipython/profile_default"
  : >"$spare/config/migrated"
  # Copies, as far as they are small; cp says nothing, as most of these are missing in most homes.
  timeout 10 cp -r "$HOME/.jupyter/lab/user-settings" "$HOME/.jupyter/lab/workspaces" "$spare/config/lab/" 2>/dev/null
  timeout 10 cp "$HOME/.local/share/jupyter/notebook_secret" "$HOME/.local/share/jupyter/nbsignatures.db" \
    "$spare/data/" 2>/dev/null
  timeout 10 cp -r "$HOME/.ipython/profile_default/startup" "$HOME"/.ipython/profile_default/*.py \
    "$spare/ipython/profile_default/" 2>/dev/null
  if ! has_room "$spare/try" 2>/dev/null; then
    echo "labstead: they are too large for that, so this session starts without those in $HOME" >&2
    rm -rf "$spare/config/lab" "$spare/data" "$spare/ipython"
    mkdir -p "$spare/data" "$spare/ipython/profile_default"
  fi
  rm -rf "$spare/try"
  export JUPYTER_CONFIG_DIR="$spare/config" JUPYTER_CONFIG_PATH="$HOME/.jupyter${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}"
  export JUPYTER_DATA_DIR="$spare/data" JUPYTER_PATH="$HOME/.local/share/jupyter${JUPYTER_PATH:+:$JUPYTER_PATH}"
  export IPYTHONDIR="$spare/ipython"
fi
rm -rf "$try"

# Certificates of Dask's clusters, where there is Slurm: one PEM after the other, the authority's, the session's, its key
# (labstead.compute.tls). They are kept in memory; copies for workers are made in the home when there is a cluster.
if [ -n "${LABSTEAD_TLS:-}" ]; then
  end='-----END CERTIFICATE-----'
  own=${LABSTEAD_TLS#*"$end"}
  if ! (
    umask 077
    mkdir -p "$spare/dask" && cd "$spare/dask" || exit
    printf '%s\n' "${LABSTEAD_TLS%%"$end"*}$end" >ca.pem &&
      printf '%s\n' "${own%%"$end"*}$end" >cert.pem &&
      printf '%s\n' "${own#*"$end"}" >key.pem
  ); then
    echo "labstead: no room in $spare; Dask clusters will not start in this session" >&2
  fi
fi
unset LABSTEAD_TLS
exec "$@"
