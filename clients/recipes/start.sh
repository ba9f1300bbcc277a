# What the `run` of every recipe begins with; it is sourced there, in the recipe's directory, after $SCOPES was set.
# Leaves Bugle running with bugle.toml; $BUGLE, the binary; $BUGLE_API_KEY, which the backend calls with; $JWT_SECRET, which signs
# tokens; $files, a directory that goes with the run, where Bugle also logs; and the functions below.
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
recipe=$PWD
files=$(mktemp -d)
started=
finish() {
  trap - EXIT INT TERM
  # The last one started goes first.
  for process in $started; do kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || :; done
  rm -rf "$files"
}
trap finish EXIT
trap 'exit 130' INT TERM

in_background() {
  "$@" </dev/null &
  started="$! $started"
}

# Secrets of this run. Entries of these two lists come from the environment or the file, but not a part of one from each.
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
BUGLE_API_KEY=$(random)
JWT_SECRET=$(random)
export BUGLE_API_KEY JWT_SECRET
serve() {
  # What it logs into files is gone with them.
  cd "$files"
  BUGLE_GRPC__API_KEYS__0__NAME=backend BUGLE_GRPC__API_KEYS__0__KEY=$BUGLE_API_KEY BUGLE_GRPC__API_KEYS__0__SCOPES=$SCOPES \
    BUGLE_AUTH__JWT__KEYS__0__ALGORITHM=HS256 BUGLE_AUTH__JWT__KEYS__0__SECRET=$JWT_SECRET \
    exec "$BUGLE" serve --config "$recipe/bugle.toml"
}

# A token, with the options of `bugle token mint`: token --user 42 --ttl 5m
token() {
  BUGLE_AUTH__JWT__KEYS__0__ALGORITHM=HS256 BUGLE_AUTH__JWT__KEYS__0__SECRET=$JWT_SECRET "$BUGLE" token mint --config "$recipe/bugle.toml" "$@"
}

# Packages of the Node programs of all recipes.
node_packages() {
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

# Runs a command again until it succeeds, for ten seconds.
await() {
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" = 50 ] || ! kill -0 "$bugle" 2>/dev/null; then
      cat "$files/bugle.log" >&2
      echo "Waited in vain for: $*" >&2
      exit 1
    fi
    sleep 0.2
  done
}

in_background serve 2>"$files/bugle.log"
bugle=${started%% *}
await grep listening "$files/bugle.log"
