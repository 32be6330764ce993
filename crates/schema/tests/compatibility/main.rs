//! The gate between a change of `proto/` and the teams that read the topics.
//!
//! `proto/tollgate-v1.contract.txt` lists every field and enum value there has ever been. What is
//! in it keeps its number, type, name and presence, or is removed and reserved. Additions are
//! free: run the test with `UPDATE_SCHEMA=1` and commit the file with the change.

mod compare;
mod contract;

use std::path::Path;
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;

use compare::breaks;
use contract::Contract;

fn committed_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/tollgate-v1.contract.txt")
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(tollgate_schema::FILE_DESCRIPTOR_SET).unwrap()
}

#[test]
fn the_schema_keeps_every_promise_made_before_and_lists_the_new_ones() {
    let present = Contract::of(&descriptors());
    let update = env::var_os("UPDATE_SCHEMA").is_some();
    let text = match fs::read_to_string(committed_path()) {
        Ok(text) => text,
        Err(_) if update => String::new(),
        Err(error) => panic!("proto/tollgate-v1.contract.txt: {error}"),
    };
    let promised = Contract::parse(&text).unwrap();

    // A break is not something to update: readers have the old schema in their hands.
    let broken = breaks(&promised, &present);
    assert!(broken.is_empty(), "readers would break:\n{}", broken.join("\n"));

    if update {
        fs::write(committed_path(), present.to_string()).unwrap();
    } else {
        assert_eq!(
            text,
            present.to_string(),
            "the schema has grown: run with UPDATE_SCHEMA=1 and commit proto/tollgate-v1.contract.txt"
        );
    }
}

#[test]
fn a_contract_survives_its_text() {
    let contract = Contract::of(&descriptors());
    assert_eq!(Contract::parse(&contract.to_string()), Ok(contract));
}
