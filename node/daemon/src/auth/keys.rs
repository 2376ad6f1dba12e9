//! Where the key that tokens are verified with comes from.

use std::path::PathBuf;

use jsonwebtoken::DecodingKey;
use subtle::ConstantTimeEq;

use super::token::Key;
use crate::config::{Config, Hidden, key_file};

/// Longest text of somebody else's public key that is looked at, in bytes; RSA of 8,192 bits, the largest there is to
/// verify with, has 1,500 in PEM. Anybody may send one: what reads DER goes one call deeper for each of its levels and
/// takes time by the square of a tag's length, so a megabyte would end the process or hold it up.
pub const PUBLIC_LEN_MAX: usize = 2 << 10;

/// What this node was given at its start: one of the two. (AIStore's `auth.signature` in the cluster's configuration is
/// left out: a secret has no place in metadata that every member keeps and shows.)
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// PEM or base64 of DER; RSA or P-256.
    pub public: Option<Source>,
    /// The HS256 secret.
    pub secret: Option<Source>,
}

/// A text, or a file that holds it and may change.
#[derive(Clone)]
pub enum Source {
    /// The text itself.
    Text(String),
    /// A file.
    File(PathBuf),
}

/// Never the text.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("**********"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The texts of [`Given`] as they are now.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Texts {
    public: Option<String>,
    secret: Option<String>,
}

impl Given {
    /// As the node's configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let source = |key: Option<&Hidden>, file: &str| {
            let path = config.shown().find(|(name, _)| *name == file).map(|(_, path)| Source::File(path.into()));
            path.or_else(|| key.map(|key| Source::Text(key.reveal().to_owned())))
        };
        Self {
            public: source(config.authn_public_key.as_ref(), "authn_public_key_file"),
            secret: source(config.authn_secret_key.as_ref(), "authn_secret_key_file"),
        }
    }

    /// Whether a file must be watched.
    #[must_use]
    pub fn has_files(&self) -> bool {
        [&self.public, &self.secret].into_iter().flatten().any(|source| matches!(source, Source::File(_)))
    }

    pub(super) fn read(&self) -> Result<Texts, String> {
        let text = |source: &Option<Source>| match source {
            None => Ok(None),
            Some(Source::Text(text)) => Ok(Some(text.clone())),
            Some(Source::File(path)) => key_file(path).map(Some).map_err(|why| format!("{} {why}", path.display())),
        };
        Ok(Texts { public: text(&self.public)?, secret: text(&self.secret)? })
    }
}

fn nonempty(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.trim().is_empty())
}

/// The key to verify with. `None`: nobody gave one.
///
/// # Errors
/// What is wrong with the one that was given.
pub(super) fn choose(texts: &Texts) -> Result<Option<Key>, String> {
    if let Some(public) = nonempty(texts.public.as_ref()) {
        return public_key(public).map(Some);
    }
    nonempty(texts.secret.as_ref()).map(secret_key).transpose()
}

/// A public key is public: whoever has it could sign, if it were taken for a secret.
fn secret_key(text: &str) -> Result<Key, String> {
    if text.contains("-----BEGIN") {
        return Err("the secret for tokens is a PEM file; give a public key as the public key".to_owned());
    }
    Ok(Key::Secret(DecodingKey::from_secret(text.as_bytes())))
}

/// PEM, or the base64 of DER as AIStore takes it.
fn public_key(text: &str) -> Result<Key, String> {
    let bare: String = text.split_whitespace().collect();
    let pem = if text.contains("-----BEGIN") {
        text.to_owned()
    } else {
        let lines: Vec<&str> = bare.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    };
    if pem.contains("PRIVATE KEY") {
        return Err(
            "the public key for tokens is a private key; it belongs to whoever signs, and nowhere else".to_owned()
        );
    }
    let rsa = DecodingKey::from_rsa_pem(pem.as_bytes()).map(Key::Rsa);
    rsa.or_else(|_| DecodingKey::from_ec_pem(pem.as_bytes()).map(Key::Ec))
        .map_err(|_| "the public key for tokens is neither an RSA nor a P-256 key in PEM or base64 of DER".to_owned())
}

/// Whether `theirs` is what AIStore's AuthN server sends of a secret: the hexadecimal SHA-256.
pub(super) fn is_digest_of(key: &Key, theirs: &str) -> Option<bool> {
    let Key::Secret(key) = key else { return None };
    let own = super::hex_sha256(key.try_get_as_bytes().ok()?);
    // Anybody may ask: how long it takes must not say how much of a guess is right.
    Some(own.as_bytes().ct_eq(theirs.to_ascii_lowercase().as_bytes()).into())
}

/// Whether `theirs` is the same public key, in whatever form.
pub(super) fn is_same_public(key: &Key, theirs: &str) -> Result<Option<bool>, String> {
    let (Key::Rsa(own) | Key::Ec(own)) = key else { return Ok(None) };
    if theirs.len() > PUBLIC_LEN_MAX {
        return Err(format!("the public key has {} bytes; one has at most {PUBLIC_LEN_MAX}", theirs.len()));
    }
    let (Key::Rsa(theirs) | Key::Ec(theirs) | Key::Secret(theirs)) = public_key(theirs)?;
    let (own, theirs) = (own.try_get_as_bytes(), theirs.try_get_as_bytes());
    Ok(Some(own.is_ok() && own.ok() == theirs.ok()))
}
