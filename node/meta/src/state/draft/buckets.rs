//! Edits of buckets, of the configuration, and of revoked tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::record;
use super::Draft;
use crate::Extra;
use crate::bucket::{Bucket, BucketName};
use crate::change::Refusal;
use crate::settings::{BUCKET, CLUSTER, Values};

/// Buckets of one cluster. One State is at most a few megabytes at this size.
const BUCKETS_MAX: usize = 100_000;
/// Remembered revoked tokens: 8 MB at this size, and all of it in one entry.
const TOKENS_MAX: usize = 100_000;
/// How long a revoked token is remembered after it expired, in seconds: gateways' clocks differ, and one whose clock is
/// fast must not make the others accept a token again.
const TOKENS_SLACK_S: i64 = 24 * 3600;
/// Hexadecimal digits of a SHA-256.
const SHA256_HEX: usize = 64;

/// The gateway that admitted the change may be of a version with other rules; what this version's entries cannot be
/// named must not be answered as done.
fn lawful(name: &BucketName) -> Result<(), Refusal> {
    BucketName::new(&name.namespace, &name.name).map(drop).map_err(|e| Refusal::Invalid(e.to_string()))
}

/// Bytes of a bucket, at most: its own fields, its name in the entry and in the key, and what frames each property.
fn footprint(name: &BucketName, props: &Values) -> usize {
    let props: usize = props.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
    256 + 2 * (name.namespace.len() + name.name.len()) + props
}

impl Draft {
    pub(super) fn create_bucket(&mut self, name: &BucketName, created_ns: i64, props: &Values) -> Result<(), Refusal> {
        lawful(name)?;
        if self.work.buckets.contains_key(name) {
            return Err(Refusal::BucketExists(name.clone()));
        }
        if self.work.buckets.len() >= BUCKETS_MAX {
            return Err(Refusal::Full(format!("there are {BUCKETS_MAX} buckets already; destroy some first")));
        }
        let props = self.checked_props(self.inherited(), props)?;
        self.grow(footprint(name, &props))?;
        let mut bucket = Bucket {
            name: name.clone(),
            bid: self.work.next_bid | 1 << 63,
            created_ns,
            checksum: String::new(),
            versioning: false,
            access: 0,
            props: BTreeMap::new(),
            extra: Extra::new(),
        };
        bucket.take_props(props);
        self.work.next_bid += 1;
        self.work.buckets.insert(name.clone(), Arc::new(bucket));
        self.bump_bmd(name);
        Ok(())
    }

    pub(super) fn destroy_bucket(&mut self, name: &BucketName) -> Result<(), Refusal> {
        if self.work.buckets.remove(name).is_none() {
            return Err(Refusal::NoSuchBucket(name.clone()));
        }
        self.bump_bmd(name);
        Ok(())
    }

    pub(super) fn set_bucket_props(&mut self, name: &BucketName, set: &Values, reset: bool) -> Result<(), Refusal> {
        let Some(old) = self.work.buckets.get(name).cloned() else {
            return Err(Refusal::NoSuchBucket(name.clone()));
        };
        let base = if reset { self.inherited() } else { old.given_props() };
        let mut bucket = (*old).clone();
        let props = self.checked_props(base, set)?;
        bucket.take_props(props.clone());
        if bucket != *old {
            self.grow(footprint(name, &props).saturating_sub(footprint(name, &old.given_props())))?;
            self.work.buckets.insert(name.clone(), Arc::new(bucket));
            self.bump_bmd(name);
        }
        Ok(())
    }

    /// The bucket keeps its id, so that nothing but its name changes for the data plane.
    pub(super) fn rename_bucket(&mut self, from: &BucketName, to: &BucketName) -> Result<(), Refusal> {
        if !self.work.buckets.contains_key(from) {
            return Err(Refusal::NoSuchBucket(from.clone()));
        }
        lawful(to)?;
        if self.work.buckets.contains_key(to) {
            return Err(Refusal::BucketExists(to.clone()));
        }
        let none = Values::new();
        self.grow(footprint(to, &none).saturating_sub(footprint(from, &none)))?;
        if let Some(bucket) = self.work.buckets.remove(from) {
            let bucket = Bucket { name: to.clone(), ..(*bucket).clone() };
            self.work.buckets.insert(to.clone(), Arc::new(bucket));
        }
        self.bump_bmd(from);
        self.touch(record::bucket_key(to));
        Ok(())
    }

    fn bump_bmd(&mut self, name: &BucketName) {
        self.work.bmd_version += 1;
        self.touch(record::BMD.to_owned());
        self.touch(record::bucket_key(name));
    }

    /// Properties of a new bucket that the cluster's configuration sets.
    fn inherited(&self) -> Values {
        let settings = self.work.config.settings.iter();
        settings.filter(|(name, _)| BUCKET.get(name).is_some()).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// What the table cannot know: whether there are enough targets.
    fn checked_props(&self, base: Values, set: &Values) -> Result<Values, Refusal> {
        if base.is_empty() && set.is_empty() {
            return Ok(base);
        }
        let coded = |given: &Values| BUCKET.all(given).on("ec.enabled");
        let before = coded(&base);
        let all = BUCKET.apply(base, set).map_err(Refusal::Setting)?;
        let asked = set.keys().any(|name| name.starts_with("ec."));
        if coded(&all) && (asked || !before) {
            let number = |name: &str| BUCKET.all(&all).number(name);
            let (data, parity) = (number("ec.data_slices"), number("ec.parity_slices"));
            let (needed, present) = (data + parity + 1, self.work.placing_targets().count());
            if u64::try_from(present).is_ok_and(|present| present < needed) {
                let text = format!("not enough targets: ec of {data}:{parity} needs {needed}, there are {present}");
                return Err(Refusal::Invalid(text));
            }
        }
        Ok(all)
    }

    pub(super) fn set_config(&mut self, set: &Values, reset: bool) -> Result<(), Refusal> {
        let old = &self.work.config.settings;
        let base = if reset { Values::new() } else { old.clone() };
        let settings = CLUSTER.apply(base, set).map_err(Refusal::Setting)?;
        if settings != *old {
            let config = Arc::make_mut(&mut self.work.config);
            config.settings = settings;
            config.version += 1;
            self.touch(record::CONFIG.to_owned());
        }
        Ok(())
    }

    pub(super) fn revoke_tokens(&mut self, tokens: &BTreeMap<String, i64>, now_s: i64) -> Result<(), Refusal> {
        let digest = |text: &String| {
            text.len() == SHA256_HEX && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if !tokens.keys().all(digest) {
            return Err(Refusal::Invalid(
                "a revoked token is named by its SHA-256 in lower-case hexadecimal".to_owned(),
            ));
        }
        let old = &self.work.tokens.revoked;
        // An expired token is refused for that; it need not be remembered. The primary's clock has a say in what is
        // forgotten; what is asked for now is taken as it is.
        let now_s = self.now_s.map_or(now_s, |own_s| own_s.min(now_s));
        let lives = |(_, until_s): &(&String, &i64)| **until_s > now_s.saturating_sub(TOKENS_SLACK_S);
        let mut revoked: BTreeMap<String, i64> = old.iter().filter(lives).map(|(t, s)| (t.clone(), *s)).collect();
        for (token, until_s) in tokens {
            let until = revoked.entry(token.clone()).or_insert(*until_s);
            *until = (*until).max(*until_s);
        }
        if revoked.len() > TOKENS_MAX && revoked.len() > old.len() {
            let text = format!("{TOKENS_MAX} tokens are revoked and have not expired; change the signing key instead");
            return Err(Refusal::Full(text));
        }
        if revoked != *old {
            let tokens = Arc::make_mut(&mut self.work.tokens);
            tokens.revoked = revoked;
            tokens.version += 1;
            self.touch(record::TOKENS.to_owned());
        }
        Ok(())
    }
}
