#!/bin/sh
# usage: make_venv.sh DIRECTORY TORCH PYTHON...
# Makes a virtual environment with everything this project needs, or brings an existing one up to date.
# TORCH is the requirement for pip (e.g. "torch==2.13.0"); the first suitable PYTHON is taken.
set -eu
venv=$1 torch=$2
shift 2
say() { printf '== %s\n' "$*"; }

python=
for candidate in "$@"; do
    if "$candidate" -c 'import sys, venv; assert (3, 10) <= sys.version_info < (3, 13)' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "make setup: no suitable Python: tried $*, and none is Python 3.10, 3.11 or 3.12 with its venv module." >&2
    echo "make setup: install one (with the package python3-venv on Debian) or name it: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
fi

minor() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
version=$(minor "$python")
if [ "$(minor "$venv/bin/python" 2>/dev/null || true)" != "$version" ]; then
    say "new environment $venv with Python $version ($python)"
    "$python" -m venv --clear "$venv"
fi

constraints=constraints/py$version.txt hashes=constraints/py$version-hashes.txt own_sympy=
case $torch in
*torch==2.[56].*) # these require a sympy of their own
    grep -v '^sympy==' "$constraints" >"$venv/constraints.txt"
    constraints=$venv/constraints.txt own_sympy=sympy
    ;;
esac
PIP_CONSTRAINT=$constraints # by environment, because the option does not reach isolated builds
export PIP_CONSTRAINT
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
hashed() { # PATTERN FLAG ...: those of the pinned packages whose names match; an archive with another sum is refused
    grep -E "^($1)==" "$hashes" >"$venv/hashed.txt"
    shift
    pip install -q --no-deps --require-hashes "$@" -r "$venv/hashed.txt"
}

# pip 24.1 and newer refuse the metadata of the omegaconf that fairseq 0.12.2 needs
pip install -q "pip<24.1"
say "installing what $hashes pins"
tools='setuptools|wheel|Cython|numpy'
hashed "$tools"
hashed "$(grep -vE "^(#|($tools|fairseq.*${own_sympy:+|$own_sympy})==)" "$hashes" | sed 's/==.*//' | paste -sd '|' -)" \
    --no-build-isolation

say "installing $torch"
# shellcheck disable=SC2086  # TORCH may carry options, such as an --index-url
pip install -q $torch
pip list --format=freeze | grep -E '^(torch|triton)==' >"$venv/torch.txt"
grep -q '^triton==' "$venv/torch.txt" || cat constraints/triton.txt >>"$venv/torch.txt"

# fairseq-fixed needs torch to build, and compiles torch extensions with it. The archive of 0.12.2 lacks the sources of
# its own: it must not see torch, hence the isolation.
say "building fairseq (a few minutes the first time)"
case $version in
3.10) hashed 'fairseq.*' ;;
*) hashed 'fairseq.*' --no-build-isolation ;;
esac

say "installing this package, and what torch has no part in"
pip install -q -c "$venv/torch.txt" --no-build-isolation -e ".[dev,plot,export]"
"$venv/bin/python" -m fairseq_diffusion.cli.main doctor
