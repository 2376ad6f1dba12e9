//! Files that people and the operator write.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ais_meta::{Address, Addresses};
use ais_node::config::{self, Flags, Surroundings};
use ais_node::discovery::Source;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// The product reads files, so the input becomes one; a name per thread, removed at once.
fn with_file<T>(data: &[u8], read: impl FnOnce(&PathBuf) -> T) -> T {
    let name = format!("ais-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, data).expect("the temporary folder can be written");
    let result = read(&path);
    std::fs::remove_file(&path).expect("it is there");
    result
}

pub(crate) fn file(data: &[u8]) {
    let load = |path: &PathBuf| {
        let flags = Flags { config: Some(path.clone()), values: BTreeMap::new() };
        config::load(&flags, &Surroundings { env: &|_| None, hostname: Some("h") })
    };
    match with_file(data, load) {
        Ok(config) => {
            // What `check-config` prints is a file that gives the same configuration.
            let printed = config.effective();
            let again = with_file(printed.as_bytes(), load).expect("the printed configuration loads");
            let values = |config: &config::Config| -> Vec<(&str, String)> {
                // Printed as it was derived, where nobody set it.
                let set = config.shown().filter(|(key, _)| *key != "advertise_host");
                set.map(|(key, text)| (key, text.to_owned())).collect()
            };
            assert_eq!(values(&again), values(&config));
        }
        Err(problems) => assert!(!problems.0.is_empty(), "a refusal says why"),
    }
}

pub(crate) fn file_seeds() -> Vec<Vec<u8>> {
    let small = "kind: gateway\nnode_id: g1\nstate_dir: /s\ninsecure: true\n";
    let large = "kind: target\nnode_id: 't1'\nstate_dir: \"/s\"\ninsecure: yes\nlisten_host: '::'\npublic_port: 1\n\
        control_port: 2\npeer_port: 3\nheartbeat_ms: 100\nlog_level: info,ais_node=debug\nvoters: 3\ndomain: z\n\
        primary_ep: http://h:1/\ncluster_uuid: abcdefghi\nlease_ms: 2000\nadvertise_host: h\n";
    [small, large, "kind: *a\n", "{\"kind\": \"gateway\"}", "# nothing"].map(|text| text.as_bytes().to_vec()).into()
}

pub(crate) fn discovery(data: &[u8]) {
    let at = |port| Address { host: "h".into(), port };
    let source = |path: &PathBuf| Source {
        path: Some(path.clone()),
        primary_ep: None,
        default_port: 1,
        own: Addresses { public: at(1), control: at(2), peer: at(3) },
        node: "g1".parse().expect("a good id"),
        standalone: false,
        remembered: BTreeMap::new(),
    };
    let news = with_file(data, |path| RUNTIME.with(|runtime| runtime.block_on(source(path).read())));
    if news.problem.is_some() {
        // Whoever cannot read who else there is must not found.
        assert!(news.discovery.formed && news.discovery.initial_voters.is_empty() && news.book.is_empty());
    }
}

pub(crate) fn discovery_seeds() -> Vec<Vec<u8>> {
    let peer = "{id: g2, kind: gateway, public: 'h:1', control: 'h:2', peer: '[::1]:3'}";
    let whole = format!("cluster_uuid: abcdefghi\nformed: false\ninitial_voters: [g1, g2]\npeers: [{peer}]\n");
    vec![whole.into_bytes(), b"formed: true\n".to_vec(), b"peers: []".to_vec()]
}
