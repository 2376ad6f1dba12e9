use ais_meta::{Refusal, Stamp};
use expect_test::expect;

use super::*;

#[tokio::test]
async fn a_bucket_is_made_listed_looked_at_and_destroyed() {
    let world = World::gateway();
    let made = world.call("POST", "/v1/buckets/nnn?provider=ais", CREATE).await;
    assert_eq!((made.status, made.body.as_str(), made.header("ais-stamp")), (200, "", "0.1.3"));

    let listed = world.call("GET", "/v1/buckets?provider=ais", LIST).await;
    assert_eq!(listed.header("content-type"), "application/json; charset=utf-8");
    expect![[r#"
        [{"name":"nnn","namespace":{"name":"","uuid":""},"provider":"ais"}]
    "#]]
    .assert_eq(&listed.body);

    let head = world.call("HEAD", "/v1/buckets/nnn?provider=ais", "").await;
    assert_eq!((head.status, head.header("ais-stamp")), (200, "0.1.3"));
    let props: Value = serde_json::from_str(head.header("ais-bucket-props")).unwrap();
    assert_eq!(props["bid"], (1u64 << 63 | 1).to_string());

    let gone = world.call("DELETE", "/v1/buckets/nnn/?provider=ais", DESTROY).await;
    assert_eq!((gone.status, gone.header("ais-stamp")), (200, "0.1.4"));
    assert_eq!(world.call("GET", "/v1/buckets", LIST).await.body, "[]\n");
}

#[tokio::test]
async fn what_is_there_or_missing_is_said_as_the_sdk_reads_it() {
    let world = World::gateway();
    world.call("POST", "/v1/buckets/nnn", CREATE).await;
    let again = world.call("POST", "/v1/buckets/nnn", CREATE).await;
    assert_eq!((again.status, again.header("content-type")), (409, "application/json"));
    assert_eq!(again.header("ais-stamp"), "0.1.4");
    expect![[r#"
        {"tcode":"ErrBucketAlreadyExists","message":"bucket \"ais://nnn\" already exists","method":"POST","url_path":"/v1/buckets/nnn","remote_addr":"10.1.1.7:40122","caller":"","node":"p[g2]","status":409}
    "#]]
    .assert_eq(&again.body);

    let missing = world.call("DELETE", "/v1/buckets/other", DESTROY).await;
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains(r#""message":"bucket \"ais://other\" does not exist""#), "{}", missing.body);

    let head = world.call("HEAD", "/v1/buckets/other", "").await;
    assert_eq!((head.status, head.body.as_str()), (404, ""));
    let body: Value = serde_json::from_str(head.header("hdr-error")).unwrap();
    assert_eq!((&body["status"], &body["tcode"]), (&Value::from(404), &Value::from("ErrBckNotFound")));
}

#[tokio::test]
async fn nobody_says_no_such_bucket_without_asking_the_primary() {
    let world = World::gateway();
    let with_bucket = {
        let state = genesis();
        let mut draft = state.draft(state.stamp().next());
        let name = "new".parse().unwrap();
        draft.change(&Change::CreateBucket { name, created_ns: 0, props: Default::default() });
        Arc::new(draft.finish().unwrap().0)
    };
    world.script.lock().unwrap().news = Some(with_bucket);
    assert_eq!(world.call("HEAD", "/v1/buckets/new", "").await.status, 200);
    assert_eq!(world.asked(), ["pull"]);
    assert_eq!(world.call("HEAD", "/v1/buckets/new", "").await.status, 200);
    assert_eq!(world.asked(), [""; 0], "a bucket that is known needs no question");

    assert_eq!(world.call("HEAD", "/v1/buckets/none", "").await.status, 404);
    world.script.lock().unwrap().fresh = false;
    let unsure = world.call("HEAD", "/v1/buckets/none", "").await;
    assert_eq!((unsure.status, unsure.header("retry-after")), (503, "1"));
    assert_eq!(world.call("GET", "/v1/buckets/none", "").await.status, 503);
}

#[tokio::test]
async fn a_mutation_ends_as_the_core_says() {
    let world = World::gateway();
    let post = async |proposed: Proposed| {
        world.script.lock().unwrap().proposed = Some(proposed);
        world.call("POST", "/v1/buckets/nnn", CREATE).await
    };
    let unavailable = post(Proposed::Unavailable).await;
    assert_eq!((unavailable.status, unavailable.header("retry-after")), (503, "1"));
    assert!(unavailable.body.contains("will not take effect"));

    let unknown = post(Proposed::Unknown { id: "g2/7#1.5".to_owned() }).await;
    assert_eq!((unknown.status, unknown.header("retry-after")), (504, ""));
    assert_eq!(unknown.json()["request_id"], "g2/7#1.5");
    assert!(unknown.body.contains("request g2/7#1.5 was proposed"));

    let busy = post(Proposed::Busy).await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, "1"));

    let refused = |refusal| Proposed::Settled { outcome: Outcome::Refused(refusal), stamp: Stamp::new(0, 4, 9) };
    let full = post(refused(Refusal::Full("no room".to_owned()))).await;
    assert_eq!((full.status, full.header("ais-stamp")), (507, "0.4.9"));
    assert_eq!(post(refused(Refusal::Stale)).await.status, 409);
    assert_eq!(
        post(Proposed::Settled { outcome: DONE, stamp: Stamp::new(0, 4, 9) }).await.header("ais-stamp"),
        "0.4.9"
    );
}

#[tokio::test]
async fn a_clients_own_id_reaches_the_core_and_is_bounded() {
    let world = World::gateway();
    let with_id = |id: &str| {
        let mut request = request("POST", "/v1/buckets/nnn", CREATE);
        request.headers_mut().insert(REQUEST_ID, id.parse().unwrap());
        request
    };
    assert_eq!(world.send(Door::Public, with_id("job-7")).await.status, 200);
    assert!(world.asked()[0].starts_with(r#"Some("job-7") CreateBucket"#));
    for bad in ["", "a b", &"x".repeat(65)] {
        assert_eq!(world.send(Door::Public, with_id(bad)).await.status, 400, "{bad}");
    }
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn providers_namespaces_and_names_are_checked() {
    let world = World::gateway();
    let cases = [
        ("nnn?provider=s3", 501),
        ("nnn?provider=azure", 501),
        ("nnn?provider=floppy", 400),
        ("nnn?namespace=%40otherUuid%23ns", 501),
        ("nnn?namespace=%23a.b", 400),
        (".nnn", 400),
        ("n..n", 400),
        ("n%20n", 400),
        ("n%FFn", 400),
        ("%C3%BC", 400),
    ];
    for (path, status) in cases {
        let answer = world.call("POST", &format!("/v1/buckets/{path}"), CREATE).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert_eq!(answer.json()["status"], status, "every error has a body");
        let head = world.call("HEAD", &format!("/v1/buckets/{path}"), "").await;
        assert_eq!((head.status, head.header("hdr-error").is_empty()), (status, false), "{path}");
    }
    assert_eq!(world.asked(), [""; 0]);
    for path in ["nnn?namespace=%40kJ8sPq2Lx%23ns", "nnn?namespace=%23other", "nnn", "nnn2?provider=ais&provider=ais"] {
        assert_eq!(world.call("POST", &format!("/v1/buckets/{path}"), CREATE).await.status, 200, "{path}");
    }
    let listed = world.call("GET", "/v1/buckets?namespace=%23ns", LIST).await;
    assert_eq!(listed.json()[0]["namespace"]["name"], "ns");
    assert_eq!(listed.json().as_array().unwrap().len(), 1);
    assert_eq!(world.call("GET", "/v1/buckets", "").await.json().as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why_and_when_to_ask_again() {
    let world = World::new("g2", Kind::Gateway, None, None);
    for (method, body) in [("GET", ""), ("POST", CREATE), ("DELETE", DESTROY)] {
        let answer = world.call(method, "/v1/buckets/nnn", body).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{method}");
        assert_eq!(answer.json()["reason"], "waiting for g2");
    }
    assert_eq!(world.call("GET", "/v1/buckets", LIST).await.status, 503);
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn a_gateway_that_stops_or_is_put_out_of_the_map_goes_on_serving() {
    let world = World::gateway();
    world.app.note_first_ready().await;
    world.change(|view| (view.ready, view.stopping) = (false, true)).await;
    let made = world.call("POST", "/v1/buckets/nnn", CREATE).await;
    assert_eq!((made.status, made.header("connection")), (200, "close"));
    assert_eq!(world.call("HEAD", "/v1/buckets/nnn", "").await.status, 200);
}

#[tokio::test]
async fn a_gateway_that_was_never_ready_neither_takes_changes_nor_reads_from_an_old_map() {
    let world = World::gateway();
    world.change(|view| view.ready = false).await;
    assert_eq!(world.call("GET", "/v1/buckets", LIST).await.status, 503);
    assert_eq!(world.call("POST", "/v1/buckets/nnn", CREATE).await.status, 503);
    assert_eq!(world.asked(), [""; 0]);
}
