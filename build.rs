//! Compiles the protocol with protox, so that no machine needs protoc, and keeps the descriptor set for reflection.

use std::{env, path::PathBuf};

type Error = Box<dyn std::error::Error>;

const PROTOS: [&str; 5] = ["mailbox", "messages", "notify", "presence", "rooms"];
/// What nodes send each other and share, which reflection does not show.
const BUS: [&str; 2] = ["frame", "receipt"];

fn main() -> Result<(), Error> {
    let files: Vec<_> = PROTOS.iter().map(|name| format!("proto/bugle/v1/{name}.proto")).collect();
    println!("cargo::rerun-if-changed=proto");

    let descriptors = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?
        .encode_file_descriptor_set();
    let path = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("descriptors.bin");
    std::fs::write(&path, &descriptors)?;

    tonic_prost_build::configure()
        .bytes(".bugle.v1")
        .skip_protoc_run()
        .file_descriptor_set_path(&path)
        .compile_protos(&files, &["proto".into()])?;

    let files: Vec<_> = BUS.iter().map(|name| format!("proto/bugle/bus/v1/{name}.proto")).collect();
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".bugle.bus.v1")
        .build_client(false)
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
