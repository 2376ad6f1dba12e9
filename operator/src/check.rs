//! `ais-operator check`: is an installation well? What `helm test` runs.
//!
//! It needs no right beyond those of every service account: an API server lists a custom resource in its discovery
//! only once the definition is Established.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::{Client, Resource};
use tokio::time::{Instant, sleep, timeout};

use ais_crds::AISCluster;

use crate::tls;

/// One question may take this long.
const QUESTION: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// What must be served.
const WANTED: [&str; 3] = ["aisclusters", "aisclusters/scale", "aisclusters/status"];

/// Something is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No HTTP client.
    #[error("HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    /// No settings of TLS.
    #[error(transparent)]
    Trust(#[from] tls::client::TrustError),
    /// The operator does not say that it is ready.
    #[error("{url} says {said}")]
    NotReady {
        /// What was asked.
        url: String,
        /// Status and body, or why there is none.
        said: String,
    },
    /// The API server does not serve the resource.
    #[error("AISCluster is not served as {version}: {why}. Is its definition installed, of this version?")]
    NotServed {
        /// Group and version.
        version: String,
        /// What is missing.
        why: String,
    },
}

/// Tries until both hold, or for `limit`; says what was seen.
///
/// # Errors
/// What did not hold at the last try.
pub async fn check(client: &Client, url: &str, limit: Duration) -> Result<String, CheckError> {
    // The operator answers in plain. A client that may trust the system's authorities cannot be made where there are none,
    // as in its image.
    let tls = tls::client::nobody()?;
    let http = reqwest::Client::builder().no_proxy().timeout(QUESTION).tls_backend_preconfigured(tls).build();
    let http = http.map_err(CheckError::Client)?;
    let end = Instant::now() + limit;
    loop {
        let error = match once(client, &http, url).await {
            Ok(told) => return Ok(told),
            Err(error) => error,
        };
        if Instant::now() + PAUSE >= end {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

async fn once(client: &Client, http: &reqwest::Client, url: &str) -> Result<String, CheckError> {
    let url = format!("{}/readyz", url.trim_end_matches('/'));
    let not_ready = |said: String| CheckError::NotReady { url: url.clone(), said };
    let answer = http.get(&url).send().await.map_err(|e| not_ready(e.to_string()))?;
    let (status, body) = (answer.status(), answer.text().await.map_err(|e| not_ready(e.to_string()))?);
    if !status.is_success() {
        return Err(not_ready(format!("{status} {body}")));
    }
    let version = AISCluster::api_version(&()).into_owned();
    let not_served = |why: String| CheckError::NotServed { version: version.clone(), why };
    let listed = timeout(QUESTION, client.list_api_group_resources(&version)).await;
    let listed = listed.map_err(|_| not_served("no answer".into()))?.map_err(|e| not_served(e.to_string()))?;
    if let Some(missing) = missing(&listed) {
        return Err(not_served(format!("{missing} is missing")));
    }
    Ok(format!("{url}: {body}\nAISCluster is served as {version}"))
}

fn missing(listed: &APIResourceList) -> Option<&'static str> {
    WANTED.into_iter().find(|wanted| listed.resources.iter().all(|resource| resource.name != *wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;

    #[test]
    fn each_part_of_the_resource_must_be_served() {
        let resource = |name: &str| APIResource { name: name.to_owned(), ..APIResource::default() };
        let mut listed = APIResourceList::default();
        assert_eq!(missing(&listed), Some("aisclusters"));
        listed.resources = WANTED.map(resource).to_vec();
        assert_eq!(missing(&listed), None);
        listed.resources.pop();
        assert_eq!(missing(&listed), Some("aisclusters/status"));
    }
}
