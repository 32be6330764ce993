//! Fences, offsets, outbox and pools: what every consumer's database work shares.
