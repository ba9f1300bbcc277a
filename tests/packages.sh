# Installs what tests of Node and Python need, where it is missing or another than the lock file says; to be sourced.

install_node_packages() {
  local directory=$1 what=$2
  local wanted=$directory/package-lock.json installed=$directory/node_modules/.installed-for
  cmp -s "$wanted" "$installed" && return
  printf '\n== Installing %s\n' "$what"
  # Nothing here needs a script of its package to be run.
  npm ci --prefix "$directory" --ignore-scripts --no-audit --no-fund
  cp "$wanted" "$installed"
}

install_python_packages() {
  local directory=$1 what=$2
  local wanted=$directory/requirements.txt venv=$directory/.venv
  local installed=$venv/installed-for
  cmp -s "$wanted" "$installed" && "$venv/bin/python" -c '' && return
  printf '\n== Installing %s\n' "$what"
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted"
  cp "$wanted" "$installed"
}

# The release binary: BUGLE_BIN, or else the one that is built of this crate.
release_binary_of() {
  local crate=$1 target
  if [[ -n ${BUGLE_BIN:-} ]]; then
    printf '%s' "$BUGLE_BIN"
    return
  fi
  cargo build --release --locked --manifest-path "$crate/Cargo.toml" >&2 || return
  target=$(cargo metadata --locked --no-deps --format-version 1 --manifest-path "$crate/Cargo.toml" |
    node -p 'JSON.parse(fs.readFileSync(0)).target_directory')
  printf '%s' "$target/release/bugle"
}
