//! Names in paths, headers, records and messages.

use std::fmt::Display;
use std::str::FromStr;

use ais_meta::{BootId, BucketName, ClusterUuid, DiskId, NodeId, VoterId};
use ais_node::discovery;

/// What parses, prints as something that parses as the same.
fn stable<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) -> Option<T>
where
    T::Err: std::fmt::Debug,
{
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string().parse::<T>().expect("what is printed parses"), value);
    Some(value)
}

pub(crate) fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(id) = stable::<NodeId>(&text) {
        assert!((1..=63).contains(&id.as_str().len()) && id.as_str() == text);
    }
    stable::<ClusterUuid>(&text);
    stable::<VoterId>(&text);
    stable::<DiskId>(&text);
    stable::<BootId>(&text);
    let (namespace, name) = text.split_once('/').unwrap_or(("", &text));
    if let Ok(bucket) = BucketName::new(namespace, name) {
        assert_eq!((bucket.namespace.as_str(), bucket.name.as_str()), (namespace, name));
        assert!(!name.contains("..") && !name.contains(['/', '\0']), "a name is one step of a path");
    }
    if let Some(address) = discovery::address(&text, Some(1)) {
        assert_eq!(discovery::address(&address.to_string(), None), Some(address));
    }
}

pub(crate) fn names_seeds() -> Vec<Vec<u8>> {
    [
        "g1",
        "cluster-12",
        "g1/00000000000000ff",
        "00000000000000ff",
        "ns/b.1",
        "http://h:1/",
        "[::1]:3",
        "h:1",
        "1.2.3.4",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
