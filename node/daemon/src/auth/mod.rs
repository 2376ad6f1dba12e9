//! Clients' tokens (http-api.md section 6): JWTs that an AuthN server or another issuer signed.
//!
//! | module | what it does |
//! |---|---|
//! | [`keys`] | the key: environment, or a file that may change |
//! | [`token`] | one token: signature, times, claims |
//! | [`rights`] | AIStore's bits, and the decision over them |
//!
//! What is revoked and whether tokens are wanted at all is in the committed State, so it holds on every gateway as
//! soon as that State is published there, and after a full restart.

mod backend;
pub mod keys;
pub mod rights;
pub mod token;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use ais_meta::State;
use sha2::{Digest, Sha256};

pub use keys::{Given, Source};
pub use rights::{Grants, Rights};
pub use token::{Claims, TokenError};

/// Setting: whether clients must have a token.
pub const REQUIRED: &str = "auth.client_auth_required";
/// Setting: audiences of which a token must name one, none: any token will do.
pub const AUDIENCES: &str = "auth.required_claims.aud";

/// Verified tokens that are remembered.
const CACHE_LEN_MAX: usize = 4096;

/// What tokens are judged by at one moment.
struct Rules {
    /// The key, or what is wrong with it.
    key: Result<Option<token::Key>, String>,
    /// Of which a token must name one; none: any will do.
    audiences: Vec<String>,
}

impl Rules {
    fn new(texts: &keys::Texts, audiences: Vec<String>) -> Self {
        Self { key: keys::choose(texts), audiences }
    }

    fn key(&self) -> Result<&token::Key, TokenError> {
        self.key.as_ref().ok().and_then(Option::as_ref).ok_or(TokenError::NoKey)
    }
}

struct Inner {
    texts: keys::Texts,
    rules: Arc<Rules>,
    /// Verified under `rules`.
    verified: BTreeMap<[u8; 32], Arc<Claims>>,
}

/// Judges tokens. One a process.
pub struct Authority {
    given: Given,
    inner: Mutex<Inner>,
}

/// What became of looking at the key files again.
#[derive(Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// As before.
    Same,
    /// Another key; nothing verified before counts any more.
    Changed,
}

impl Authority {
    /// With the keys that this node was given. A key that cannot be read leaves the node without one: it then accepts
    /// no token, which is logged.
    #[must_use]
    pub fn new(given: Given) -> Self {
        backend::install();
        let texts = given.read().unwrap_or_else(|why| {
            tracing::error!(why, "the key for tokens cannot be read");
            keys::Texts::default()
        });
        let rules = Arc::new(Rules::new(&texts, Vec::new()));
        if let Err(why) = &rules.key {
            tracing::error!(why, "the key for tokens cannot be used");
        }
        Self { given, inner: Mutex::new(Inner { texts, rules, verified: BTreeMap::new() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether there is something to look at again.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.given.has_files()
    }

    /// Reads the key files again. Blocks on the disk.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key; the key that was read before goes on counting.
    pub fn reload(&self) -> Result<Reloaded, String> {
        let texts = self.given.read()?;
        let mut inner = self.inner();
        if inner.texts == texts {
            return Ok(Reloaded::Same);
        }
        keys::choose(&texts)?;
        inner.rules = Arc::new(Rules::new(&texts, inner.rules.audiences.clone()));
        inner.texts = texts;
        inner.verified.clear();
        Ok(Reloaded::Changed)
    }

    /// The rules that this State asks for.
    fn rules(&self, state: &State) -> Arc<Rules> {
        let mut inner = self.inner();
        if !state.config().list(AUDIENCES).eq(inner.rules.audiences.iter().map(String::as_str)) {
            let audiences = state.config().list(AUDIENCES).map(str::to_owned).collect();
            inner.rules = Arc::new(Rules::new(&inner.texts, audiences));
            inner.verified.clear();
        }
        Arc::clone(&inner.rules)
    }

    /// Whether clients must have a token.
    #[must_use]
    pub fn is_required(state: &State) -> bool {
        state.config().is_on(REQUIRED)
    }

    /// Why this node can verify no token; `None` when it can.
    #[must_use]
    pub fn unusable(&self) -> Option<String> {
        match &self.inner().rules.key {
            Ok(Some(_)) => None,
            Ok(None) => Some("this gateway was given no key to verify tokens with".to_owned()),
            Err(why) => Some(why.clone()),
        }
    }

    /// Judges a token.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn check(&self, token: &str, state: &State, now_s: i64) -> Result<Arc<Claims>, TokenError> {
        if token.len() > token::TOKEN_LEN_MAX {
            return Err(TokenError::TooLong);
        }
        let rules = self.rules(state);
        let key = rules.key()?;
        if state.tokens().revoked.contains_key(&fingerprint(token)) {
            return Err(TokenError::Revoked);
        }
        let name: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.inner().verified.get(&name).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(token::verify(token, key, &rules.audiences)?);
                self.remember(&rules, name, &claims);
                claims
            }
        };
        claims.check_time(now_s)?;
        Ok(claims)
    }

    /// Unless the rules changed meanwhile.
    fn remember(&self, rules: &Arc<Rules>, name: [u8; 32], claims: &Arc<Claims>) {
        let mut inner = self.inner();
        if !Arc::ptr_eq(&inner.rules, rules) {
            return;
        }
        if inner.verified.len() >= CACHE_LEN_MAX {
            inner.verified.clear();
        }
        inner.verified.insert(name, Arc::clone(claims));
    }

    /// Whether an AuthN server's secret (as hexadecimal SHA-256) is the one used here; `None`: none is used here.
    #[must_use]
    pub fn is_secret(&self, state: &State, digest: &str) -> Option<bool> {
        keys::is_digest_of(self.rules(state).key().ok()?, digest)
    }

    /// Whether an AuthN server's public key is the one used here; `None`: none is used here.
    ///
    /// # Errors
    /// What is wrong with theirs.
    pub fn is_public(&self, state: &State, public: &str) -> Result<Option<bool>, String> {
        match self.rules(state).key() {
            Ok(key) => keys::is_same_public(key, public),
            Err(_) => Ok(None),
        }
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a revoked token is remembered by: the hexadecimal SHA-256 of what its signature covers. Not of the whole: an
/// ECDSA signature can be turned into another valid one by anybody.
#[must_use]
pub fn fingerprint(token: &str) -> String {
    hex_sha256(token.rsplit_once('.').map_or(token, |(signed, _)| signed).as_bytes())
}

/// The headers that may bring a token.
#[must_use]
pub fn bearing(headers: &axum::http::HeaderMap) -> axum::http::HeaderMap {
    let named = |name: &'static str| headers.get(name).map(|v| (axum::http::HeaderName::from_static(name), v.clone()));
    ["authorization", "x-amz-security-token"].into_iter().filter_map(named).collect()
}

/// The token of a request: `Authorization: Bearer TOKEN`, else `X-Amz-Security-Token: TOKEN`.
///
/// # Errors
/// [`TokenError::Missing`], [`TokenError::NotBearer`].
pub fn extract(headers: &axum::http::HeaderMap) -> Result<&str, TokenError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let given = text("authorization");
    let bearer =
        given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let bearer = bearer.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
    // Amazon's clients sign in the one header and bring the token in the other.
    let token = bearer.or_else(|| text("x-amz-security-token").filter(|token| !token.is_empty()));
    token.ok_or(if given.is_some() { TokenError::NotBearer } else { TokenError::Missing })
}
