use std::sync::Arc;

use proptest::prelude::*;

use super::{Damage, HEADER_LEN, Header, Item, Salt, Scanner, encode};
use crate::disk::{Disk as _, DiskFile, FaultyDisk};

const SALT: u64 = 0x1122_3344_5566_7788;

fn header(sequence: u64) -> Header {
    Header { kind: 1, epoch: 7, sequence, synced: sequence - 1, time_ms: 1000, length: 0 }
}

fn log(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, payload) in payloads.iter().enumerate() {
        encode(&mut out, Salt::new(SALT), &header(index as u64 + 1), |out| {
            out.extend_from_slice(payload);
        });
    }
    out
}

fn scan(bytes: &[u8]) -> Vec<Item> {
    let mut scanner = Scanner::new(bytes, Salt::new(SALT), 0).unwrap();
    std::iter::from_fn(|| scanner.next_item().unwrap()).collect()
}

fn sequences(items: &[Item]) -> Vec<u64> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Frame { header, .. } => Some(header.sequence),
            Item::Damage(_) => None,
        })
        .collect()
}

fn damages(items: &[Item]) -> Vec<Damage> {
    let damage = |item: &Item| match item {
        Item::Damage(damage) => Some(*damage),
        Item::Frame { .. } => None,
    };
    items.iter().filter_map(damage).collect()
}

#[test]
fn frames_come_back_as_they_were_written_and_unused_space_is_the_end() {
    let payloads = [b"one".to_vec(), Vec::new(), vec![0; 9000]];
    let mut bytes = log(&payloads);
    bytes.resize(bytes.len() + 20_000, 0);
    let items = scan(&bytes);
    assert_eq!(items.len(), 3);
    for (index, item) in items.iter().enumerate() {
        let Item::Frame { header: found, payload, .. } = item else { panic!("{item:?}") };
        let expected = Header { length: payloads[index].len() as u32, ..header(index as u64 + 1) };
        assert_eq!(*found, expected);
        assert_eq!(payload, &payloads[index]);
    }
}

#[test]
fn any_flipped_bit_costs_exactly_the_record_it_hits() {
    let bytes = log(&[vec![b'a'; 30], vec![b'b'; 5], vec![b'c'; 17]]);
    let ends = [HEADER_LEN + 30, 2 * HEADER_LEN + 35, 3 * HEADER_LEN + 52];
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << bit;
            let hit = ends.iter().position(|end| at < *end).unwrap() as u64 + 1;
            let expected: Vec<u64> = (1..=3).filter(|sequence| *sequence != hit).collect();
            let items = scan(&broken);
            assert_eq!(sequences(&items), expected, "byte {at} bit {bit}");
            assert_eq!(damages(&items).len(), 1);
            assert_eq!(damages(&items)[0].followed, hit != 3);
        }
    }
}

#[test]
fn every_prefix_keeps_its_whole_records() {
    let bytes = log(&[vec![b'a'; 30], vec![b'b'; 5], vec![b'c'; 17]]);
    let ends = [0, HEADER_LEN + 30, 2 * HEADER_LEN + 35, 3 * HEADER_LEN + 52];
    for len in 0..=bytes.len() {
        let whole = ends.iter().skip(1).filter(|end| **end <= len).count();
        let items = scan(&bytes[..len]);
        assert_eq!(sequences(&items).len(), whole);
        assert_eq!(damages(&items).is_empty(), len == ends[whole]);
    }
}

#[test]
fn a_body_full_of_foreign_frames_is_never_taken_for_one() {
    let mut body = Vec::new();
    for sequence in 1..50 {
        encode(&mut body, Salt::new(SALT + 1), &header(sequence), |out| out.push(1));
    }
    let mut bytes = log(&[b"first".to_vec(), body, b"third".to_vec()]);
    bytes[HEADER_LEN + 5 + 20] ^= 0xff; // the second header: the scan runs through the body
    assert_eq!(sequences(&scan(&bytes)), [1, 3]);
}

#[test]
fn a_scanner_reads_a_growing_file_up_to_the_end_it_is_given() {
    let disk = FaultyDisk::new(1);
    disk.create_dir("/d".as_ref()).unwrap();
    let file: Arc<dyn DiskFile> = disk.create("/d/f".as_ref(), 10_000).unwrap();
    let bytes = log(&[vec![1; 10], vec![2; 10], vec![3; 10]]);
    let one = (HEADER_LEN + 10) as u64;
    file.write_at(0, &bytes[..one as usize + 20]).unwrap();
    let mut scanner = Scanner::new(file.clone(), Salt::new(SALT), 0).unwrap();
    scanner.set_end(one).unwrap();
    assert!(matches!(scanner.next_item().unwrap(), Some(Item::Frame { .. })));
    assert_eq!(scanner.next_item().unwrap(), None);
    file.write_at(0, &bytes).unwrap();
    scanner.set_end(3 * one).unwrap();
    assert!(matches!(scanner.next_item().unwrap(), Some(Item::Frame { .. })));
    assert!(matches!(scanner.next_item().unwrap(), Some(Item::Frame { .. })));
    assert_eq!(scanner.next_item().unwrap(), None);
    assert_eq!(scanner.offset(), 3 * one);
}

#[test]
fn no_salt_begins_with_a_zero_byte() {
    assert_ne!(Salt::new(0).number() & 0xff, 0);
    assert_ne!(Salt::new(0xff00).number() & 0xff, 0);
    assert_eq!(Salt::new(SALT).number(), SALT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_overwritten_the_other_records_survive(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..12),
        from in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let mut bytes = log(&payloads);
        let clean = scan(&bytes);
        let from = from.index(bytes.len());
        let to = (from + noise.len()).min(bytes.len());
        bytes[from..to].copy_from_slice(&noise[..to - from]);
        let items = scan(&bytes);
        for item in &clean {
            let Item::Frame { offset, header, .. } = item else { continue };
            let untouched = *offset >= to as u64 || offset + header.frame_len() <= from as u64;
            prop_assert!(!untouched || items.contains(item));
        }
        let mut at = 0;
        for item in &items {
            let (offset, len) = match item {
                Item::Frame { offset, header, .. } => (*offset, header.frame_len()),
                Item::Damage(damage) => (damage.offset, damage.len),
            };
            prop_assert_eq!(offset, at);
            at = offset + len;
        }
    }
}
