//! Who is let in while this node learns what the cluster wants of clients.

use axum::body::Bytes;
use tokio::sync::oneshot;

use super::super::caller::{Caller, Wanted};
use super::sweep::TABLE;
use super::*;
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
