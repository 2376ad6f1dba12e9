//! Bodies and queries of calls about members, jobs and buckets, and whatever holds a key.

use std::sync::OnceLock;

use ais_meta::State;
use ais_meta::auth::Secrets;
use ais_node::auth::{Authority, Given, Source};
use ais_node::http::decode::{self, Asked};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::state;

const RSA: &str = include_str!("../../../node/daemon/src/auth/testdata/rsa.pub.pem");
const P256: &str = include_str!("../../../node/daemon/src/auth/testdata/p256.pub.pem");

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// What a body means, written as we would write it, means the same.
fn stable<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    read: impl Fn(&[u8]) -> Result<T, String>,
    write: impl Fn(&T) -> Value,
) {
    match read(data) {
        Ok(meant) => assert_eq!(read(&bytes(&write(&meant))).as_ref(), Ok(&meant)),
        Err(why) => assert!(!why.is_empty(), "a refusal says why"),
    }
}

/// Input: a body, or what follows a `?`.
pub(crate) fn members(data: &[u8]) {
    stable(data, decode::membership, |(nodes, options)| {
        let mut value = json!(options);
        value["sids"] = json!(nodes);
        json!({"action": "start-maintenance", "value": value})
    });
    stable(data, decode::to_join, |(net, kind)| {
        assert!(net.port > 0 && (1..=253).contains(&net.host.len()));
        json!({"daemon_type": kind, "intra_control_net": {"node_ip_addr": net.host, "daemon_port": net.port}})
    });
    stable(data, decode::introduction, |(node, peer)| json!({"node_id": node, "peer": peer}));
    stable(data, decode::confirmed, |stamp| json!({"stamp": stamp.to_string()}));
    stable(data, decode::job, |(id, kind, stands_for)| {
        if let Some((stamp, ms)) = stands_for {
            let own = bytes(&json!({"id": format!("mv-{stamp}-{ms}")}));
            assert_eq!(decode::job(&own).expect("an id of ours").2, *stands_for);
            assert!(*ms > 0);
        }
        json!({"ID": id, "kind": kind})
    });
    buckets(&String::from_utf8_lossy(data));
}

fn buckets(text: &str) {
    let (own, uri) = (state::uuid(), format!("/v1/buckets/b?{text}"));
    let meant = [decode::rename_to(&own, &uri), decode::bucket(&own, "b", &uri), decode::bucket(&own, text, "/")];
    for bucket in meant.into_iter().flatten() {
        let to = format!("/v1/buckets/b?bck_to=ais/@%23{}/{}/", bucket.namespace, bucket.name);
        assert_eq!(decode::rename_to(&own, &to).as_ref(), Ok(&bucket));
        let in_query = format!("/v1/buckets/{}?namespace=@{own}%23{}", bucket.name, bucket.namespace);
        assert_eq!(decode::bucket(&own, &bucket.name, &in_query).as_ref(), Ok(&bucket));
    }
}

pub(crate) fn members_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"action":"decommission-node","value":{"sid":"n4","rm_user_data":true,"no_shutdown":false}}"#,
        r#"{"Action":"rm-unsafe","Value":{"SIDS":["n4","n5"],"sid":null,"skip_rebalance":true}}"#,
        r#"{"daemon_id":"n9","daemon_type":"proxy","intra_control_net":{"node_ip_addr":"::1","daemon_port":"51082"}}"#,
        r#"{"intra_control_net":{"node_ip_addr":"h.example","daemon_port":51082}}"#,
        r#"{"node_id":"n1","peer":{"host":"h","port":51084}}"#,
        r#"{"stamp":"0.4.17"}"#,
        r#"{"ID":"mv-0.4.17-1700000000000","kind":"move-bck"}"#,
        r#"{"uuid":"mv-0.4.17-0"}"#,
        "bck_to=ais/@%23ns/b.1/",
        "bck_to=ais%2F@cluster-1%23%2Fb",
        "provider=ais&namespace=@cluster-1%23ns",
        "provider=aws&namespace=@another%23",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Gateways that verify with a public key of either kind, and what they serve.
fn given() -> &'static (State, [(&'static str, Authority); 2]) {
    static GIVEN: OnceLock<(State, [(&str, Authority); 2])> = OnceLock::new();
    GIVEN.get_or_init(|| {
        let with = |pem: &'static str| {
            let public = Some(Source::Text(pem.to_owned()));
            let authority = Authority::new(Given { public, ..Given::default() });
            assert_eq!(authority.unusable(), None);
            (pem, authority)
        };
        (state::base(), [with(RSA), with(P256)])
    })
}

/// Input: a body of `/v1/tokens`, the text of a key, its DER, a file of secrets.
pub(crate) fn keys(data: &[u8]) {
    let (state, authorities) = given();
    let text = String::from_utf8_lossy(data);
    for (own, authority) in authorities {
        assert_eq!(authority.is_public(state, own), Ok(Some(true)), "its own key stays its own");
        match decode::asked(data) {
            Ok(Asked::Token(Some(token))) => {
                assert!(authority.check(&token, state, 0).is_err(), "nobody guesses a signature");
            }
            Ok(Asked::Secret(digest)) => assert_eq!(authority.is_secret(state, &digest), None),
            Ok(Asked::Public(public)) => drop(authority.is_public(state, &public)),
            Ok(Asked::Token(None)) | Err(_) => {}
        }
        drop(authority.is_public(state, &text));
        drop(authority.is_public(state, &STANDARD.encode(data)));
    }
    if let Ok(revoked) = decode::to_revoke(data) {
        let plain = |name: &String| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(!revoked.is_empty() && revoked.keys().all(plain));
    }
    if let Ok(secrets) = Secrets::from_file_content(data) {
        let lines: Vec<&[u8]> = secrets.iter().map(|secret| secret.as_bytes()).collect();
        assert_eq!(Secrets::from_file_content(&lines.join(&b'\n')).as_ref(), Ok(&secrets));
        assert_eq!(secrets.current().as_bytes(), lines[0]);
    }
}

pub(crate) fn keys_seeds() -> Vec<Vec<u8>> {
    let der = |pem: &str| {
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(text).expect("base64")
    };
    let mut seeds = vec![RSA.as_bytes().to_vec(), P256.as_bytes().to_vec(), der(RSA), der(P256)];
    // As deep as what is looked at can be.
    seeds.push((0_u16..700).fold(Vec::new(), |inner, _| nested(&inner)));
    seeds.extend([
        bytes(&json!({"public_key": RSA})),
        bytes(&json!({"pubkey": STANDARD.encode(der(P256))})),
        bytes(&json!({"secret": "0".repeat(64)})),
        bytes(&json!({"token": "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjF9.AAAA"})),
        bytes(&json!({"tokens": ["eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjF9.AAAA"]})),
        b"# 16 bytes at least\n0123456789abcdef\r\n\n fedcba9876543210\n".to_vec(),
    ]);
    seeds
}

/// A list of one, as DER.
fn nested(inner: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(inner.len()).expect("short").to_be_bytes();
    let head = match inner.len() {
        0..=127 => vec![0x30, low],
        128..=255 => vec![0x30, 0x81, low],
        _ => vec![0x30, 0x82, high, low],
    };
    [head.as_slice(), inner].concat()
}
