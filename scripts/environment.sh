# Sourced by demo.sh and test.sh: `prepare EXTRAS` makes .venv where there is none, installs the project
# with those extras and pinned versions, and activates it. Done once, it returns at once.

prepare() {
    local extras=$1 python=${PYTHON:-python3} stamp
    if [ ! -x .venv/bin/pip ]; then # the last thing that a new environment gets
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "Python 3.11 or newer is needed; '$python' is $("$python" --version 2>&1)." \
                "Set PYTHON to another interpreter." >&2
            exit 1
        }
        echo "Making the virtual environment .venv ..."
        "$python" -m venv .venv
    fi
    stamp=.venv/installed-$extras-$(cat pyproject.toml scripts/constraints.txt | cksum | cut -d' ' -f1)
    if [ ! -e "$stamp" ]; then
        echo "Installing vmae-keras[$extras] with pinned versions; this takes a few minutes once ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            --constraint scripts/constraints.txt --editable ".[$extras]"
        touch "$stamp"
    fi
    . .venv/bin/activate
}
