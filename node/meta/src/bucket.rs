//! Bucket names and properties (http-api.md sections 2.3 and 3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::settings::Values;
use crate::{Extra, settings};

/// Longest bucket name (the SDK reads at most 132 characters after `ais://`; S3 allows 63; AIStore does not bound it).
pub const NAME_MAX: usize = 64;

/// Why a text is no bucket name. The messages are AIStore's rules.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum NameError {
    /// Nothing there.
    #[error("bucket name is empty")]
    Empty,
    /// Over [`NAME_MAX`].
    #[error("bucket name is longer than {NAME_MAX} characters")]
    TooLong,
    /// Other than letters, digits, dashes, underscores and single dots; a leading dot is reserved.
    #[error(
        "bucket name '{0}' may only contain letters, numbers, dashes (-), underscores (_), and dots (.), no '..', and no dot first"
    )]
    Characters(String),
    /// Namespace with characters outside `[A-Za-z0-9_-]`.
    #[error("namespace '{0}' may only contain letters, numbers, dashes (-), and underscores (_)")]
    Namespace(String),
}

/// An `ais://` bucket: a name in a namespace; the global namespace is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketName {
    /// Local namespace name, empty for the global one.
    #[serde(default)]
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl BucketName {
    /// Checks and makes a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule is broken.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_MAX || namespace.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !name.chars().all(|c| fine(c) || c == '.') || name.contains("..") || name.starts_with('.') {
            return Err(NameError::Characters(name.to_owned()));
        }
        if !namespace.chars().all(fine) {
            return Err(NameError::Namespace(namespace.to_owned()));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// AIStore's namespace key: `@#` or `@#name`.
    #[must_use]
    pub fn namespace_uname(&self) -> String {
        format!("@#{}", self.namespace)
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "ais://{}", self.name)
        } else {
            write!(f, "ais://#{}/{}", self.namespace, self.name)
        }
    }
}

impl FromStr for BucketName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new("", text)
    }
}

/// What the BMD says of a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its name.
    pub name: BucketName,
    /// Bucket id, never reused; bit 63 set as in AIStore's `ais://` buckets.
    pub bid: u64,
    /// When it was made: wall clock of the admitting gateway, unix nanoseconds. Shown, never compared.
    pub created_ns: i64,
    /// Checksum type.
    pub checksum: String,
    /// Whether versions are kept.
    pub versioning: bool,
    /// Access mask (all bits when new).
    pub access: u64,
    /// All other properties that differ from [`crate::settings::BUCKET`]'s defaults, by dotted name, canonical.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    pub props: Values,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Value of an access mask of all bits.
const ACCESS_ALL: &str = "18446744073709551615";

impl Bucket {
    /// All properties by dotted name, defaults included.
    #[must_use]
    pub fn all_props(&self) -> Values {
        let mut all = settings::BUCKET.defaults();
        all.extend(self.given_props());
        all
    }

    /// The properties that differ from the defaults of [`settings::BUCKET`].
    #[must_use]
    pub fn given_props(&self) -> Values {
        let mut given = self.props.clone();
        let fields = [
            ("access", self.access.to_string()),
            ("checksum.type", self.checksum.clone()),
            ("versioning.enabled", self.versioning.to_string()),
        ];
        let differs = |(name, value): &(&str, String)| settings::BUCKET.default_of(name) != Some(value);
        given.extend(fields.into_iter().filter(differs).map(|(name, value)| (name.to_owned(), value)));
        given
    }

    /// One property; `None`: there is no such one.
    #[must_use]
    pub fn prop(&self, name: &str) -> Option<String> {
        match name {
            "access" => Some(self.access.to_string()),
            "checksum.type" => Some(self.checksum.clone()),
            "versioning.enabled" => Some(self.versioning.to_string()),
            _ => self.props.get(name).map(String::as_str).or(settings::BUCKET.default_of(name)).map(str::to_owned),
        }
    }

    /// Takes over what differs from the defaults; the rest has them. The values are canonical and were checked.
    pub(crate) fn take_props(&mut self, mut given: Values) {
        let mut take = |name: &str, default: &str| given.remove(name).unwrap_or_else(|| default.to_owned());
        self.access = take("access", ACCESS_ALL).parse().unwrap_or(u64::MAX);
        self.checksum = take("checksum.type", "xxhash");
        self.versioning = take("versioning.enabled", "true") == "true";
        given.retain(|name, value| settings::BUCKET.default_of(name) != Some(value));
        self.props = given;
    }
}
