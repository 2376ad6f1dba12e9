//! What clients and members send over HTTP.

use std::cell::RefCell;
use std::sync::OnceLock;

use ais_meta::auth::{self, AuthError, Replays, Request, Secret};
use ais_meta::settings;
use ais_node::auth::token::{self, Key};
use ais_node::auth::{Authority, Given};
use ais_node::http::decode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::DecodingKey;
use sha2::Sha256;

pub(crate) fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(pairs) = decode::query(&text) {
        for (name, _) in &pairs {
            // The first of a name counts.
            let first = pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.parse::<u64>().ok());
            assert_eq!(decode::number(&text, name).ok().flatten(), first.flatten());
            assert!(decode::is(&text, name).is_ok());
        }
    }
}

pub(crate) fn query_seeds() -> Vec<Vec<u8>> {
    [
        "/v1/daemon?what=smap",
        "/v1/buckets/b?provider=ais&namespace=@uuid%23ns&silent=true",
        "/v1/health?readiness=yes&n=17&n=x",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

pub(crate) fn body(data: &[u8]) {
    if let Ok((action, settings)) = decode::action(data) {
        assert!(action.len() <= data.len(), "a name is not longer than its body");
        for (name, value) in &settings {
            let told = settings::BUCKET.check(name, value);
            if let Ok(canonical) = &told {
                assert_eq!(settings::BUCKET.check(name, canonical).as_ref(), Ok(canonical));
            }
            let _ = settings::CLUSTER.check(name, value);
        }
    }
}

pub(crate) fn body_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"action":"create-bck","name":"","value":null}"#,
        r#"{"action":"set-bprops","value":{"mirror":{"enabled":true,"copies":2}}}"#,
        r#"{"action":"start-maintenance","value":{"sid":"t1","skip_rebalance":false}}"#,
        r#" "#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

const TOKEN_SECRET: &[u8] = b"0123456789abcdef";

/// A token with these claims, well signed.
fn signed(claims: &[u8]) -> String {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", text(br#"{"alg":"HS256","typ":"JWT"}"#), text(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(TOKEN_SECRET).expect("a key of any length");
    mac.update(message.as_bytes());
    format!("{message}.{}", text(&mac.finalize().into_bytes()))
}

/// Input: a token as it is, and the claims of one that is well signed.
pub(crate) fn token(data: &[u8]) {
    // The process's mathematics of signatures comes with the first of these.
    static READY: OnceLock<Authority> = OnceLock::new();
    READY.get_or_init(|| Authority::new(Given::default()));
    let key = Key::Secret(DecodingKey::from_secret(TOKEN_SECRET));
    let text = String::from_utf8_lossy(data);
    let _ = token::claimed_expiry(&text);
    assert!(token::verify(&text, &key, &[]).is_err(), "nobody guesses a secret");

    let signed = signed(data);
    if let Ok(claims) = token::verify(&signed, &key, &[]) {
        assert!(!claims.sub.is_empty() && claims.check_time(i64::MAX).is_err());
        assert_eq!(token::claimed_expiry(&signed), Some(claims.exp_s));
        let _ = token::verify(&signed, &key, &["another".to_owned()]);
    }
}

pub(crate) fn token_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"sub":"alice","exp":4102444800,"admin":true}"#,
        r#"{"sub":"bob","exp":4102444800.5,"nbf":1,"aud":["a","b"],"clusters":[{"id":"c","perm":"8191"}]}"#,
        r#"{"sub":"eve","exp":1e300,"aud":"a","buckets":[{"bck":{"name":"b","provider":"ais"},"perm":"16"}]}"#,
        "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.AAAA",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

const NOW_MS: u64 = 1_700_000_000_000;

thread_local! {
    static REPLAYS: RefCell<Replays> = RefCell::default();
}

/// Input: a header, a line break, a path, a line break, a body.
pub(crate) fn auth(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (header, path, body) = (part(), part(), part());
    let (header, path) = (String::from_utf8_lossy(header), String::from_utf8_lossy(path));
    let secret = Secret::from_file_content(b"0123456789abcdef").expect("long enough");
    let request = Request { method: "PUT", path_and_query: &path, node: "g1", body };

    let said = auth::verify(&secret, request, Some(&header), NOW_MS);
    if let Ok(nonce) = said {
        // Only the seed was signed by us; whatever else passes must be the same text in other letters.
        assert_eq!(auth::sign(&secret, request, at(&header), nonce).to_lowercase(), header.to_lowercase());
        REPLAYS.with_borrow_mut(|replays| {
            let first = replays.admit(nonce, NOW_MS);
            assert!(matches!(first, Ok(()) | Err(AuthError::Replayed)));
            assert_eq!(replays.admit(nonce, NOW_MS), Err(AuthError::Replayed));
        });
    }
    let _ = auth::verify_reply(&secret, [7; 16], 200, body, Some(&header));

    let own = auth::sign(&secret, request, NOW_MS, [3; 16]);
    assert_eq!(auth::verify(&secret, request, Some(&own), NOW_MS), Ok([3; 16]));
    let reply = auth::sign_reply(&secret, [3; 16], 200, body);
    assert_eq!(auth::verify_reply(&secret, [3; 16], 200, body, Some(&reply)), Ok(()));
}

fn at(header: &str) -> u64 {
    header.split(' ').nth(1).and_then(|at| at.parse().ok()).unwrap_or_default()
}

pub(crate) fn auth_seeds() -> Vec<Vec<u8>> {
    let secret = Secret::from_file_content(b"0123456789abcdef").expect("long enough");
    let request = Request { method: "PUT", path_and_query: "/v1/ha/view", node: "g1", body: b"" };
    let signed = auth::sign(&secret, request, NOW_MS, [7; 16]);
    vec![format!("{signed}\n/v1/ha/view\n").into_bytes(), auth::sign_reply(&secret, [7; 16], 200, b"").into_bytes()]
}
