//! What must hold between the timers of protocol.md section 8: one table for a node's own configuration and for the
//! cluster's (`ha.*`).

/// Longest wait of a parked mutation: the SDK gives up reading after 20 s.
pub const PARK_MS_MAX: u64 = 19_000;

/// `(smaller, larger, why)`: the first must be less than the second.
const ORDER: &[(&str, &str, &str)] = &[
    ("heartbeat_ms", "suspect_ms", "one late heartbeat must not look like a death"),
    ("stagger_ms", "suspect_ms", "candidates must follow each other faster than they suspect"),
    ("probe_ms", "suspect_ms", "asking the primary must not take longer than suspecting it"),
    ("suspect_ms", "lease_ms", "a primary is suspected before its lease ends"),
    ("lease_ms", "evict_smap_ms", "a primary must lose its lease before it loses its place"),
    ("evict_smap_ms", "evict_voter_ms", "a seat among the voters outlives the place in the cluster map"),
    ("publish_wait_ms", "park_ms", "an answer waits for its publication less than for a primary"),
    ("lease_ms", "park_ms", "a mutation must be held for longer than a failover takes"),
    ("drain_ms", "park_ms", "a mutation must be held for longer than a hand-over takes"),
];

/// What does not fit together; empty: all is well. `ms` gives a timer by name, `None` when it has no (valid) value.
#[must_use]
pub fn problems(ms: impl Fn(&str) -> Option<u64>) -> Vec<String> {
    let disorder = |(small, large, why): &(&str, &str, &str)| {
        let (a, b) = (ms(small)?, ms(large)?);
        (a >= b).then(|| format!("{small} ({a}) must be less than {large} ({b}): {why}"))
    };
    let late = ms("park_ms")
        .filter(|park| *park > PARK_MS_MAX)
        .map(|park| format!("park_ms ({park}) must be at most {PARK_MS_MAX}: clients give up after 20 s"));
    ORDER.iter().filter_map(disorder).chain(late).collect()
}
