//! Bucket properties (http-api.md section 3). What an `ais://` bucket can have is stored for the data plane, which
//! honours it; what belongs to remote backends is refused.

use super::{Absent, All, Kind, Setting, Table};

/// AIStore's access bits (http-api.md section 6).
const ACCESS: u64 = (1 << 18) - 1;
const SWITCH: Kind = Kind::Bool;
const POLICY: Kind = Kind::Enum(&["", "immediate", "delayed", "never"]);
const DAY_MS: u64 = 24 * 3600 * 1000;
const INTERVAL: Kind = Kind::Duration { min_ms: 1000, max_ms: DAY_MS };
const TOKENS: Kind = Kind::U64 { min: 1, max: 1 << 31 };
/// Verbs with their own bounds, like `get:1000,put:100`.
const PER_VERB: Kind = Kind::Text { max: 256 };

const fn live(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, kind, default, live: true, doc }
}

/// Properties whose defaults the cluster's configuration may change.
pub(super) static INHERITED: &[Setting] = &[
    live(
        "checksum.type",
        Kind::Enum(&["none", "xxhash", "xxhash2", "md5", "crc32c", "sha256", "sha512"]),
        "xxhash",
        "checksum of new objects",
    ),
    live("checksum.validate_cold_get", SWITCH, "false", "verify what is read from a remote backend"),
    live("checksum.validate_warm_get", SWITCH, "false", "verify at each read"),
    live("checksum.validate_obj_move", SWITCH, "false", "verify when an object moves between targets"),
    live("checksum.enable_read_range", SWITCH, "false", "checksum of the range that is read"),
    live("versioning.enabled", SWITCH, "true", "count versions of objects"),
    live("versioning.validate_warm_get", SWITCH, "false", "compare with the remote version at each read"),
    live("versioning.synchronize", SWITCH, "false", "as validate_warm_get, and delete what is gone remotely"),
    live("mirror.copies", Kind::U64 { min: 1, max: 32 }, "2", "copies on one target"),
    live("mirror.burst_buffer", Kind::U64 { min: 0, max: 1 << 20 }, "128", "objects that may wait for their copies"),
    live("mirror.enabled", SWITCH, "false", "keep copies"),
    live("ec.enabled", SWITCH, "false", "erasure coding"),
    live("ec.data_slices", Kind::U64 { min: 1, max: 32 }, "1", "slices of data"),
    live("ec.parity_slices", Kind::U64 { min: 1, max: 32 }, "1", "slices of parity"),
    live("ec.objsize_limit", Kind::I64 { min: -1, max: i64::MAX }, "262144", "smaller objects are replicated instead"),
    live("ec.compression", Kind::Enum(&["never", "always"]), "never", "compress slices on their way"),
    live("ec.bundle_multiplier", Kind::U64 { min: 0, max: 16 }, "2", "streams for each target"),
    live("ec.disk_only", SWITCH, "false", "encode on disk only, not in memory"),
    live("lru.enabled", SWITCH, "false", "evict what was not read for long when a target is full"),
    live("lru.dont_evict_time", Kind::Duration { min_ms: 0, max_ms: 3650 * DAY_MS }, "2h", "keep what was read since"),
    live("lru.capacity_upd_time", Kind::Duration { min_ms: 1000, max_ms: DAY_MS }, "10m", "how often to look"),
    live("chunks.objsize_limit", Kind::Size { min: 0, max: 1 << 50 }, "0B", "larger objects are chunked; 0: none"),
    live("chunks.max_monolithic_size", Kind::Size { min: 1 << 20, max: 1 << 50 }, "1TiB", "larger objects must be"),
    live("chunks.chunk_size", Kind::Size { min: 1 << 10, max: 1 << 40 }, "1GiB", "size of a chunk"),
    live("chunks.checkpoint_every", Kind::U64 { min: 0, max: 1 << 20 }, "0", "chunks between checkpoints; 0: none"),
    live("rate_limit.backend.enabled", SWITCH, "false", "slow down for a remote backend"),
    live("rate_limit.backend.interval", INTERVAL, "1m", "time for max_tokens"),
    live("rate_limit.backend.max_tokens", TOKENS, "1000", "calls within the interval"),
    live("rate_limit.backend.num_retries", Kind::U64 { min: 1, max: 20 }, "3", "tries after a refusal"),
    live("rate_limit.backend.per_op_max_tokens", PER_VERB, "", "bounds by verb"),
    live("rate_limit.frontend.enabled", SWITCH, "false", "answer 429 above a rate"),
    live("rate_limit.frontend.interval", INTERVAL, "1m", "time for max_tokens"),
    live("rate_limit.frontend.max_tokens", TOKENS, "1000", "calls within the interval"),
    live("rate_limit.frontend.burst_size", TOKENS, "375", "calls at once"),
    live("rate_limit.frontend.per_op_max_tokens", PER_VERB, "", "bounds by verb"),
    live("write_policy.data", POLICY, "", "when data is written through"),
    live("write_policy.md", POLICY, "", "when objects' metadata is written"),
];

static OWN: &[Setting] = &[
    live("access", Kind::Bits(ACCESS), "18446744073709551615", "what clients may do (AIStore's access bits)"),
    live("features", Kind::Bits(0), "0", "feature flags; none of AIStore's means anything here"),
];

const READ_ONLY: &str = "it is given when the bucket is made";
const REMOTE: &str = "there are no remote backends";

/// Properties of a bucket.
pub static BUCKET: Table = Table {
    what: "bucket property",
    groups: &[OWN, INHERITED],
    absent: &[
        Absent { name: "bid", why: READ_ONLY },
        Absent { name: "created", why: READ_ONLY },
        Absent { name: "provider", why: READ_ONLY },
        Absent { name: "Renamed", why: "it is AIStore's own" },
        Absent { name: "backend_bck", why: REMOTE },
        Absent { name: "extra", why: REMOTE },
    ],
    together,
};

/// Rules between properties, as AIStore has them; also for the defaults in the cluster's configuration.
pub(super) fn together(all: &All) -> Result<(), String> {
    let mirrored = all.on("mirror.enabled");
    let copies = all.number("mirror.copies");
    if mirrored && copies < 2 {
        return Err(format!("mirror.enabled needs mirror.copies of 2 or more, it is {copies}"));
    }
    if mirrored && all.on("ec.enabled") {
        return Err("mirror.enabled and ec.enabled exclude each other".to_owned());
    }
    if all.text("checksum.type") == "none" {
        let verified = [
            "checksum.validate_cold_get",
            "checksum.validate_warm_get",
            "checksum.validate_obj_move",
            "checksum.enable_read_range",
        ];
        if let Some(name) = verified.iter().find(|name| all.on(name)) {
            return Err(format!("{name} needs a checksum.type other than none"));
        }
    }
    if !all.on("versioning.enabled") {
        let compared = ["versioning.validate_warm_get", "versioning.synchronize"];
        if let Some(name) = compared.iter().find(|name| all.on(name)) {
            return Err(format!("{name} needs versioning.enabled"));
        }
    }
    Ok(())
}
