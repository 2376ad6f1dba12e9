//! Fuzz targets: one per decoder that reads bytes from outside (protocol.md section 12, rung 7).
//!
//! A target panics when its decoder breaks a property:
//! * no input panics it or makes it hold more than [`MEMORY_MAX`] bytes;
//! * what it refuses, it refuses with its typed error;
//! * what it takes, it writes again and reads back as the same.
//!
//! `cargo xtask fuzz` runs them under libFuzzer, guided by coverage. The kept corpus (`corpus/*.txt`, one input a
//! line, escaped as Rust escapes byte strings) also runs as an ordinary test on every build (`tests/corpus.rs`).
//!
//! Where a checksum or a digest would turn nearly every mutation away, the target puts it right first: what is behind
//! it is what needs testing. Beside such a target stands one that leaves the bytes alone.

mod bodies;
mod config;
mod corpus;
mod disk;
mod http;
mod state;
mod text;
mod wire;

use std::alloc::System;

pub use corpus::{escape, unescape};

/// The allocator that bounds what an input may hold.
pub type Memory = cap::Cap<System>;

/// One for a program's `#[global_allocator]`.
#[must_use]
pub const fn memory() -> Memory {
    cap::Cap::new(System, usize::MAX)
}

/// What the decoding of one input may hold at a time, in bytes: [`ais_meta::pack`] reserves 1 MiB a level at most.
pub const MEMORY_MAX: usize = 64 << 20;

/// One decoder under test.
pub struct Target {
    /// Its name, which is also that of its corpus.
    pub name: &'static str,
    /// What reads such bytes in the product.
    pub reads: &'static str,
    /// Panics when a property is broken.
    pub check: fn(&[u8]),
    /// Inputs made of real values: where mutation starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// Runs one input within [`MEMORY_MAX`]; the process ends when it needs more.
    pub fn run(&self, data: &[u8], memory: &Memory) {
        // Cannot fail: the limit is above what is allocated.
        let _ = memory.set_limit(memory.allocated().saturating_add(MEMORY_MAX));
        (self.check)(data);
        let _ = memory.set_limit(usize::MAX);
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "disk_vote", reads: "file vote", check: disk::vote, seeds: disk::vote_seeds },
    Target { name: "disk_state", reads: "file state", check: disk::state, seeds: disk::state_seeds },
    Target { name: "disk_raw", reads: "all files, checksums as they are", check: disk::raw, seeds: disk::raw_seeds },
    Target { name: "disk_small", reads: "files identity, genesis", check: disk::small, seeds: disk::small_seeds },
    Target { name: "disk_copy", reads: "file .ais.state of data disks", check: disk::copy, seeds: disk::copy_seeds },
    Target { name: "wire_packet", reads: "packets of members", check: wire::packet, seeds: wire::packet_seeds },
    Target { name: "wire_hello", reads: "the handshake's contents", check: wire::hello, seeds: wire::hello_seeds },
    Target { name: "wire_stream", reads: "bytes of a connection", check: wire::stream, seeds: wire::stream_seeds },
    Target { name: "state_full", reads: "whole States", check: state::full, seeds: state::full_seeds },
    Target { name: "state_delta", reads: "changes of States", check: state::delta, seeds: state::delta_seeds },
    Target { name: "state_change", reads: "forwarded mutations", check: state::change, seeds: state::change_seeds },
    Target { name: "http_query", reads: "queries", check: http::query, seeds: http::query_seeds },
    Target { name: "http_body", reads: "action messages", check: http::body, seeds: http::body_seeds },
    Target { name: "http_auth", reads: "header Ais-Auth", check: http::auth, seeds: http::auth_seeds },
    Target { name: "http_token", reads: "JSON Web Tokens", check: http::token, seeds: http::token_seeds },
    Target {
        name: "http_members",
        reads: "bodies about members, jobs and recovery; names of buckets",
        check: bodies::members,
        seeds: bodies::members_seeds,
    },
    Target {
        name: "http_keys",
        reads: "bodies about tokens, public keys, files of secrets",
        check: bodies::keys,
        seeds: bodies::keys_seeds,
    },
    Target { name: "config_file", reads: "ais-node's YAML", check: config::file, seeds: config::file_seeds },
    Target {
        name: "discovery_file",
        reads: "the list of members",
        check: config::discovery,
        seeds: config::discovery_seeds,
    },
    Target {
        name: "names",
        reads: "ids, bucket names, stamps, addresses",
        check: text::names,
        seeds: text::names_seeds,
    },
];

/// The target of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
