//! `ais-operator check` against an operator that is not ready, and an API server that is not there.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ais_operator::check::{CheckError, check};
use ais_operator::server::{self, Ready};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn it_says_what_is_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (ready, stop) = (Ready::default(), CancellationToken::new());
    let server = tokio::spawn(server::health(listener, ready.clone(), stop.clone()));
    // A port that was free a moment ago: nobody answers there.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::try_from(Config::new(format!("http://{nobody}").parse().unwrap())).unwrap();

    let error = check(&client, &url, Duration::ZERO).await.unwrap_err();
    assert!(matches!(&error, CheckError::NotReady { said, .. } if said.starts_with("503")), "{error}");
    ready.set();
    let error = check(&client, &url, Duration::ZERO).await.unwrap_err();
    assert!(matches!(&error, CheckError::NotServed { version, .. } if version == "aiscluster.dev/v1alpha1"), "{error}");
    stop.cancel();
    server.await.unwrap().unwrap();
    let error = check(&client, &url, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, CheckError::NotReady { .. }), "{error}");
}
