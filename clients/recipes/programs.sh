# What runs the programs of a recipe; it is sourced in the recipe's directory. Leaves $BUGLE, the binary, and the functions
# below. What in_background starts ends with the script.
set -eu

if [ -n "${BUGLE:-}" ]; then
  # Named from where `run` was called.
  case $BUGLE in /*) ;; */*) BUGLE=$OLDPWD/$BUGLE ;; esac
else
  BUGLE=$PWD/../../../target/release/bugle
  [ -x "$BUGLE" ] || BUGLE=$(command -v bugle) || {
    echo 'No bugle: build it (cargo build --release), or name it in the variable BUGLE.' >&2
    exit 1
  }
fi
export BUGLE
umask 077
files=
started=
finish() {
  trap - EXIT
  # A second Ctrl-C ends the wait for the process that is being stopped, which is then killed.
  trap : HUP INT TERM
  # The last one started goes first. A signal may have come before it was in the list.
  for process in ${!-} $started; do
    kill "$process" 2>/dev/null || continue
    wait "$process" 2>/dev/null || :
    # With job control each has a process group, with its own children.
    kill -KILL -- "-$process" 2>/dev/null || kill -KILL "$process" 2>/dev/null || :
  done
  rm -rf "$files"
}
trap finish EXIT
trap 'exit 130' HUP INT TERM

in_background() {
  "$@" </dev/null &
  started="$! $started"
}

# A secret, as 64 hexadecimal digits.
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# Packages of the Node programs of all recipes.
node_packages() {
  # The tests have them elsewhere.
  [ -z "${RECIPE_PACKAGES:-}" ] || return 0
  cmp -s ../package-lock.json ../node_modules/.installed-for && return
  # The marks come last: what was interrupted is done again.
  (umask 022 && npm ci --prefix .. --ignore-scripts --no-audit --no-fund >&2 && cp ../package-lock.json ../node_modules/.installed-for)
}

# Packages of the Python programs of all recipes. Leaves $PYTHON, which has them.
python_packages() {
  PYTHON=../.venv/bin/python
  cmp -s ../requirements.txt ../.venv/installed-for && "$PYTHON" -c '' 2>/dev/null && return
  (umask 022 && python3 -m venv --clear ../.venv &&
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -r ../requirements.txt >&2 &&
    cp ../requirements.txt ../.venv/installed-for)
}
