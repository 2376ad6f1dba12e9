//! The `AISCluster` resource: its types, and the rules the API server checks.
//!
//! Only fields that do something are here. Others are refused where the client asks for strict validation, as `kubectl`
//! does by default; for other clients the API server prunes them. `aiscluster.yaml` beside this crate is generated from
//! these types by `ais-operator crd`.

// The derive of the rules repeats each struct inside a function, where `pub` means nothing.
#[allow(unreachable_pub)]
mod access;
mod manifest;
#[allow(unreachable_pub)]
mod networking;
#[allow(unreachable_pub)]
mod spec;
mod status;
#[allow(unreachable_pub)]
mod template;

pub use access::*;
pub use manifest::{ManifestError, crd, manifest};
pub use networking::*;
pub use spec::*;
pub use status::*;
pub use template::*;

/// API group of the resource.
pub const GROUP: &str = "aiscluster.dev";
/// Longest name of a cluster: every name and label derived from it then fits 63 characters.
pub const NAME_CHARS_MAX: usize = 40;
