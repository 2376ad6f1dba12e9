//! Every kept input and every seed through its target, on every build and without libFuzzer.

use std::fs;
use std::path::Path;

use ais_fuzz::{Memory, TARGETS, unescape};

#[global_allocator]
static MEMORY: Memory = ais_fuzz::memory();

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/{name}.txt"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| unescape(line).unwrap_or_else(|| panic!("{name}: not an escaped input: {line}"))).collect()
}

#[test]
fn every_kept_input_keeps_its_targets_properties() {
    for target in TARGETS {
        let (kept, seeds) = (corpus(target.name), (target.seeds)());
        assert!(!kept.is_empty() && !seeds.is_empty(), "{}: nothing to run", target.name);
        for input in kept.iter().chain(&seeds) {
            target.run(input, &MEMORY);
        }
    }
}

#[test]
fn no_corpus_is_left_without_a_target() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(directory).expect("the folder of the corpus") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        assert!(TARGETS.iter().any(|target| name == format!("{}.txt", target.name)), "{name}");
    }
}

/// Found by `wire_packet` and `state_delta`: lists of announced lengths within an unknown field, one in the other,
/// reserved a megabyte each.
#[test]
fn an_unknown_field_of_many_levels_reserves_no_gigabyte() {
    let mut deep = [0xdd, 0xff, 0xff, 0xff, 0xff].repeat(1000);
    deep.push(0xc0);
    let mut member = vec![0x81, 0xa1, b'x'];
    member.extend_from_slice(&deep);
    let mut hello = vec![0x81, 0xa7];
    hello.extend_from_slice(b"message");
    hello.extend_from_slice(&[0x81, 0xa5]);
    hello.extend_from_slice(b"Hello");
    hello.extend_from_slice(&[0x81, 0xa6]);
    hello.extend_from_slice(b"member");
    hello.extend_from_slice(&member);
    for name in ["wire_packet", "wire_hello", "disk_small", "state_full", "state_delta"] {
        let target = ais_fuzz::find(name).expect("a target");
        target.run(&hello, &MEMORY);
        target.run(&deep, &MEMORY);
    }
}
