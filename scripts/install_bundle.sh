#!/bin/sh
# usage: install.sh DIRECTORY [PYTHON]
# Makes a virtual environment DIRECTORY from the wheels beside this file; nothing is fetched from a network.
set -eu
refuse() { echo "install.sh: $*" >&2; exit 2; }
[ $# -ge 1 ] && [ $# -le 2 ] || refuse "usage: install.sh DIRECTORY [PYTHON]"
here=$(cd "$(dirname "$0")" && pwd)
venv=$1 python=${2:-python@VERSION@}
[ ! -e "$venv" ] || refuse "$venv exists already; name a new folder"
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || refuse "no $python; name a Python @VERSION@"
[ "$found" = "@VERSION@" ] || refuse "$python is Python $found, and the wheels are for @VERSION@; name that one"
(cd "$here" && sha256sum --check --quiet SHA256SUMS) || refuse "the bundle is damaged or incomplete; copy it again"

"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --isolated --disable-pip-version-check install -q --no-index --find-links "$here/wheels" "$@"; }
pip "pip<24.1" "setuptools<80" # newer ones refuse the metadata of the omegaconf that fairseq 0.12.2 needs
pip -r "$here/requirements.txt"
"$venv/bin/fairseq-diffusion" doctor
