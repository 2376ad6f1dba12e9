//! MessagePack, as records, messages and entries hold it.
//!
//! Readers allow [`DEPTH_MAX`] levels. What buffers an unknown field reserves room for the length that each level
//! *announces*, up to 1 MiB a level; at the library's own bound of 1024 levels a message of two kilobytes asked for
//! a gigabyte. Everything this project writes has less than half of these levels; the rest is for newer versions.

use serde::{Deserialize, Serialize};

/// Levels of maps and lists within one value.
pub const DEPTH_MAX: usize = 32;

/// Reads a value.
///
/// # Errors
/// The decoder's: not such a value, or deeper than [`DEPTH_MAX`].
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut decoder)
}

/// Writes a value; structs as maps, so that a reader may know more or fewer fields.
///
/// # Errors
/// The encoder's, which would be a defect.
pub fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_be_deep_but_not_bottomless() {
        let nested = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
        let read = |levels| read::<rmpv::Value>(&nested(levels));
        assert!(read(DEPTH_MAX - 2).is_ok());
        assert!(read(DEPTH_MAX + 1).is_err());
    }
}
