//! Compiles `proto/tollgate/v1` into Rust types and a descriptor set, without a `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let package = root.join("tollgate/v1");
    // Cargo looks into directories too, so a new file is noticed.
    println!("cargo:rerun-if-changed={}", package.display());

    let mut files: Vec<PathBuf> = fs::read_dir(&package)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    // The order of a directory is not defined; the descriptor set must be.
    files.sort();

    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tollgate.v1.descriptors.binpb"), descriptors.encode_to_vec())?;
    prost_build::Config::new().enable_type_names().compile_fds(descriptors)?;
    Ok(())
}
