//! Entry points for fuzzing: plain functions over bytes, which must neither panic nor hang.

use std::path::Path;

use bytes::Bytes;
use tollgate_spool::disk::{Disk, FaultyDisk, read_up_to};

use super::EmbeddedOptions;
use super::format::{read_block, read_group};
use super::open::open;
use crate::TopicPartition;
use crate::settings::EmbeddedSettings;

const DIR: &str = "/log";

/// Takes the bytes as a segment file, opens the log as a start does, and reads every record that
/// it knows of.
///
/// # Panics
///
/// When the blocks of a partition overlap, or one gives other records than it says.
pub fn segment(data: &[u8]) {
    let disk = FaultyDisk::new(0);
    let _ = disk.create_dir(Path::new(DIR));
    disk.put(&Path::new(DIR).join("00000000000000000001-0123456789abcdef.log"), data.to_vec());
    let settings = EmbeddedSettings { dir: DIR.into(), segment_bytes: 4096, max_bytes: 1 << 20 };
    let Ok(opened) = open(&disk, &EmbeddedOptions::new(settings), 0) else { return };
    for (name, topic) in &opened.state.topics {
        for (number, log) in topic.partitions.iter().enumerate() {
            let partition = TopicPartition::new(&**name, number as i32);
            let mut next = log.low;
            for block in &log.blocks {
                assert!(block.base >= next && block.end() <= log.next, "blocks overlap");
                next = block.end();
                let read = read_up_to(&*block.segment.file, block.position, block.len as usize);
                let Ok(bytes) = read.map(Bytes::from) else { continue };
                let found = read_block(bytes, block.crc, &partition, block.base, block.count);
                assert!(found.is_none_or(|found| found.len() == block.count as usize));
            }
        }
    }
}

/// Takes the bytes as the payload of a group whose checksums are right: what a defect or another
/// version could have written.
///
/// # Panics
///
/// When a block gives other records than it says.
pub fn group(data: &[u8]) {
    let Some(group) = read_group(data) else { return };
    let mut rest = Bytes::copy_from_slice(&data[group.blocks_at as usize..]);
    for block in &group.head.blocks {
        let bytes = rest.split_to(block.len as usize);
        let partition = TopicPartition::new(block.topic.as_str(), block.partition);
        let crc = crc32c::crc32c(&bytes);
        let found = read_block(bytes, crc, &partition, block.base_offset, block.count);
        assert!(found.is_none_or(|found| found.len() == block.count as usize));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::format::{BlockHead, GroupHead, put_group};
    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_neither_panic_nor_hang(data: Vec<u8>) {
            segment(&data);
            group(&data);
        }

        #[test]
        fn heads_that_make_no_sense_are_refused(
            base_offset in prop_oneof![-1..2_i64, Just(i64::MAX), Just(i64::MIN)],
            count in prop_oneof![0..4_u32, Just(u32::MAX)],
            records in prop::collection::vec(0..3_u8, 0..6),
        ) {
            let len = records.len() as u32;
            let block = BlockHead { base_offset, count, len, ..BlockHead::default() };
            let mut payload = Vec::new();
            put_group(&mut payload, &GroupHead { blocks: vec![block], ..GroupHead::default() }, &[&records]);
            group(&payload);
        }
    }
}
