# Sourced by demo.sh and test.sh. `prepare EXTRAS` creates .venv if it does not exist, installs the project
# with these extras and pinned versions, and activates it. Later calls install nothing.

prepare() {
    local extras=$1 python=${PYTHON:-python3} stamp
    if [ ! -x .venv/bin/pip ]; then # pip is installed last, so the environment is complete
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
