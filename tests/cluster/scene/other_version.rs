//! Another build of Bugle, which announces and sends a version of the protocol between nodes that nobody knows.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The program: the one that `BUGLE_OTHER_VERSION` names, or one that is built now.
pub fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let given = std::env::var_os("BUGLE_OTHER_VERSION").map(PathBuf::from);
    PROGRAM.get_or_init(|| given.unwrap_or_else(build)).clone()
}

/// What does not depend on the version is shared with the build of the tests: therefore it is a test that is built, with the same dependencies.
fn build() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_bugle"));
    let target = own.ancestors().nth(2).expect("it is in the directory of a profile");
    let apart = target.join("other-version");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--quiet", "--locked", "--no-run", "--test", "architecture"]);
    cargo.args(["--features", "unknown-bus-version", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&apart).arg("--config").arg(format!("build.build-dir='{}'", target.display()));
    let built = cargo.status().expect("cargo runs");
    assert!(built.success(), "a node of another version cannot be built");
    apart.join("debug/bugle")
}
