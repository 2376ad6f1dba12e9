//! One token: its signature, its times, its claims.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use thiserror::Error;

use super::rights::{BucketGrant, ClusterGrant, Grants};

/// Longest token that is looked at, in bytes.
pub const TOKEN_LEN_MAX: usize = 8 << 10;

/// Why a token is not accepted: 401. The texts hold nothing of the token.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// None came.
    #[error("token required")]
    Missing,
    /// The header is of another scheme.
    #[error("invalid token: the header Authorization is not 'Bearer TOKEN'")]
    NotBearer,
    /// Over [`TOKEN_LEN_MAX`].
    #[error("invalid token: longer than {TOKEN_LEN_MAX} bytes")]
    TooLong,
    /// Not three parts of base64, or no claims in them.
    #[error("invalid token: malformed")]
    Malformed,
    /// Its algorithm is not the configured key's.
    #[error("invalid token: not signed by an algorithm of the configured key")]
    Algorithm,
    /// Signed by somebody else.
    #[error("invalid token: the signature does not match")]
    Signature,
    /// Its time is over.
    #[error("token expired")]
    Expired,
    /// Its time has not come.
    #[error("invalid token: not valid yet")]
    Early,
    /// No `exp`, or no `sub`.
    #[error("invalid token: the claims exp and sub are required")]
    Claims,
    /// For somebody else.
    #[error("invalid token: its audience is not one that this cluster requires")]
    Audience,
    /// Taken back.
    #[error("token revoked")]
    Revoked,
    /// This gateway has nothing to verify with.
    #[error("invalid token: this gateway has no key to verify tokens with")]
    NoKey,
}

/// What a verified token says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Whose.
    pub sub: String,
    /// Until when, unix seconds.
    pub exp_s: i64,
    /// From when, unix seconds.
    nbf_s: Option<i64>,
    /// What it grants.
    pub grants: Grants,
}

impl Claims {
    /// Whether its time is now.
    ///
    /// # Errors
    /// [`TokenError::Expired`], [`TokenError::Early`].
    pub fn check_time(&self, now_s: i64) -> Result<(), TokenError> {
        if now_s >= self.exp_s {
            return Err(TokenError::Expired);
        }
        if self.nbf_s.is_some_and(|from| now_s < from) { Err(TokenError::Early) } else { Ok(()) }
    }
}

/// The one key that tokens are verified with. Its kind decides which algorithms a token may name, never the token.
#[derive(Clone, Debug)]
pub enum Key {
    /// HS256.
    Secret(DecodingKey),
    /// RS256, RS384, RS512.
    Rsa(DecodingKey),
    /// ES256.
    Ec(DecodingKey),
}

impl Key {
    fn parts(&self) -> (&DecodingKey, &'static [Algorithm]) {
        match self {
            Self::Secret(key) => (key, &[Algorithm::HS256]),
            Self::Rsa(key) => (key, &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]),
            Self::Ec(key) => (key, &[Algorithm::ES256]),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// As they are in the token; `null` stands for absent.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    sub: Option<String>,
    /// A number of seconds, a fraction is allowed (RFC 7519 section 2).
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    admin: Option<bool>,
    #[serde(default)]
    clusters: Option<Vec<ClusterGrant>>,
    #[serde(default)]
    buckets: Option<Vec<BucketGrant>>,
}

/// Seconds; what does not fit is as far away as can be.
#[allow(clippy::cast_possible_truncation)] // `as` saturates, which is meant here.
fn seconds(number: f64) -> i64 {
    number.floor() as i64
}

/// Verifies signature and claims, but not the time: that is asked again at each use.
///
/// # Errors
/// Why not.
pub fn verify(token: &str, key: &Key, audiences: &[String]) -> Result<Claims, TokenError> {
    use jsonwebtoken::errors::ErrorKind;
    if token.len() > TOKEN_LEN_MAX {
        return Err(TokenError::TooLong);
    }
    let (key, algorithms) = key.parts();
    let mut rules = Validation::new(algorithms[0]);
    rules.algorithms = algorithms.to_vec();
    rules.required_spec_claims.clear();
    (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
    let decoded = jsonwebtoken::decode::<Raw>(token, key, &rules).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        _ => TokenError::Malformed,
    })?;
    if decoded.header.crit.is_some() {
        // Something that must be understood, and is not.
        return Err(TokenError::Malformed);
    }
    accepted(decoded.claims, audiences)
}

fn accepted(raw: Raw, audiences: &[String]) -> Result<Claims, TokenError> {
    let named = match raw.aud {
        None => Vec::new(),
        Some(Audience::One(one)) => vec![one],
        Some(Audience::Many(many)) => many,
    };
    let sub = raw.sub.filter(|sub| !sub.is_empty()).ok_or(TokenError::Claims)?;
    let exp = raw.exp.filter(|exp| exp.is_finite()).ok_or(TokenError::Claims)?;
    if !audiences.is_empty() && !named.iter().any(|name| audiences.contains(name)) {
        return Err(TokenError::Audience);
    }
    let grants = Grants {
        admin: raw.admin.unwrap_or(false),
        clusters: raw.clusters.unwrap_or_default(),
        buckets: raw.buckets.unwrap_or_default(),
    };
    Ok(Claims { sub, exp_s: seconds(exp), nbf_s: raw.nbf.map(|nbf| nbf.ceil()).map(seconds), grants })
}

/// Until when a token is good, as it says itself, unix seconds: for remembering that it was revoked. Nothing of it is
/// believed otherwise; `None` when it says nothing that can be read.
#[must_use]
pub fn claimed_expiry(token: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Exp {
        exp: f64,
    }
    if token.len() > TOKEN_LEN_MAX {
        return None;
    }
    let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Exp>(token).ok()?;
    claims.exp.is_finite().then(|| seconds(claims.exp))
}
