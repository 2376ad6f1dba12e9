//! Who is let in while this node learns what the cluster wants of clients.

use ais_meta::BucketName;
use axum::body::Bytes;
use tokio::sync::oneshot;

use super::super::caller::{Caller, Wanted};
use super::sweep::TABLE;
use super::*;
use crate::auth::fingerprint;
use crate::auth::tests::{given, signed};

/// Clients need tokens, and there is a bucket.
fn closed() -> State {
    let state = genesis();
    let mut draft = state.draft(state.stamp().next());
    let set = [("auth.client_auth_required".to_owned(), "true".to_owned())].into();
    draft.change(&Change::SetConfig { set, reset: false });
    draft.change(&Change::CreateBucket { name: "nnn".parse().unwrap(), created_ns: 1, props: BTreeMap::new() });
    draft.finish().unwrap().0
}

#[tokio::test]
async fn a_gateway_that_does_not_know_whether_tokens_are_wanted_lets_nobody_in() {
    let empty = World::new("g2", Kind::Gateway, None, None);
    // It went down with this State; nothing says that it still holds. It has no key either.
    let old = World::gateway();
    old.change(|view| view.ready = false).await;
    let target = World::new("t1", Kind::Target, None, None);
    for world in [empty, old, target] {
        for (door, method, path, body, _) in TABLE {
            if *door != Door::Public || path.starts_with("/v1/health") {
                continue;
            }
            let answer = world.call(method, path, body).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{method} {path}: {}", answer.body);
        }
        assert_eq!(world.get("/v1/health").await.status, 200);
        assert_eq!(world.asked(), [""; 0]);
    }
}

#[tokio::test]
async fn a_caller_is_judged_again_when_its_body_has_come() {
    let world = World::gateway();
    let (send, rest) = oneshot::channel::<()>();
    let pieces = futures::stream::once(async move {
        rest.await.unwrap();
        Ok::<_, std::convert::Infallible>(Bytes::from(CREATE))
    });
    let slow = Request::post("/v1/buckets/nnn").body(Body::from_stream(pieces)).unwrap();
    let close = async {
        world.change(|view| view.published = Some(Arc::new(closed()))).await;
        send.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(world.send(Door::Public, slow), close);
    assert_eq!((answer.status, world.asked()), (401, vec![]), "{}", answer.body);
}

#[tokio::test]
async fn an_answer_that_took_a_while_is_not_given_to_who_may_no_longer_ask() {
    let world = World::gateway();
    world.script.lock().unwrap().news = Some(Arc::new(closed()));
    let answer = world.call("HEAD", "/v1/buckets/nnn", "").await;
    assert_eq!((answer.status, world.asked()), (401, vec!["pull".to_owned()]));
    assert_eq!(answer.header("ais-bucket-props"), "");
}

#[tokio::test]
async fn a_change_counts_under_the_state_that_it_is_proposed_in() {
    let world = World::with_keys("g2", Kind::Gateway, Some(genesis()), None, given());
    let claims = serde_json::json!({"sub": "alice", "exp": 4_102_444_800u64});
    let mut headers = HeaderMap::new();
    let mut still = |state: &State, caller: &Caller, token: bool| {
        if token {
            headers.insert("authorization", format!("Bearer {}", signed(&claims)).parse().unwrap());
        }
        world.app.still(state, caller, Wanted::Token, &headers).map_err(|e| e.status.as_u16())
    };
    assert_eq!(still(&genesis(), &Caller::Anybody, false), Ok(()));
    assert_eq!(still(&closed(), &Caller::Anybody, false), Err(401));
    assert_eq!(still(&closed(), &Caller::Anybody, true), Err(503), "nobody looked at what its token grants");
    assert_eq!(still(&closed(), &Caller::Member, false), Ok(()));
    let let_in = Caller::Token(world.app.judge(&signed(&claims)).unwrap());
    assert_eq!(still(&closed(), &let_in, true), Ok(()));
}

/// The State after this one, with one more change.
fn after(state: &State, change: Change) -> State {
    let mut draft = state.draft(state.stamp().next());
    assert_eq!(draft.change(&change), Outcome::Done);
    draft.finish().unwrap().0
}

fn set_config(name: &str, value: &str) -> Change {
    Change::SetConfig { set: [(name.to_owned(), value.to_owned())].into(), reset: false }
}

/// Calls while the primary, of which the gateway has not heard yet, commits the others' changes, one State a try; the
/// status, how often it was proposed, and whether bucket `name` is there afterwards.
async fn meanwhile(
    state: &State,
    token: Option<&str>,
    (method, body): (&str, &str),
    others: Vec<Change>,
    name: &str,
) -> (u16, usize, bool) {
    let world = World::with_keys("g2", Kind::Gateway, Some(state.clone()), None, given());
    let mut newest = state.clone();
    for change in others {
        newest = after(&newest, change);
        world.script.lock().unwrap().meanwhile.push_back(newest.clone());
    }
    let mut call = request(method, "/v1/buckets/nnn", body);
    if let Some(token) = token {
        call.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let answer = world.send(Door::Public, call).await;
    let name: BucketName = name.parse().unwrap();
    let there = world.app.view().published.as_ref().is_some_and(|state| state.buckets().contains_key(&name));
    (answer.status, world.asked().len(), there)
}

#[tokio::test]
async fn a_change_is_not_made_on_rights_that_its_caller_lost_while_it_was_under_way() {
    let create = ("POST", CREATE);
    let token = signed(&serde_json::json!({"sub": "alice", "exp": 4_102_444_800u64, "admin": true}));
    let revoke = Change::RevokeTokens { tokens: [(fingerprint(&token), 4_102_444_800)].into(), now_s: 0 };
    let wanted = after(&genesis(), set_config("auth.client_auth_required", "true"));
    assert_eq!(meanwhile(&wanted, Some(&token), create, vec![], "nnn").await, (200, 1, true));
    assert_eq!(meanwhile(&wanted, Some(&token), create, vec![revoke], "nnn").await, (401, 1, false), "revoked");

    let closes = set_config("auth.client_auth_required", "true");
    assert_eq!(meanwhile(&genesis(), None, create, vec![closes], "nnn").await, (401, 1, false), "tokens are wanted");

    let bucket = Change::CreateBucket { name: "nnn".parse().unwrap(), created_ns: 1, props: BTreeMap::new() };
    let open = after(&genesis(), bucket);
    let set = [("access".to_owned(), "0".to_owned())].into();
    let masks = Change::SetBucketProps { name: "nnn".parse().unwrap(), set, reset: false };
    let destroy = ("DELETE", r#"{"action":"destroy-bck"}"#);
    assert_eq!(meanwhile(&open, None, destroy, vec![], "nnn").await, (200, 1, false));
    assert_eq!(meanwhile(&open, None, destroy, vec![masks], "nnn").await, (403, 1, true), "the bucket's mask");
}

#[tokio::test]
async fn a_change_whose_caller_may_still_make_it_is_made_and_judged_a_bounded_number_of_times() {
    let create = ("POST", CREATE);
    let levels = |n: usize| ["warn", "info"].iter().cycle().take(n).map(|l| set_config("log.level", l)).collect();
    assert_eq!(meanwhile(&genesis(), None, create, levels(1), "nnn").await, (200, 2, true));
    assert_eq!(meanwhile(&genesis(), None, create, levels(3), "nnn").await, (200, 4, true));
    assert_eq!(meanwhile(&genesis(), None, create, levels(4), "nnn").await, (503, 4, false));
    // A bucket that others make and unmake changes nobody's rights to make another.
    let other = Change::CreateBucket { name: "other".parse().unwrap(), created_ns: 1, props: BTreeMap::new() };
    assert_eq!(meanwhile(&genesis(), None, create, vec![other], "nnn").await, (200, 1, true));
}
