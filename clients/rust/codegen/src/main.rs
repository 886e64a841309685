//! Writes the Rust code of a set of file descriptors, which protoc has made, into a folder.
//!
//! `protos/generate.py` runs it. So neither the users of the client nor its tests need a protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [descriptors, folder] = arguments.as_slice() else {
        return Err("usage: milepost-codegen DESCRIPTORS FOLDER".into());
    };
    let files = prost_types::FileDescriptorSet::decode(fs::read(descriptors)?.as_slice())?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .btree_map(".")
        .out_dir(folder)
        .compile_fds_with_config(files, config)?;
    Ok(())
}
