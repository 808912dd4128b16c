#!/bin/sh
# Runs a command of a job in the image of a session: in-image [--dask] IMAGE COMMAND…
#
# The one rule: a job finds what a session has, at the same paths: home, group folders, data, scratch, certificates, and
# the image's own variables. What the job's script exports stays; what describes the machine around it does not.
#
# labstead writes the settings above this into the installed file. IMAGE is the first twelve digits of an image's id;
# with --dask a Dask worker proves by the session's certificate that it belongs there. Exit code: the command's; 2 for a
# wrong call; 3 where this machine cannot run it.
# shellcheck disable=SC2154 # images, certificates, the roots and the runtime are those settings
set -eu

fail() {
  code=$1
  shift
  printf 'in-image: %s\n' "$*" >&2
  exit "$code"
}

# Give the command a variable that the job does not have.
default() {
  if eval "[ -z \"\${$1+set}\" ]"; then export "$1=$2"; fi
}

dask=
if [ "${1:-}" = --dask ]; then
  dask=yes
  shift
fi
[ "$#" -ge 2 ] || fail 2 "write: in-image [--dask] IMAGE COMMAND…"
image=$1
shift
case $image in
  *[!0-9a-f]* | '') fail 2 "'$image' is no image; give the first twelve digits of its id" ;;
esac
tree=$images/$image
[ -f "$tree.env" ] || fail 3 "image $image is not on $(uname -n); stop your session, start it again and submit anew"
program=$(command -v "$runtime") || fail 3 "$runtime is not on $(uname -n); tell the administrators to install it"

# --- who it is

uid=$(id -u)
entry=$(getent passwd "$uid") || fail 3 "uid $uid has no account on $(uname -n)"
IFS=: read -r name _ _ _ _ home shell <<ENTRY
$entry
ENTRY
# shellcheck disable=SC2046 # words are meant; of those without a name nothing is printed
groups=$(getent group $(id -G) | sort)

# --- where things are

temporary=${TMPDIR:-/tmp}
if ! [ -d "$temporary" ] || ! [ -w "$temporary" ]; then temporary=/tmp; fi
case $PWD/ in
  "$home"/*) folder=$PWD ;;
  "$temporary"/*) folder=/tmp${PWD#"$temporary"} ;;
  *) folder=$home ;;
esac
binds=
for root in $roots; do
  [ -d "$root" ] || continue
  binds="$root $binds"
  case $PWD/ in "$root"/*) folder=$PWD ;; esac
done
own=
case $home/ in
  "$home_root"/*) ;;
  # Somebody of the machine's own with a home elsewhere; the image has no place for most of these.
  *)
    if [ -d "$tree$home" ]; then
      own=$home
    else
      case $folder/ in "$home"/*) folder=/ ;; esac
    fi
    ;;
esac
folders=
while IFS=: read -r group _ gid _; do
  if [ "${gid:-0}" -ge 1000 ] && [ -d "$group_root/$group" ]; then folders=${folders:+$folders:}$group_root/$group; fi
done <<GROUPS
$groups
GROUPS
# --- its environment

if [ -n "$dask" ]; then
  keys=$home/.local/share/labstead/dask
  [ -r "$keys/key.pem" ] || fail 3 "there is no certificate in $keys; make the cluster in a running session"
  export "DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$keys/ca.pem"
  export "DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT=$keys/cert.pem"
  export "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY=$keys/key.pem"
  export "DASK_DISTRIBUTED__NANNY__PRELOAD=$tls_errors" "DASK_DISTRIBUTED__WORKER__PRELOAD=$tls_errors"
fi
unset LC_ALL LC_CTYPE LC_COLLATE LC_MESSAGES LC_NUMERIC LC_TIME LANG LANGUAGE LD_LIBRARY_PATH LD_PRELOAD PYTHONHOME \
  XDG_RUNTIME_DIR XDG_CONFIG_DIRS XDG_DATA_DIRS DBUS_SESSION_BUS_ADDRESS
export "HOME=$home" "USER=$name" "LOGNAME=$name" "SHELL=${shell:-/bin/sh}" "DATA=$data_root" "LABSTEAD_IMAGE=$image"
if [ -n "$folders" ]; then export "GROUP_FOLDERS=$folders"; else unset GROUP_FOLDERS; fi
if [ -n "$scratch_root" ] && [ -d "$scratch_root/$name" ]; then
  export "SCRATCH=$scratch_root/$name" "PANGEO_SCRATCH=$scratch_root/$name"
fi
umask 0002

# --- the image

case $runtime in
  ch-run)
    # In a user namespace of one's own, so that Unix rights hold as they do outside; nothing of the image can be written.
    # Its own passwd would have / as everybody's home. The command's first step takes the files away again.
    export "TMPDIR=$temporary"
    people=$(mktemp -d "$temporary/in-image.XXXXXX") || fail 3 "$temporary on $(uname -n) cannot be written"
    printf '%s\n' "$entry" root:x:0:0::/root:/bin/sh nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin \
      >"$people/passwd"
    printf '%s\n' "$groups" root:x:0: nogroup:x:65534: >"$people/group"
    # shellcheck disable=SC2016 # $1 and $@ are the inner shell's
    set -- -b "$people/passwd:/etc/passwd" -b "$people/group:/etc/group" "$tree" -- \
      /bin/sh -c 'rm -rf "$1"; shift; exec "$@"' in-image "/tmp/${people##*/}" "$@"
    for root in $binds; do set -- -b "$root" "$@"; done
    if [ -n "$own" ]; then set -- -b "$own" "$@"; fi
    if [ -n "$certificates" ]; then set -- -b "$certificates_file:$certificates" "$@"; fi
    if [ -n "$dask" ]; then set -- -b "$tls_errors_file:$tls_errors" "$@"; fi
    set -- --no-passwd --env-no-expand -b "$temporary:/var/tmp" "--cd=$folder" "--set-env=HOME=$home" "$@"
    ;;
  apptainer)
    # After apptainer-exec(1) 1.3, and not tried: Debian has no package of it. It makes passwd itself, and takes PATH from
    # the image unless told.
    unset TMPDIR
    set -- "$tree" "$@"
    for root in $binds $own; do set -- --bind "$root" "$@"; done
    if [ -n "$certificates" ]; then set -- --bind "$certificates_file:$certificates" "$@"; fi
    if [ -n "$dask" ]; then set -- --bind "$tls_errors_file:$tls_errors" "$@"; fi
    set -- exec --no-home --no-mount cwd,hostfs --bind "$temporary:/tmp" --bind "$temporary:/var/tmp" --pwd "$folder" "$@"
    ;;
esac
# From here on PATH is the image's, and only what is built into the shell is found.
unset PATH
site
# shellcheck source=/dev/null
. "$tree.env"
default PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export "PATH=$home/.local/bin:$PATH"
if [ "$runtime" = apptainer ]; then export "APPTAINERENV_PATH=$PATH"; fi
exec "$program" "$@"
