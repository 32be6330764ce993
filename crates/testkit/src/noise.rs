//! Text that nothing makes shorter.

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";

/// So many letters and digits in which hardly anything repeats, the same each time: compressed they
/// take as much room.
pub fn noise(len: usize) -> String {
    let mut state = 1_u64;
    let letter = || {
        // Knuth's MMIX; its highest bits are the best.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 59) as usize])
    };
    std::iter::repeat_with(letter).take(len).collect()
}
