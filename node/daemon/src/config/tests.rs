use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches};
use expect_test::expect;

use super::*;

/// A file of its own that goes away with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ais-config-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
    fn text(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn flags(args: &[&str]) -> Flags {
    let command = Flags::augment_args(Command::new("t").no_binary_name(true));
    Flags::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
}

fn with(args: &[&str], env: &[(&str, &str)]) -> Result<Config, Problems> {
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    let read = |name: &str| env.get(name).map(|text| (*text).to_owned());
    load(&flags(args), &Surroundings { env: &read, hostname: Some("host-1") })
}

const LEAST: [&str; 4] = ["--node-id=g1", "--kind=gateway", "--state-dir=/s", "--insecure"];

fn least(more: &[&str]) -> Result<Config, Problems> {
    with(&[&LEAST[..], more].concat(), &[])
}

#[test]
fn the_least_is_a_name_a_kind_a_directory_and_a_word_on_secrets() {
    let config = least(&[]).unwrap();
    assert_eq!(config.timers, ais_ha::Timers::default());
    let timers = &config.timers;
    assert_eq!((config.voters, timers.evict_voter_ms, timers.park_ms), (5, 60_000, 15_000));
    assert_eq!(config.addresses().public.to_string(), "host-1:51080");
    assert!(config.keyring.ring().secrets().is_none());
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = File::new("order", "lease_ms: 2500\nsuspect_ms: 1600\nheartbeat_ms: 250\n");
    let path = file.text();
    let args = [&LEAST[..], &["--config", &path, "--lease-ms=2700"]].concat();
    let config = with(&args, &[("AIS_LEASE_MS", "2600"), ("AIS_SUSPECT_MS", "1700")]).unwrap();
    assert_eq!((config.timers.lease_ms, config.timers.suspect_ms), (2700, 1700));
    assert_eq!((config.timers.heartbeat_ms, config.timers.stagger_ms), (250, 200));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let config = with(&LEAST, &[("AIS_PRIMARY_EP", ""), ("AIS_VOTERS", "")]).unwrap();
    assert_eq!((config.primary_ep, config.voters), (None, 5));
}

#[test]
fn all_errors_come_at_once_each_with_what_to_do() {
    let file =
        File::new("errors", "node_id: g1\nleas_ms: 1\npublic-port: 2\nfrobnicate: 3\nvoters: 4\nlog_level: ''\n");
    let path = file.text();
    let args = ["--config", &path, "--control-port=51080", "--insecure=maybe", "--lease-ms=1000", "--park-ms=20000"];
    let problems =
        with(&args, &[("AIS_KIND", "proxy"), ("AIS_CLUSTER_UUID", "short"), ("AIS_PEER_PORT", "tcp://10.0.0.1:1")]);
    let text = problems.unwrap_err().to_string().replace(&path, "FILE");
    expect![[r#"
        the configuration has 13 errors:
          * FILE: unknown key 'frobnicate'
          * FILE: unknown key 'leas_ms'; did you mean 'lease_ms'?
          * FILE: unknown key 'public-port'; did you mean 'public_port'?
          * kind (environment AIS_KIND): 'proxy' is not one of gateway, target
          * state_dir is not set; set it with --state-dir, AIS_STATE_DIR or 'state_dir:' in the file
          * insecure (flag): 'maybe' is neither true nor false
          * secret_file is not set; set it with --secret-file, AIS_SECRET_FILE or 'secret_file:' in the file, or choose insecure on a trusted network
          * public_port and control_port are both 51080; give each its own
          * peer_port (environment AIS_PEER_PORT): 'tcp://10.0.0.1:1' is not a port; give 1 to 65535
          * cluster_uuid (environment AIS_CLUSTER_UUID): 'short' is not a cluster uuid: 9 to 64 of letters, digits, '_', '-'
          * voters (file FILE): '4' is not one of 3, 5
          * suspect_ms (1500) must be less than lease_ms (1000): a primary is suspected before its lease ends
          * park_ms (20000) must be at most 19000: clients give up after 20 s"#]]
    .assert_eq(&text);
}

#[test]
fn a_file_that_is_no_map_or_names_a_key_twice_is_refused() {
    for content in ["- a\n- b\n", "node_id: [1, 2]\n", "voters: 3\nvoters: 5\n", "a: b: c\n"] {
        let file = File::new("shape", content);
        let problems = least(&["--config", &file.text()]).unwrap_err();
        assert!(problems.0[0].contains("is not 'key: value' lines of YAML"), "{content}: {problems}");
    }
    let problems = least(&["--config", "/nowhere/at/all"]).unwrap_err();
    assert!(problems.0[0].contains("cannot be read"), "{problems}");
}

#[test]
fn values_that_look_like_numbers_stay_as_they_were_written() {
    let file =
        File::new("numbers", "node_id: 007\nkind: gateway\nstate_dir: /s\ninsecure: true\ncluster_uuid: 1234567890\n");
    let config = with(&["--config", &file.text()], &[]).unwrap();
    assert_eq!(config.node_id.as_str(), "007");
    assert_eq!(config.cluster_uuid.unwrap().as_str(), "1234567890");
}

#[test]
fn the_secret_is_read_once_and_shown_never() {
    let secret = File::new("secret", "0123456789abcdef\n");
    let args = ["--node-id=g1", "--kind=gateway", "--state-dir=/s", "--secret-file", &secret.text()];
    let config = with(&args, &[]).unwrap();
    let ring = config.keyring.ring();
    assert_eq!(ring.secrets().unwrap().current().as_bytes(), b"0123456789abcdef");
    for text in [config.effective(), format!("{config:?}")] {
        assert!(!text.contains("0123456789abcdef"), "{text}");
    }
    let short = File::new("short", "abc\n");
    let args = ["--node-id=g1", "--kind=gateway", "--state-dir=/s", "--secret-file", &short.text()];
    assert!(with(&args, &[]).unwrap_err().0[0].contains("shorter than 16 bytes"));
    assert!(
        with(&["--secret-file=/none", LEAST[0], LEAST[1], LEAST[2]], &[]).unwrap_err().0[0].contains("cannot be read")
    );
    assert!(least(&["--secret-file", &secret.text()]).unwrap_err().0[0].contains("exclude each other"));
}

#[test]
fn what_is_printed_as_effective_reads_back_as_the_same() {
    let config = least(&["--lease-ms=2100", "--domain=rack 1: \"a\"", "--standalone"]).unwrap();
    let file = File::new("effective", &config.effective());
    let again = with(&["--config", &file.text()], &[]).unwrap();
    let values = |c: &Config| {
        c.shown().map(|(k, v)| (k, v.to_owned())).filter(|(k, _)| *k != "advertise_host").collect::<Vec<_>>()
    };
    assert_eq!(values(&config), values(&again));
    assert_eq!(again.advertise_host, config.advertise_host);
}

#[test]
fn check_config_exits_with_2_on_errors() {
    let around = Surroundings { env: &|_| None, hostname: Some("h") };
    assert_eq!(check(&flags(&LEAST), &around).1, 0);
    let (text, code) = check(&flags(&[]), &around);
    assert!(code == 2 && text.starts_with("the configuration has 4 errors:"), "{text}");
}

#[test]
fn hosts_and_endpoints_are_told_apart_from_nonsense() {
    for good in ["http://g1:51080", "g1", "g1:51080", "https://a.b.c/", "[::1]:51080", "::1", "http://[fe80::1]:1"] {
        assert!(least(&["--primary-ep", good]).is_ok(), "{good}");
    }
    for bad in ["http://", "g1:port", "a b", "ftp://g1", "g1:99999"] {
        assert!(least(&["--primary-ep", bad]).is_err(), "{bad}");
    }
    assert!(least(&["--advertise-host=0.0.0.0"]).is_err());
    assert_eq!(least(&["--listen-host=127.0.0.1"]).unwrap().advertise_host, "127.0.0.1");
    assert!(with(&["--kind=target", "--non-electable", LEAST[0], LEAST[2], LEAST[3]], &[]).is_err());
    assert!(least(&["--standalone", "--non-electable"]).is_err());
}

#[test]
fn a_bad_value_never_hides_an_error_elsewhere() {
    // What is read later takes any text.
    let later = |name: &str| name == "discovery_file" || name == "state_dir" || name.starts_with("tls_");
    for key in KEYS.iter().filter(|key| !later(key.name) && !key.secret) {
        let flag = format!("--{}=\u{1}", flag_name(key.name));
        let problems = with(&[&flag], &[]).unwrap_err().to_string();
        let named = problems.contains(&format!("{} (flag)", key.name)) || key.name == "domain";
        assert!(named && problems.contains("state_dir is not set"), "{}: {problems}", key.name);
    }
}

#[test]
fn tls_needs_all_three_files_and_lives_with_bad_ones() {
    let problems = least(&["--tls-cert-file=/nonexistent/tls.crt"]).unwrap_err().to_string();
    assert!(problems.contains("tls_key_file is not set") && problems.contains("tls_ca_file is not set"), "{problems}");
    let all = ["--tls-cert-file=/nonexistent/c", "--tls-key-file=/nonexistent/k", "--tls-ca-file=/nonexistent/a"];
    let config = least(&all).unwrap();
    assert_eq!(config.scheme(), crate::tls::Scheme::Https);
    assert!(config.effective().contains("/nonexistent/c cannot be read"), "{}", config.effective());
    assert_eq!(with(&LEAST, &[]).unwrap().scheme(), crate::tls::Scheme::Http);
    // Where others know an address, the certificate is looked at for another name.
    let named = [&all[..], &["--advertise-host=10.0.0.7", "--tls-name=access.example"]].concat();
    assert_eq!(least(&named).unwrap().advertise_host, "10.0.0.7");
    let problems = least(&["--tls-name=access.example"]).unwrap_err().to_string();
    assert!(problems.contains("tls_name (flag): is for nodes with TLS"), "{problems}");
    assert!(least(&[&all[..], &["--tls-name=http://a"]].concat()).is_err());
}

#[test]
fn keys_of_tokens_are_read_and_never_shown() {
    let key = "a key that nobody may see";
    let file = File::new("authn", &format!("{key}\n"));
    let from_env = with(&LEAST, &[("AIS_AUTHN_SECRET_KEY", key)]).unwrap();
    let from_file = least(&["--authn-secret-key-file", &file.text()]).unwrap();
    for config in [&from_env, &from_file] {
        assert_eq!(config.authn_secret_key.as_ref().map(Hidden::reveal), Some(key));
        assert!(!config.effective().contains(key) && !format!("{config:?}").contains(key));
        assert!(config.shown().all(|(_, text)| !text.contains(key)));
    }
    let again = File::new("authn-effective", &from_env.effective());
    assert_eq!(with(&["--config", &again.text()], &[]).unwrap().authn_secret_key, None, "a mask is no key");
    let both = with(&LEAST, &[("AIS_AUTHN_SECRET_KEY", key), ("AIS_AUTHN_PUBLIC_KEY", "pem")]).unwrap_err().to_string();
    assert!(both.contains("exclude each other") && !both.contains(key), "{both}");
    let twice = with(&LEAST, &[("AIS_AUTHN_SECRET_KEY", key), ("AIS_AUTHN_SECRET_KEY_FILE", &file.text())]);
    assert!(twice.unwrap_err().to_string().contains("exclude each other"));
    let empty = File::new("authn-empty", "\n");
    assert!(least(&["--authn-public-key-file", &empty.text()]).unwrap_err().to_string().contains("is empty"));
}

#[test]
fn mountpaths_are_absolute_distinct_and_a_targets() {
    let target = ["--node-id=t1", "--kind=target", "--state-dir=/s", "--insecure"];
    let of = |text: &str| with(&[&target[..], &["--mountpaths", text]].concat(), &[]);
    let paths = [PathBuf::from("/a"), PathBuf::from("/b")];
    assert_eq!(of("/a, /b,").unwrap().mountpaths, paths);
    let file = File::new("mountpaths", "mountpaths:\n  - /a\n  - /b\n");
    assert_eq!(with(&[&target[..], &["--config", &file.text()]].concat(), &[]).unwrap().mountpaths, paths);
    for bad in ["a", "/a,/a", ",", "/a,b"] {
        assert!(of(bad).is_err(), "{bad}");
    }
    assert!(least(&["--mountpaths=/a"]).unwrap_err().to_string().contains("for targets"));
}

#[test]
fn of_several_failure_domains_the_first_that_is_known_counts() {
    let domain = |given: &str| least(&[&format!("--domain={given}")]).map(|config| config.domain);
    for (given, counts) in [("zone-a,node-1", "zone-a"), (",node-1", "node-1"), (" , node-1", "node-1"), (",", "")] {
        assert_eq!(domain(given).unwrap(), counts, "{given}");
    }
    assert!(domain(&"x".repeat(254)).unwrap_err().0[0].contains("longer than 253"));
}
