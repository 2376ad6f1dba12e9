//! Highest random weight: AIStore's order of candidates and of targets (http-api.md section 7).

use xxhash_rust::xxh64::xxh64;

/// AIStore's seed for digests of names.
const SEED: u64 = 1_103_515_245;

/// XXH64 of a name with AIStore's seed: a node's `id_digest`.
#[must_use]
pub fn digest(name: &str) -> u64 {
    xxh64(name.as_bytes(), SEED)
}

/// AIStore's one-shot xoshiro256 mix.
#[must_use]
pub fn mix(x: u64) -> u64 {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let scramble = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let first = scramble(x.wrapping_add(GAMMA)).wrapping_add(GAMMA);
    scramble(first).wrapping_mul(5).rotate_left(7).wrapping_mul(9)
}

/// Weight of a target for an object: the highest wins.
#[must_use]
pub fn weight(node_digest: u64, uname_digest: u64) -> u64 {
    mix(node_digest ^ uname_digest)
}

/// Puts candidates in AIStore's order of succession: highest digest of the id first, no mixing. Ids break ties.
pub fn succession<T>(items: &mut [T], id: impl Fn(&T) -> &str) {
    items.sort_by(|a, b| digest(id(b)).cmp(&digest(id(a))).then_with(|| id(a).cmp(id(b))));
}
