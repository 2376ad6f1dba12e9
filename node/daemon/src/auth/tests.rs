use proptest::prelude::*;
use serde_json::{Value, json};

use super::keys::{Texts, choose};
use super::rights::mask_allows;
use super::token::{Key, claimed_expiry, verify};
use super::*;

const SECRET: &str = "aBitLongSecretKey";
/// AIStore's own sample (http-api.md section 6): signed by another implementation.
const SAMPLE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwiYWRtaW4iOnRydWUsImNsdXN0ZXJzIjpudWxsfQ.U4Pk9zzTk5HbPIBrncY6ZBax7jkF3rlcUaac7Va7Hyw";
const RSA: &str = include_str!("testdata/rsa.pub.pem");
const P256: &str = include_str!("testdata/p256.pub.pem");
/// Tokens of alice, an administrator until 2100, signed by OpenSSL: `ALGORITHM TOKEN` a line.
const TOKENS: &str = include_str!("testdata/tokens.txt");
const NOW: i64 = 1_800_000_000;

fn token_of(algorithm: &str) -> &'static str {
    TOKENS.lines().find_map(|line| line.strip_prefix(algorithm)).unwrap().trim()
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    bytes.chunks(3).fold(String::new(), |mut text, chunk| {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * i) & 63) as usize]));
        }
        text
    })
}

fn signed_raw(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    format!("{message}.{}", base64url(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
}

/// A token of the cluster's issuer, for these and other modules' tests.
pub(crate) fn signed(claims: &Value) -> String {
    signed_raw(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), SECRET.as_bytes())
}

/// That issuer's secret.
pub(crate) fn given() -> Given {
    Given { secret: Some(Source::Text(SECRET.to_owned())), ..Given::default() }
}

fn key(public: Option<&str>, secret: Option<&str>) -> Key {
    backend::install();
    let texts = Given { public: public.map(text), secret: secret.map(text) }.read().unwrap();
    choose(&texts).unwrap().unwrap()
}

fn text(text: &str) -> Source {
    Source::Text(text.to_owned())
}

fn hmac() -> Key {
    key(None, Some(SECRET))
}

#[test]
fn tokens_of_other_implementations_verify() {
    let claims = verify(SAMPLE, &hmac(), &[]).unwrap();
    assert_eq!((claims.sub.as_str(), claims.exp_s, claims.grants.admin), ("alice", 4_102_444_800, true));
    for (algorithm, public) in [("RS256", RSA), ("RS384", RSA), ("RS512", RSA), ("ES256", P256)] {
        let claims = verify(token_of(algorithm), &key(Some(public), None), &[]).unwrap();
        assert!(claims.grants.admin, "{algorithm}");
    }
    let der: String = RSA.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(verify(token_of("RS256"), &key(Some(&der), Some(SECRET)), &[]).is_ok(), "base64 of DER, before the secret");
}

#[test]
fn the_configured_key_decides_on_algorithms_and_never_the_token() {
    let cases = [
        (token_of("RS256"), hmac()),
        (token_of("ES256"), hmac()),
        (token_of("ES256"), key(Some(RSA), None)),
        (token_of("RS256"), key(Some(P256), None)),
        (SAMPLE, key(Some(RSA), None)),
        (SAMPLE, key(Some(P256), None)),
    ];
    for (token, key) in cases {
        assert_eq!(verify(token, &key, &[]).unwrap_err(), TokenError::Algorithm);
    }
    // The classic: the public key, which everybody has, as the secret of HS256.
    let der = {
        let Key::Rsa(key) = key(Some(RSA), None) else { panic!() };
        key.try_get_as_bytes().unwrap().to_vec()
    };
    for secret in [RSA.as_bytes(), RSA.trim_end().as_bytes(), &der] {
        let forged = signed_raw(r#"{"alg":"HS256"}"#, r#"{"sub":"eve","exp":4102444800,"admin":true}"#, secret);
        assert_eq!(verify(&forged, &key(Some(RSA), None), &[]).unwrap_err(), TokenError::Algorithm);
    }
    let claims = r#"{"sub":"eve","exp":4102444800,"admin":true}"#;
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":""}"#, r#"{"typ":"JWT"}"#, r#"{"alg":"hs256"}"#]
    {
        let unsigned = format!("{}.{}.", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        assert_eq!(verify(&unsigned, &hmac(), &[]).unwrap_err(), TokenError::Malformed, "{header}");
        assert!(verify(&signed_raw(header, claims, SECRET.as_bytes()), &hmac(), &[]).is_err(), "{header}");
    }
    for header in [r#"{"alg":"HS384"}"#, r#"{"alg":"HS512"}"#] {
        assert_eq!(
            verify(&signed_raw(header, claims, SECRET.as_bytes()), &hmac(), &[]).unwrap_err(),
            TokenError::Algorithm
        );
    }
    let crit = signed_raw(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, claims, SECRET.as_bytes());
    assert_eq!(verify(&crit, &hmac(), &[]).unwrap_err(), TokenError::Malformed);
}

#[test]
fn required_claims_are_required_and_typed() {
    let check = |claims: Value| verify(&signed(&claims), &hmac(), &[]).map(|_| ());
    assert_eq!(check(json!({"sub": "a", "exp": NOW})), Ok(()));
    assert_eq!(check(json!({"sub": "a", "exp": 1.5e9})), Ok(()));
    assert_eq!(check(json!({"sub": "", "exp": NOW})), Err(TokenError::Claims));
    assert_eq!(check(json!({"exp": NOW})), Err(TokenError::Claims));
    assert_eq!(check(json!({"sub": "a"})), Err(TokenError::Claims));
    assert_eq!(check(json!({"sub": "a", "exp": null})), Err(TokenError::Claims));
    for odd in [
        json!({"sub": "a", "exp": "2100"}),
        json!({"sub": 7, "exp": NOW}),
        json!({"sub": "a", "exp": NOW, "nbf": "never"}),
        json!({"sub": "a", "exp": NOW, "admin": "yes"}),
        json!({"sub": "a", "exp": NOW, "clusters": [{"id": "x", "perm": "all"}]}),
        json!({"sub": "a", "exp": NOW, "clusters": [{"id": "x", "perm": -1}]}),
        json!(["sub", "exp"]),
    ] {
        assert_eq!(check(odd.clone()), Err(TokenError::Malformed), "{odd}");
    }
    let twice = r#"{"sub":"a","exp":4102444800,"admin":false,"admin":true}"#;
    assert!(verify(&signed_raw(r#"{"alg":"HS256"}"#, twice, SECRET.as_bytes()), &hmac(), &[]).is_err());
}

#[test]
fn a_token_is_for_its_audience() {
    let wanted = ["ais".to_owned(), "lab".to_owned()];
    let check =
        |aud: Value| verify(&signed(&json!({"sub": "a", "exp": NOW, "aud": aud})), &hmac(), &wanted).map(|_| ());
    assert_eq!(check(json!("ais")), Ok(()));
    assert_eq!(check(json!(["other", "lab"])), Ok(()));
    for aud in [json!(null), json!("other"), json!([]), json!("AIS")] {
        assert_eq!(check(aud.clone()), Err(TokenError::Audience), "{aud}");
    }
}

#[test]
fn times_are_exact() {
    let claims = |value: Value| verify(&signed(&value), &hmac(), &[]).unwrap();
    let token = claims(json!({"sub": "a", "exp": NOW, "nbf": NOW - 10}));
    assert_eq!(token.check_time(NOW - 1), Ok(()));
    assert_eq!(token.check_time(NOW), Err(TokenError::Expired));
    assert_eq!(token.check_time(NOW - 10), Ok(()));
    assert_eq!(token.check_time(NOW - 11), Err(TokenError::Early));
    let edges = claims(json!({"sub": "a", "exp": 1e300, "nbf": -1e300}));
    assert_eq!(edges.check_time(i64::MAX - 1), Ok(()));
    assert_eq!(claims(json!({"sub": "a", "exp": -5})).check_time(0), Err(TokenError::Expired));
}

#[test]
fn keys_that_make_no_sense_are_refused() {
    let texts = |public: Option<&str>, secret: Option<&str>| {
        Given { public: public.map(text), secret: secret.map(text) }.read().unwrap()
    };
    assert!(choose(&texts(None, None)).unwrap().is_none());
    assert!(choose(&texts(Some(" \n"), Some(""))).unwrap().is_none());
    assert!(choose(&texts(None, Some(RSA))).is_err(), "a public key as a secret");
    assert!(choose(&texts(Some("not a key"), None)).is_err());
    let private = RSA.replace("PUBLIC KEY", "PRIVATE KEY");
    assert!(choose(&texts(Some(&private), None)).is_err_and(|why| why.contains("private key")));
    assert!(!format!("{:?}", given()).contains(SECRET));
}

fn state(settings: &[(&str, &str)]) -> State {
    let genesis = ais_meta::state::Genesis {
        uuid: "kJ8sPq2Lx".parse().unwrap(),
        nodes: Vec::new(),
        founder: "g1/0000000000000007".parse().unwrap(),
        run: 1,
        lease_ms: 2000,
        created_s: 0,
    };
    let state = State::genesis(genesis).unwrap();
    let mut draft = state.draft(state.stamp().next());
    let set = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    draft.change(&ais_meta::Change::SetConfig { set, reset: false });
    draft.finish().unwrap().0
}

fn revoked(state: &State, token: &str) -> State {
    let tokens = [(fingerprint(token), claimed_expiry(token).unwrap())].into();
    let mut draft = state.draft(state.stamp().next());
    draft.change(&ais_meta::Change::RevokeTokens { tokens, now_s: NOW });
    draft.finish().unwrap().0
}

#[test]
fn a_revoked_token_is_revoked_also_when_it_was_verified_before_and_also_with_another_signature() {
    let authority = Authority::new(given());
    let before = state(&[]);
    assert!(authority.check(SAMPLE, &before, NOW).is_ok());
    let after = revoked(&before, SAMPLE);
    assert_eq!(authority.check(SAMPLE, &after, NOW).unwrap_err(), TokenError::Revoked);
    assert!(authority.check(SAMPLE, &before, NOW).is_ok(), "the State decides, nothing that the process remembers");
    // Of an ECDSA signature (r, s) everybody can make (r, n - s).
    let (signed, _) = SAMPLE.rsplit_once('.').unwrap();
    assert_eq!(authority.check(&format!("{signed}.AAAA"), &after, NOW).unwrap_err(), TokenError::Revoked);
}

#[test]
fn what_was_verified_counts_only_under_the_rules_of_then() {
    let authority = Authority::new(given());
    let open = state(&[]);
    assert!(authority.check(SAMPLE, &open, NOW).is_ok());
    let strict = state(&[(AUDIENCES, "ais")]);
    assert_eq!(authority.check(SAMPLE, &strict, NOW).unwrap_err(), TokenError::Audience);
    assert!(authority.check(SAMPLE, &open, NOW).is_ok());
    assert_eq!(authority.check(SAMPLE, &open, i64::MAX).unwrap_err(), TokenError::Expired, "asked at each use");
    let nobody = Authority::new(Given::default());
    assert_eq!(nobody.check(SAMPLE, &open, NOW).unwrap_err(), TokenError::NoKey);
    assert!(nobody.unusable().is_some());
    assert!(authority.unusable().is_none());
}

#[test]
fn a_key_file_that_changes_takes_the_old_tokens_away() {
    let file = std::env::temp_dir().join(format!("ais-token-key-{}", std::process::id()));
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let authority = Authority::new(Given { secret: Some(Source::File(file.clone())), ..Given::default() });
    let state = state(&[]);
    assert!(authority.check(SAMPLE, &state, NOW).is_ok());
    assert_eq!(authority.reload(), Ok(Reloaded::Same));
    std::fs::write(&file, "another-secret").unwrap();
    assert_eq!(authority.reload(), Ok(Reloaded::Changed));
    assert_eq!(authority.check(SAMPLE, &state, NOW).unwrap_err(), TokenError::Signature);
    std::fs::remove_file(&file).unwrap();
    assert!(authority.reload().is_err());
    assert_eq!(
        authority.check(SAMPLE, &state, NOW).unwrap_err(),
        TokenError::Signature,
        "the last key goes on counting"
    );
}

#[test]
fn what_is_remembered_is_bounded() {
    let authority = Authority::new(given());
    let state = state(&[]);
    for i in 0..CACHE_LEN_MAX + 10 {
        let token = signed(&json!({"sub": i.to_string(), "exp": NOW + 1}));
        authority.check(&token, &state, NOW).unwrap();
    }
    assert!(authority.inner().verified.len() <= CACHE_LEN_MAX);
    let long = signed(&json!({"sub": "x".repeat(token::TOKEN_LEN_MAX), "exp": NOW + 1}));
    assert_eq!(authority.check(&long, &state, NOW).unwrap_err(), TokenError::TooLong);
}

#[test]
fn an_authn_server_finds_its_key_again() {
    let state = state(&[]);
    let authority = Authority::new(given());
    assert_eq!(authority.is_secret(&state, &hex_sha256(SECRET.as_bytes())), Some(true));
    assert_eq!(authority.is_secret(&state, &hex_sha256(b"other")), Some(false));
    assert_eq!(authority.is_public(&state, RSA), Ok(None));
    let authority = Authority::new(Given { public: Some(text(RSA)), ..Given::default() });
    assert_eq!(authority.is_public(&state, RSA), Ok(Some(true)));
    assert_eq!(authority.is_public(&state, P256), Ok(Some(false)));
    assert!(authority.is_public(&state, "nonsense").is_err());
    assert_eq!(authority.is_secret(&state, ""), None);
}

/// DER of lists, one in the other.
fn nested(bytes: usize) -> Vec<u8> {
    let mut backwards: Vec<u8> = Vec::new();
    while backwards.len() < bytes {
        let length = u32::try_from(backwards.len()).unwrap().to_be_bytes();
        let digits = &length[length.iter().take_while(|byte| **byte == 0).count()..];
        backwards.extend(digits.iter().rev());
        if backwards.len() - digits.len() > 127 {
            backwards.push(0x80 | u8::try_from(digits.len()).unwrap());
        } else if digits.is_empty() {
            backwards.push(0);
        }
        backwards.push(0x30);
    }
    backwards.reverse();
    backwards
}

/// Anybody may send a key: one of many levels overflowed the stack, which ends the process, and one with a long tag held
/// a thread up for minutes.
#[test]
fn somebody_elses_key_may_be_anything() {
    let sent = |der: &[u8]| base64url(der).replace('-', "+").replace('_', "/") + &"=".repeat((3 - der.len() % 3) % 3);
    let long_tag = [&[0x3f_u8][..], &vec![0xff; 700_000]].concat();
    let (deep, deepest, long_tag) = (sent(&nested(1500)), sent(&nested(700_000)), sent(&long_tag));
    assert!(deep.len() <= keys::PUBLIC_LEN_MAX, "it is looked at");
    let state = state(&[]);
    let judge = move || {
        let authority = Authority::new(Given { public: Some(text(RSA)), ..Given::default() });
        let (large, theirs) = (format!("{RSA}\n{}", " ".repeat(keys::PUBLIC_LEN_MAX)), [deep, deepest, long_tag]);
        theirs.iter().chain([&large]).map(|theirs| authority.is_public(&state, theirs)).collect::<Vec<_>>()
    };
    // Half of what a thread of the daemon has.
    let judged = std::thread::Builder::new().stack_size(1 << 20).spawn(judge).unwrap().join().unwrap();
    assert!(judged.iter().all(Result::is_err), "{judged:?}");
    let too_long = |said: &Result<Option<bool>, String>| said.as_ref().is_err_and(|why| why.contains("at most 2048"));
    assert_eq!(judged.iter().map(too_long).collect::<Vec<_>>(), [false, true, true, true]);
}

fn grants(value: Value) -> Grants {
    verify(&signed(&value), &hmac(), &[]).unwrap().grants
}

#[test]
fn rights_are_looked_up_as_aistore_does() {
    let ours = "kJ8sPq2Lx".parse().unwrap();
    let (nnn, other) = ("nnn".parse().unwrap(), "other".parse().unwrap());
    let bucket = |name: &str, uuid: &str, perm: u64| json!({"bck": {"name": name, "provider": "ais", "namespace": {"uuid": uuid}}, "perm": perm.to_string()});
    let show = Rights::SHOW_CLUSTER;
    let of = |clusters: Value, buckets: Value| {
        grants(json!({"sub": "a", "exp": 1, "clusters": clusters, "buckets": buckets}))
    };

    let nothing = of(json!(null), json!(null));
    assert!(!nothing.allow(&ours, None, show) && !nothing.allow(&ours, Some(&nnn), Rights::HEAD_BUCKET));
    let admin = grants(json!({"sub": "a", "exp": 1, "admin": true}));
    assert!(admin.allow(&ours, Some(&nnn), Rights::ADMIN.and(Rights::SET_ACL)));

    let default = of(json!([{"id": "", "perm": show.0}]), json!(null));
    assert!(default.allow(&ours, None, show) && !default.allow(&ours, None, Rights::ADMIN));
    let named = of(json!([{"id": "", "perm": show.0}, {"id": "kJ8sPq2Lx", "perm": "0"}]), json!(null));
    assert!(!named.allow(&ours, None, show), "the cluster's own grant counts before the default");

    let head = Rights::HEAD_BUCKET;
    let special = of(
        json!([{"id": "kJ8sPq2Lx", "perm": head.and(Rights::CREATE_BUCKET).0}]),
        json!([bucket("nnn", "kJ8sPq2Lx", 0)]),
    );
    assert!(!special.allow(&ours, Some(&nnn), head), "the bucket's grant overrides the cluster's");
    assert!(special.allow(&ours, Some(&other), head));
    assert!(special.allow(&ours, Some(&nnn), Rights::CREATE_BUCKET), "but not what belongs to the cluster");
    let elsewhere = of(json!([]), json!([bucket("nnn", "anotherOne", head.0)]));
    assert!(!elsewhere.allow(&ours, Some(&nnn), head));
    let here = of(json!([]), json!([bucket("nnn", "kJ8sPq2Lx", head.0)]));
    assert!(here.allow(&ours, Some(&nnn), head) && !here.allow(&ours, Some(&nnn), head.and(Rights::PATCH)));
    assert!(!here.allow(&ours, Some(&ais_meta::BucketName::new("ns", "nnn").unwrap()), head));
}

#[test]
fn a_buckets_mask_binds_without_tokens_too() {
    let destroy = Rights::DESTROY_BUCKET;
    assert!(mask_allows(u64::MAX, destroy, None));
    assert!(!mask_allows(0, destroy, None));
    assert!(mask_allows(0, Rights::HEAD_BUCKET.and(Rights::PATCH).and(Rights::SET_ACL), None));
    let user = Grants::default();
    assert!(!mask_allows(0, Rights::HEAD_BUCKET, Some(&user)));
    let admin = Grants { admin: true, ..Grants::default() };
    assert!(mask_allows(0, Rights::PATCH.and(Rights::SET_ACL), Some(&admin)));
    assert!(!mask_allows(0, destroy, Some(&admin)));
    assert_eq!(Rights::PATCH.and(Rights::ADMIN).to_string(), "PATCH,ADMIN");
}

fn headers(pairs: &[(&'static str, &str)]) -> axum::http::HeaderMap {
    pairs.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

#[test]
fn a_token_comes_in_one_of_two_headers() {
    assert_eq!(extract(&headers(&[])), Err(TokenError::Missing));
    assert_eq!(extract(&headers(&[("authorization", "Bearer abc")])), Ok("abc"));
    assert_eq!(extract(&headers(&[("x-amz-security-token", "abc")])), Ok("abc"));
    assert_eq!(extract(&headers(&[("authorization", "Bearer a"), ("x-amz-security-token", "b")])), Ok("a"));
    let signed = [("authorization", "AWS4-HMAC-SHA256 Credential=x"), ("x-amz-security-token", "b")];
    assert_eq!(extract(&headers(&signed)), Ok("b"));
    for bad in ["abc", "Basic abc", "Bearer", "Bearer "] {
        assert_eq!(extract(&headers(&[("authorization", bad)])), Err(TokenError::NotBearer), "{bad}");
    }
}

proptest! {
    /// No bytes make the verifier panic, and none but the issuer's are accepted.
    #[test]
    fn nobody_guesses_a_token(text in "\\PC{0,200}") {
        prop_assert!(verify(&text, &hmac(), &[]).is_err());
        let _ = claimed_expiry(&text);
        let _ = fingerprint(&text);
    }

    #[test]
    fn parts_of_base64_that_mean_nothing(a in "[A-Za-z0-9_-]{0,60}", b in "[A-Za-z0-9_-]{0,60}", c in "[A-Za-z0-9_-]{0,60}") {
        for key in [hmac(), key(Some(RSA), None), key(Some(P256), None)] {
            let text = format!("{a}.{b}.{c}");
            prop_assert!(verify(&text, &key, &[]).is_err());
        }
    }

    /// One changed character anywhere is noticed, with every kind of key.
    #[test]
    fn a_changed_token_is_refused(at in 0usize..2000, letter in "[A-Za-z0-9_.=-]") {
        let keys = [(SAMPLE, hmac()), (token_of("RS256"), key(Some(RSA), None)), (token_of("ES256"), key(Some(P256), None))];
        for (token, key) in keys {
            let at = at % token.len();
            let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
            prop_assert!(changed == token || verify(&changed, &key, &[]).is_err(), "{changed}");
        }
    }

    /// More bits never take a right away.
    #[test]
    fn rights_are_monotone(perm in any::<u64>(), more in any::<u64>(), wanted in 0u64..1 << 18) {
        let ours = "kJ8sPq2Lx".parse().unwrap();
        let with = |perm| Grants { clusters: vec![rights::ClusterGrant { id: String::new(), perm: Rights(perm) }], ..Grants::default() };
        let (few, many) = (with(perm), with(perm | more));
        prop_assert!(!few.allow(&ours, None, Rights(wanted)) || many.allow(&ours, None, Rights(wanted)));
        prop_assert_eq!(few.allow(&ours, None, Rights(wanted)), perm & wanted == wanted);
        prop_assert!(!mask_allows(perm, Rights(wanted), None) || mask_allows(perm | more, Rights(wanted), None));
    }
}

#[test]
fn texts_are_compared_as_a_whole() {
    assert!(Texts::default() == Given::default().read().unwrap());
}
