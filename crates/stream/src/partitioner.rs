//! Which partition a key belongs to: murmur2, exactly as the Java client's default partitioner.
//!
//! Every producer of a topic must agree on this, or a call's records scatter over partitions.

/// Seed of Kafka's murmur2.
const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// 32-bit murmur2 with Kafka's seed.
pub fn murmur2(bytes: &[u8]) -> u32 {
    let mut hash = SEED ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key, from 0 to `partitions` - 1. `partitions` below 1 counts as 1.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // The Java client clears the sign bit; it does not take the absolute value.
    let positive = (murmur2(key) & 0x7fff_ffff) as i32;
    positive % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From Apache Kafka's own unit test of `Utils.murmur2`.
    const PUBLISHED: &[(&[u8], i32)] = &[
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        (b"abc", 479_470_107),
    ];

    #[test]
    fn hashes_are_those_that_the_java_client_publishes() {
        for (key, hash) in PUBLISHED {
            assert_eq!(murmur2(key) as i32, *hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn the_sign_bit_is_cleared_and_not_negated() {
        // toPositive(-973932308) = 1173551340
        assert_eq!(partition_of(b"21", i32::MAX), 1_173_551_340);
        assert_eq!(partition_of(b"21", 12), 1_173_551_340 % 12);
    }

    #[test]
    fn an_empty_key_has_a_partition_as_any_other() {
        assert_eq!(murmur2(b""), 275_646_681);
        assert_eq!(partition_of(b"", 12), 275_646_681 % 12);
    }

    proptest! {
        #[test]
        fn a_partition_is_always_one_of_the_topic(key: Vec<u8>, partitions in 1i32..1000) {
            prop_assert!((0..partitions).contains(&partition_of(&key, partitions)));
        }
    }
}
