# What the `run` of every recipe begins with; it is sourced there, in the recipe's directory, after $SCOPES was set.
# Leaves Bugle running with bugle.toml; $BUGLE, the binary; $BUGLE_API_KEY, which the backend calls with; $JWT_SECRET, which signs
# tokens; $files, a directory that goes with the run, where Bugle also logs; and the functions below.
. ../programs.sh
recipe=$PWD
files=$(mktemp -d)

# Secrets of this run. Entries of these two lists come from the environment or the file, but not a part of one from each.
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
