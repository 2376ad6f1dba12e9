//! Signatures of HTTP calls between members and from the operator.
//!
//! A request carries `Ais-Auth: v2 <unix ms> <nonce> <mac>`, its reply `Ais-Auth: v2 <mac>`. The mac is HMAC-SHA256
//! under the cluster's secret, over
//!
//! * request: `METHOD \n path?query \n node \n unix_ms \n nonce \n hex(sha256(body))`
//! * reply: `status \n nonce of the request \n hex(sha256(body))`
//!
//! `node` is the id of the node that is called, so that a call that was seen by somebody does nothing anywhere else. An
//! address would not do: behind Services and forwarded ports a node does not know by which one it is called. Who does
//! not know the id asks for it by a question to [`ANYBODY`]; whatever changes something is for one node ([`reads`]).
//!
//! The two texts cannot be confused: a method is not a number. The caller brings the time and the nonce (16 random
//! bytes); this module has neither. Who verifies must also refuse a nonce that it saw within [`WINDOW_MS`]
//! ([`Replays`]), and a change that was signed before it began to remember them ([`fresh`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Header of requests and replies.
pub const HEADER: &str = "Ais-Auth";
/// How far the clocks of two members may differ, in milliseconds.
pub const WINDOW_MS: u64 = 60_000;
/// Shortest secret that is accepted, in bytes.
pub const SECRET_LEN_MIN: usize = 16;
/// Secrets that are accepted at the same time: enough for a rotation that begins before another has ended.
pub const SECRETS_MAX: usize = 4;

/// Whom a question is for when its caller does not know whom it reaches.
pub const ANYBODY: &str = "*";
/// A change may be signed so long before the process that takes it began, in milliseconds: clocks are read in steps, and
/// no process is stopped and started again within that time.
pub const START_SLACK_MS: u64 = 50;

const VERSION: &str = "v2";

/// Why a signature is refused. The texts say nothing that helps to forge one.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// No header.
    #[error("the request is not signed (header {HEADER})")]
    Missing,
    /// The header is not of the form that [`sign`] makes.
    #[error("the header {HEADER} is malformed")]
    Malformed,
    /// Signed more than [`WINDOW_MS`] ago or ahead.
    #[error("the signature is {0} ms away from this node's clock; compare the clocks")]
    Stale(u64),
    /// Made with another secret, or for another request.
    #[error("the signature does not match; compare the cluster secrets, and which node the call is for")]
    Mismatch,
    /// A change that was signed before this process began: it may have been seen by the one before.
    #[error("signed before this process began; send it again")]
    BeforeStart,
    /// Seen before.
    #[error("the signature was used before")]
    Replayed,
    /// Too many signatures within the window to remember another.
    #[error("too many signed requests")]
    Busy,
}

/// The secret of a cluster: a line of its file without white space at the end. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the secret to sign with from a file's content, which is its first line. `None` when that is shorter than
    /// [`SECRET_LEN_MIN`].
    #[must_use]
    pub fn from_file_content(content: &[u8]) -> Option<Self> {
        lines(content).next().and_then(|(_, line)| Self::from_line(line))
    }

    fn from_line(line: &[u8]) -> Option<Self> {
        (line.len() >= SECRET_LEN_MIN).then(|| Self(line.to_vec()))
    }

    /// The bytes, for deriving other keys.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Secret {
    /// What tells it apart for those who hold it: 16 hexadecimal digits from which nothing is learnt of a good secret.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut mac = keyed(self);
        mac.update(b"ais-secret-digest");
        hex(&mac.finalize().into_bytes()[..8])
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(**********)")
    }
}

/// Numbered from 1, without white space at their ends, empty ones left out.
fn lines(content: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    (1..).zip(lines).filter(|(_, line)| !line.is_empty())
}

/// Why a file holds no secrets. Never says what stands in it.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SecretsError {
    /// No line.
    #[error("holds no secret")]
    None,
    /// A line that is too short.
    #[error("holds a secret shorter than {SECRET_LEN_MIN} bytes (line {0}); make a longer one")]
    Short(usize),
    /// Too many lines.
    #[error("holds more than {SECRETS_MAX} secrets; remove those that no member uses any more")]
    Many,
}

/// The secrets that a member accepts; it signs with the first. More than one only while they are rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    first: Secret,
    others: Vec<Secret>,
}

impl From<Secret> for Secrets {
    fn from(first: Secret) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl Secrets {
    /// Takes a file's content: one secret a line, the first one signs, all are accepted.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn from_file_content(content: &[u8]) -> Result<Self, SecretsError> {
        let mut found = Vec::new();
        for (number, line) in lines(content) {
            if found.len() == SECRETS_MAX {
                return Err(SecretsError::Many);
            }
            found.push(Secret::from_line(line).ok_or(SecretsError::Short(number))?);
        }
        let mut found = found.into_iter();
        let first = found.next().ok_or(SecretsError::None)?;
        Ok(Self { first, others: found.collect() })
    }

    /// The one to sign with.
    #[must_use]
    pub fn current(&self) -> &Secret {
        &self.first
    }

    /// All, the one to sign with first.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// As [`verify`], with whichever secret fits; the reply is to be signed with that one.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(
        &self,
        request: Request<'_>,
        header: Option<&str>,
        now_ms: u64,
    ) -> Result<(Nonce, &Secret), AuthError> {
        let mut last = AuthError::Mismatch;
        for secret in self.iter() {
            match verify(secret, request, header, now_ms) {
                Ok(nonce) => return Ok((nonce, secret)),
                Err(AuthError::Mismatch) => {}
                Err(other) => last = other,
            }
        }
        Err(last)
    }
}

/// What a signature covers of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `GET`, `PUT`, ...
    pub method: &'a str,
    /// Path and query as they are on the wire, such as `/v1/ha/view` or `/v1/cluster/proxy/g1?expected-epoch=3`.
    pub path_and_query: &'a str,
    /// The id of the node that is called, or [`ANYBODY`].
    pub node: &'a str,
    /// The body, empty when there is none.
    pub body: &'a [u8],
}

/// Whether a method changes nothing: such a question may be for [`ANYBODY`], and asked of a process again.
#[must_use]
pub fn reads(method: &str) -> bool {
    method == "GET" || method == "HEAD"
}

/// Refuses a verified change that was signed before `began_ms`, when the process began by the clock that it verifies
/// with: it knows no nonce of before.
///
/// # Errors
/// [`AuthError::BeforeStart`].
pub fn fresh(method: &str, header: Option<&str>, began_ms: u64) -> Result<(), AuthError> {
    let at = header.and_then(|header| header.split(' ').nth(1)?.parse::<u64>().ok()).ok_or(AuthError::Malformed)?;
    let late = reads(method) || at.saturating_add(START_SLACK_MS) >= began_ms;
    late.then_some(()).ok_or(AuthError::BeforeStart)
}

/// A nonce: 16 random bytes, 32 hexadecimal digits in the header.
pub type Nonce = [u8; 16];

/// The value of [`HEADER`] for a request sent at `now_ms` (Unix time in milliseconds).
#[must_use]
pub fn sign(secret: &Secret, request: Request<'_>, now_ms: u64, nonce: Nonce) -> String {
    let nonce = hex(&nonce);
    let mac = request_mac(secret, request, now_ms, &nonce);
    format!("{VERSION} {now_ms} {nonce} {}", hex(&mac.finalize().into_bytes()))
}

/// Checks a request's header against this node's clock. On success the nonce, which [`Replays::admit`] must still
/// accept and which [`sign_reply`] needs.
pub fn verify(secret: &Secret, request: Request<'_>, header: Option<&str>, now_ms: u64) -> Result<Nonce, AuthError> {
    let header = header.ok_or(AuthError::Missing)?;
    let mut parts = header.split(' ');
    let (Some(VERSION), Some(at), Some(nonce), Some(mac), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(AuthError::Malformed);
    };
    let at: u64 = at.parse().map_err(|_| AuthError::Malformed)?;
    let mac = unhex::<32>(mac).ok_or(AuthError::Malformed)?;
    let nonce_bytes = unhex::<16>(nonce).ok_or(AuthError::Malformed)?;
    request_mac(secret, request, at, nonce).verify_slice(&mac).map_err(|_| AuthError::Mismatch)?;
    let away = at.abs_diff(now_ms);
    if away > WINDOW_MS {
        return Err(AuthError::Stale(away));
    }
    Ok(nonce_bytes)
}

/// The value of [`HEADER`] for the reply to the request with `nonce`.
#[must_use]
pub fn sign_reply(secret: &Secret, nonce: Nonce, status: u16, body: &[u8]) -> String {
    format!("{VERSION} {}", hex(&reply_mac(secret, nonce, status, body).finalize().into_bytes()))
}

/// Checks a reply's header.
pub fn verify_reply(
    secret: &Secret,
    nonce: Nonce,
    status: u16,
    body: &[u8],
    header: Option<&str>,
) -> Result<(), AuthError> {
    let (version, mac) = header.ok_or(AuthError::Missing)?.split_once(' ').ok_or(AuthError::Malformed)?;
    if version != VERSION {
        return Err(AuthError::Malformed);
    }
    let mac = unhex::<32>(mac).ok_or(AuthError::Malformed)?;
    reply_mac(secret, nonce, status, body).verify_slice(&mac).map_err(|_| AuthError::Mismatch)
}

fn keyed(secret: &Secret) -> Hmac<Sha256> {
    // HMAC takes a key of any length: longer ones than a block are hashed, as the standard says.
    let mut block = [0u8; 64];
    if secret.0.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(&secret.0));
    } else {
        block[..secret.0.len()].copy_from_slice(&secret.0);
    }
    Hmac::<Sha256>::new(&block.into())
}

fn request_mac(secret: &Secret, request: Request<'_>, at_ms: u64, nonce: &str) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    let Request { method, path_and_query, node, body } = request;
    let digest = hex(&Sha256::digest(body));
    mac.update(format!("{method}\n{path_and_query}\n{node}\n{at_ms}\n{nonce}\n{digest}").as_bytes());
    mac
}

fn reply_mac(secret: &Secret, nonce: Nonce, status: u16, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    mac.update(format!("{status}\n{}\n{}", hex(&nonce), hex(&Sha256::digest(body))).as_bytes());
    mac
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0u8; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The nonces of the last [`WINDOW_MS`] on both sides of now, so that none is accepted twice.
#[derive(Debug, Default)]
pub struct Replays {
    seen: BTreeMap<Nonce, u64>,
}

impl Replays {
    /// Nonces remembered at most; 10 signed calls per millisecond would not be members talking.
    pub const LEN_MAX: usize = 100_000;

    /// Accepts a verified nonce once.
    pub fn admit(&mut self, nonce: Nonce, now_ms: u64) -> Result<(), AuthError> {
        if self.seen.len() >= Self::LEN_MAX {
            self.seen.retain(|_, until| *until >= now_ms);
        }
        if self.seen.get(&nonce).is_some_and(|until| *until >= now_ms) {
            return Err(AuthError::Replayed);
        }
        if self.seen.len() >= Self::LEN_MAX {
            return Err(AuthError::Busy);
        }
        // Signed up to one window ahead of this clock, a request stays valid for two.
        self.seen.insert(nonce, now_ms.saturating_add(2 * WINDOW_MS));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::from_file_content(b"0123456789abcdef\n").unwrap()
    }

    const NONCE: Nonce = [7; 16];
    const GET: Request<'_> = Request { method: "GET", path_and_query: "/v1/ha/view", node: "g1", body: b"" };

    #[test]
    fn the_mac_is_hmac_sha256_of_the_documented_text() {
        // RFC 4231, test case 6: a key longer than the block.
        let mut mac = keyed(&Secret(vec![0xaa; 131]));
        mac.update(b"Test Using Larger Than Block-Size Key - Hash Key First");
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(hex(&mac.finalize().into_bytes()), expected);

        // Test case 2: a short key.
        let mut mac = keyed(&Secret(b"Jefe".to_vec()));
        mac.update(b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&mac.finalize().into_bytes()), expected);
    }

    #[test]
    fn a_signed_request_verifies_and_any_change_is_refused() {
        let header = sign(&secret(), GET, 1_000_000, NONCE);
        let check = |request, header: &str, now| verify(&secret(), request, Some(header), now);
        assert_eq!(check(GET, &header, 1_000_000 + WINDOW_MS), Ok(NONCE));
        assert_eq!(check(GET, &header, 1_000_001 + WINDOW_MS), Err(AuthError::Stale(WINDOW_MS + 1)));
        assert_eq!(check(Request { method: "PUT", ..GET }, &header, 1_000_000), Err(AuthError::Mismatch));
        assert_eq!(check(Request { path_and_query: "/v1/ha/view?", ..GET }, &header, 0), Err(AuthError::Mismatch));
        assert_eq!(check(Request { body: b"x", ..GET }, &header, 1_000_000), Err(AuthError::Mismatch));
        for node in ["g2", ANYBODY, ""] {
            assert_eq!(check(Request { node, ..GET }, &header, 1_000_000), Err(AuthError::Mismatch), "{node}");
        }
        let other = Secret::from_file_content(b"0123456789abcdeX").unwrap();
        assert_eq!(verify(&other, GET, Some(&header), 1_000_000), Err(AuthError::Mismatch));
        assert_eq!(verify(&secret(), GET, None, 0), Err(AuthError::Missing));
        for bad in ["", "v2", "v1 1 2 3", "v2 1 2 3", "v2 x y z w", &format!("{header} x"), &header.replace('v', "w")] {
            assert_eq!(check(GET, bad, 1_000_000), Err(AuthError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_reply_belongs_to_its_request() {
        let header = sign_reply(&secret(), NONCE, 200, b"body");
        let check = |nonce, status, body| verify_reply(&secret(), nonce, status, body, Some(&header));
        assert_eq!(check(NONCE, 200, b"body"), Ok(()));
        assert_eq!(check([8; 16], 200, b"body"), Err(AuthError::Mismatch));
        assert_eq!(check(NONCE, 404, b"body"), Err(AuthError::Mismatch));
        assert_eq!(check(NONCE, 200, b"bodY"), Err(AuthError::Mismatch));
        assert_eq!(verify_reply(&secret(), NONCE, 200, b"", None), Err(AuthError::Missing));
        assert_eq!(verify_reply(&secret(), NONCE, 200, b"", Some("v2 zz")), Err(AuthError::Malformed));
    }

    #[test]
    fn a_change_that_was_signed_before_the_process_began_is_refused() {
        let header = sign(&secret(), GET, 1_000_000, NONCE);
        let asked = |method, began_ms| fresh(method, Some(&header), began_ms);
        assert_eq!(asked("PUT", 1_000_000 + START_SLACK_MS), Ok(()));
        assert_eq!(asked("PUT", 1_000_001 + START_SLACK_MS), Err(AuthError::BeforeStart));
        assert_eq!(asked("GET", 2_000_000), Ok(()), "a question does nothing");
        assert_eq!(fresh("PUT", Some("v2 x"), 0), Err(AuthError::Malformed));
    }

    #[test]
    fn a_nonce_is_admitted_once_while_its_request_could_be_valid() {
        let mut replays = Replays::default();
        assert_eq!(replays.admit(NONCE, 0), Ok(()));
        assert_eq!(replays.admit(NONCE, 2 * WINDOW_MS), Err(AuthError::Replayed));
        assert_eq!(replays.admit(NONCE, 2 * WINDOW_MS + 1), Ok(()));
    }

    #[test]
    fn several_secrets_are_accepted_and_the_first_one_signs() {
        let (old, new) = ("an-older-secret-of-all", "a-newer-secret-of-all");
        let ring = |text: &str| Secrets::from_file_content(text.as_bytes());
        let both = ring(&format!("{new}\r\n\n{old}\n")).unwrap();
        assert_eq!(both.current().as_bytes(), new.as_bytes());
        assert_eq!(Secret::from_file_content(format!("\n{new}\n{old}").as_bytes()), Some(both.current().clone()));
        for (text, known) in [(old, true), (new, true), ("another-secret-entirely", false)] {
            let signer = ring(text).unwrap();
            let header = sign(signer.current(), GET, 1_000_000, NONCE);
            let verified = both.verify(GET, Some(&header), 1_000_000);
            let expected = if known { Ok((NONCE, signer.current())) } else { Err(AuthError::Mismatch) };
            assert_eq!(verified, expected, "{text}");
            let stale = if known { AuthError::Stale(WINDOW_MS + 1) } else { AuthError::Mismatch };
            assert_eq!(both.verify(GET, Some(&header), 1_000_001 + WINDOW_MS), Err(stale));
        }
        assert_eq!(both.verify(GET, None, 0), Err(AuthError::Missing));
        assert_eq!(ring("\n \n"), Err(SecretsError::None));
        assert_eq!(ring(&format!("{new}\n\nshort")), Err(SecretsError::Short(3)));
        assert_eq!(ring(&format!("{new}\n").repeat(SECRETS_MAX + 1)), Err(SecretsError::Many));
    }

    #[test]
    fn the_secret_is_trimmed_bounded_and_never_printed() {
        assert_eq!(Secret::from_file_content(b"short\n"), None);
        assert_eq!(secret().as_bytes(), b"0123456789abcdef");
        assert!(!format!("{:?}", secret()).contains("0123"));
    }
}
