//! Another build of Bugle, which announces and sends a version of the protocol between nodes that nobody knows.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The program: the one that `TEST_OTHER_VERSION` names, or else one that is built now if that may take minutes. The error is why there is none.
pub fn program(may_build: bool) -> Result<PathBuf, String> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    match std::env::var_os("TEST_OTHER_VERSION") {
        Some(given) => Ok(given.into()),
        None if may_build => Ok(BUILT.get_or_init(build).clone()),
        None => Err("needs TEST_OTHER_VERSION, the path of a build with the feature unknown-bus-version".to_owned()),
    }
}

fn build() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_bugle"));
    let apart = own.ancestors().nth(2).expect("it is in the directory of a profile").join("other-version");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--features", "unknown-bus-version", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).arg("--target-dir").arg(&apart);
    let built = cargo.status().expect("cargo runs");
    assert!(built.success(), "a node of another version cannot be built");
    apart.join("debug/bugle")
}
