#!/bin/sh
# usage: bundle_wheels.sh [--dry-run] OUT [TORCH]
# Makes a folder OUT to carry to a machine without network: wheels of torch, fairseq, this package and all they need, and
# an install.sh that makes a virtual environment from them. TORCH is the requirement for pip (as in "torch==2.13.0"). The bundle
# is for the Python and the platform that it is made with; another Python: PYTHON=python3.12 bundle_wheels.sh OUT.
set -eu
cd "$(dirname "$0")/.."
say() { printf '== %s\n' "$*"; }
refuse() { echo "bundle_wheels.sh: $*" >&2; exit 2; }

dry=
if [ "${1:-}" = --dry-run ]; then dry=yes && shift; fi
[ $# -ge 1 ] && [ $# -le 2 ] || refuse "usage: bundle_wheels.sh [--dry-run] OUT [TORCH]"
out=$1 torch=${2:-torch==2.13.0}
case $out in /*) ;; *) out=${OLDPWD:-$PWD}/$out ;; esac # as seen from where it was called
[ ! -e "$out" ] || refuse "$out exists already; name a new folder, or remove it yourself"
[ -d "$(dirname "$out")" ] || refuse "there is no folder $(dirname "$out"); make it, or name another"

python=${PYTHON:-.venv/bin/python}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    refuse "no Python $python; run make setup, or name one: PYTHON=/path/to/python3.11 bundle_wheels.sh OUT"
constraints=$PWD/constraints/py$version.txt
[ -f "$constraints" ] || refuse "$python is Python $version; this package is for 3.10, 3.11 and 3.12"

parts=$out.partial
work=${TMPDIR:-/tmp}/bundle_wheels.$$
run() { if [ "$dry" ]; then printf '%s\n' "$*"; else "$@"; fi; }
pip() { run "$work/venv/bin/python" -m pip --disable-pip-version-check "$@"; }
fetch() { pip wheel -q --wheel-dir "$parts/wheels" --find-links "$parts/wheels" "$@"; }
if [ -z "$dry" ]; then
    [ ! -e "$parts" ] || refuse "$parts is left from another attempt, or one is running; remove it if not"
    trap 'rm -rf "$work" "$parts"' EXIT
    trap 'exit 130' INT TERM
    mkdir -p "$work/source" "$parts/wheels"
    cp "$constraints" "$work/constraints.txt"
    export PIP_CONSTRAINT="$work/constraints.txt" # by environment, because the option does not reach isolated builds
fi

say "torch, and what builds fairseq: Python $version, $torch"
run "$python" -m venv "$work/venv"
pip install -q "pip<24.1" # newer ones refuse the metadata of the omegaconf that fairseq 0.12.2 needs
fetch "pip<24.1" "setuptools<80" wheel cython numpy
# shellcheck disable=SC2086  # TORCH may carry options, such as an --index-url
fetch $torch
pip install -q --no-index --find-links "$parts/wheels" "setuptools<80" wheel cython numpy torch
if [ -z "$dry" ]; then # whatever follows is not to bring another torch
    "$work/venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' |
        tee "$parts/requirements.txt" >>"$work/constraints.txt"
fi

say "fairseq (compiled here: a few minutes)"
case $version in # as in make_venv.sh: the archive of 0.12.2 must not see torch, fairseq-fixed needs it
3.10) fairseq=fairseq==0.12.2 isolation= ;;
*) fairseq=fairseq-fixed==0.12.3.1 isolation=--no-build-isolation ;;
esac
# shellcheck disable=SC2086  # no argument when empty
fetch $isolation "$fairseq"

say "this package, and what it needs"
run cp -R setup.py pyproject.toml README.md fairseq_diffusion "$work/source" # built there: an old build/ here would get in
fetch --no-build-isolation "$work/source[plot]"

say "install.sh and checksums"
[ "$dry" ] && exit 0
printf '%s\n' "$fairseq" "fairseq-diffusion[plot]" >>"$parts/requirements.txt"
sed "s/@VERSION@/$version/" scripts/install_bundle.sh >"$parts/install.sh"
(cd "$parts" && sha256sum requirements.txt wheels/* >SHA256SUMS)
mv "$parts" "$out"
say "done: $out ($(du -sh "$out" | cut -f1)); carry it over, then: sh install.sh DIRECTORY [PYTHON]"
