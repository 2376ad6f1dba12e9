//! Ports for the nodes of one cluster.
//!
//! A node that was killed must get its port back, so ports that the system hands to outgoing connections are of no
//! use: blocks below that range are taken instead, each guarded by a listener on its first port, which two harnesses
//! cannot hold at once.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

const FIRST: u16 = 20_000;
const BLOCK_LEN: u16 = 64;
const BLOCKS: u16 = 180;

/// A block of ports that nobody listens on and no other harness takes.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    given: u16,
    /// Held, not used.
    _guard: TcpListener,
}

impl Ports {
    /// Finds a free block, starting at a random one so that harnesses started together seldom meet.
    pub fn reserve() -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let from = now.subsec_micros().wrapping_add(std::process::id());
        let from = u16::try_from(from % u32::from(BLOCKS))?;
        for i in 0..BLOCKS {
            let base = FIRST + (from + i) % BLOCKS * BLOCK_LEN;
            let Ok(guard) = TcpListener::bind((Ipv4Addr::LOCALHOST, base)) else { continue };
            if (1..BLOCK_LEN).all(|port| is_free(base + port)) {
                return Ok(Self { base, given: 0, _guard: guard });
            }
        }
        bail!("no block of {BLOCK_LEN} free ports between {FIRST} and {}", FIRST + BLOCKS * BLOCK_LEN);
    }

    /// Another port of the block.
    pub fn take(&mut self) -> Result<u16> {
        self.given += 1;
        if self.given >= BLOCK_LEN {
            bail!("a cluster of the harness has {} ports at most", BLOCK_LEN - 1);
        }
        Ok(self.base + self.given)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_meet() {
        let mut a = Ports::reserve().unwrap();
        let mut b = Ports::reserve().unwrap();
        assert_ne!(a.base, b.base);
        assert_ne!(a.take().unwrap(), b.take().unwrap());
        assert!(is_free(a.take().unwrap()));
    }
}
