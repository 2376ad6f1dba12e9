use std::fs;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

impl Authority {
    fn leaf(&self, host: &str, from_s: i64, until_s: i64) -> (String, String) {
        let at = |s: i64| {
            let distance = Duration::from_secs(s.unsigned_abs());
            if s < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (at(from_s).into(), at(until_s).into());
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A folder of its own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("ais-tls-{:016x}", getrandom::u64().unwrap()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn files(&self) -> Files {
        let at = |name: &str| self.0.join(name);
        Files { cert: at("tls.crt"), key: at("tls.key"), ca: at("ca.crt") }
    }

    fn write(&self, (cert, key): &(String, String), ca: &str) -> Files {
        let files = self.files();
        for (path, text) in [(&files.cert, cert.as_str()), (&files.key, key.as_str()), (&files.ca, ca)] {
            fs::write(path, text).unwrap();
        }
        files
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const HOUR: i64 = 3600;

#[test]
fn what_others_would_not_accept_is_said() {
    let (dir, ca, other) = (Dir::new(), authority("one"), authority("two"));
    let problem = |leaf: &(String, String), ca: &str| Tls::new(dir.write(leaf, ca), "g1.set.example").now().problem;
    let good = ca.leaf("g1.set.example", -HOUR, HOUR);
    let says = |found: Option<String>, text: &str| {
        assert!(found.as_ref().is_some_and(|found| found.contains(text)), "{found:?} instead of {text}");
    };
    assert_eq!(problem(&good, &ca.pem), None);
    assert_eq!(problem(&good, &format!("{}{}", other.pem, ca.pem)), None);
    assert_eq!(problem(&ca.leaf("*.set.example", -HOUR, HOUR), &ca.pem), None);
    says(problem(&good, &other.pem), "no authority in tls_ca_file");
    says(problem(&ca.leaf("g2.set.example", -HOUR, HOUR), &ca.pem), "does not name g1.set.example");
    says(problem(&ca.leaf("g1.set.example", -2 * HOUR, -HOUR), &ca.pem), "expired at");
    says(problem(&ca.leaf("g1.set.example", HOUR, 2 * HOUR), &ca.pem), "holds from");
    says(
        problem(&(good.0.clone(), ca.leaf("g1.set.example", 0, HOUR).1), &ca.pem),
        "is not the key of the certificate",
    );
    says(problem(&good, ""), "holds no certificate");
    says(problem(&(good.0.clone(), String::new()), &ca.pem), "holds no key");
    says(
        Tls::new(Files { cert: "/nonexistent".into(), ..dir.files() }, "g1.set.example").now().problem,
        "cannot be read",
    );
}

#[tokio::test]
async fn files_are_followed_and_what_does_not_fit_changes_nothing() {
    let (dir, ca) = (Dir::new(), authority("one"));
    let (first, second) = (ca.leaf("g1", -HOUR, HOUR), ca.leaf("g1", -HOUR, HOUR));
    let tls = Tls::new(dir.write(&first, &ca.pem), "g1");
    let before = tls.now().material.unwrap().certificate.clone();
    let mut changes = tls.changes();
    // Half a rotation: the certificate is there, its key is not yet.
    assert!(tls.take(Material::read(&dir.write(&(second.0.clone(), first.1), &ca.pem))).is_some());
    assert_eq!(tls.now().material.unwrap().certificate, before);
    assert_eq!(tls.now().problem, None);
    tls.follow(&runtime::Handle::current());
    dir.write(&second, &ca.pem);
    tls.doubt();
    changes.wait_for(|now| now.material.as_ref().is_some_and(|m| m.certificate != before)).await.unwrap();
    assert!(!format!("{tls:?}").contains("BEGIN"));
}

#[test]
fn what_others_would_not_accept_does_not_replace_what_they_accept() {
    let (dir, ca, other) = (Dir::new(), authority("one"), authority("two"));
    let tls = Tls::new(dir.write(&ca.leaf("g1", -HOUR, HOUR), &ca.pem), "g1");
    let good = tls.now().material.unwrap().certificate.clone();
    let worse = [
        (ca.leaf("g2", -HOUR, HOUR), &ca.pem, "does not name g1"),
        (ca.leaf("g1", -2 * HOUR, -HOUR), &ca.pem, "expired at"),
        (ca.leaf("g1", HOUR, 2 * HOUR), &ca.pem, "holds from"),
        (other.leaf("g1", -HOUR, HOUR), &ca.pem, "no authority"),
    ];
    for (leaf, ca, why) in &worse {
        let told = tls.take(Material::read(&dir.write(leaf, ca)));
        assert!(told.as_ref().is_some_and(|told| told.contains(why)), "{told:?} instead of {why}");
        assert_eq!((tls.now().material.unwrap().certificate.clone(), tls.now().problem), (good.clone(), None));
    }
    // Nothing is lost where nothing is good: the newest shows what is wrong.
    let tls = Tls::new(dir.write(&worse[1].0, &ca.pem), "g1");
    assert_eq!(tls.take(Material::read(&dir.write(&worse[0].0, &ca.pem))), None);
    assert!(tls.now().problem.is_some_and(|why| why.contains("does not name g1")));
}

#[test]
fn commands_take_urls_without_a_scheme() {
    let ca = Path::new("ca.crt");
    assert_eq!(base("g1:51080", None), "http://g1:51080");
    assert_eq!(base("g1:51080", Some(ca)), "https://g1:51080");
    assert_eq!(base("http://g1:51080", Some(ca)), "http://g1:51080");
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, dialled) = tokio::join!(listener.accept(), dialled);
    (dialled.unwrap(), accepted.unwrap().0)
}

/// What each side of a connection between two members comes to. The side that accepts has the last word with TLS 1.3.
async fn meet(dials: &Tls, hosts: &[&str], accepts: &Tls) -> (Result<(), String>, Result<(), String>) {
    let (one, two) = pair().await;
    let hosts: Vec<Arc<str>> = hosts.iter().map(|host| (*host).into()).collect();
    let dial = async {
        let mut wire = dials.dial_member(one, &hosts).await.map_err(|e| e.to_string())?;
        wire.read_u8().await.map(|_| ()).map_err(|e| e.to_string())
    };
    let accept = async {
        let mut wire = accepts.accept_member(two).await.map_err(|e| e.to_string())?;
        wire.write_u8(7).await.map_err(|e| e.to_string())?;
        wire.flush().await.map_err(|e| e.to_string())
    };
    tokio::join!(dial, accept)
}

#[tokio::test]
async fn members_verify_each_other_and_a_name_of_the_peer() {
    let (ours, theirs) = (authority("one"), authority("two"));
    let dirs: Vec<Dir> = (0..3).map(|_| Dir::new()).collect();
    let a = Tls::new(dirs[0].write(&ours.leaf("a", -HOUR, HOUR), &ours.pem), "a");
    let b = Tls::new(dirs[1].write(&ours.leaf("b", -HOUR, HOUR), &ours.pem), "b");
    assert_eq!(meet(&a, &["b"], &b).await, (Ok(()), Ok(())));
    // Any name that it is known by.
    assert_eq!(meet(&a, &["10.0.0.9", "b"], &b).await, (Ok(()), Ok(())));
    assert!(meet(&a, &["c"], &b).await.0.unwrap_err().contains("not valid for name"));
    assert!(meet(&a, &[], &b).await.0.unwrap_err().contains("no name"));
    // Trusts us, and we do not trust it: refused in both directions.
    let both = format!("{}{}", ours.pem, theirs.pem);
    let stranger = Tls::new(dirs[2].write(&theirs.leaf("c", -HOUR, HOUR), &both), "c");
    assert!(meet(&a, &["c"], &stranger).await.0.unwrap_err().contains("UnknownIssuer"));
    let (dialled, accepted) = meet(&stranger, &["b"], &b).await;
    assert!(accepted.unwrap_err().contains("UnknownIssuer") && dialled.is_err());
    // Who shows none is refused as well.
    let (one, two) = pair().await;
    let config = trusting(&dirs[0].files().ca).unwrap();
    let dial = async {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from("b").unwrap(), one).await?;
        stream.read_u8().await
    };
    let (dialled, accepted) = tokio::join!(dial, b.accept_member(two));
    assert!(dialled.is_err());
    assert!(accepted.err().unwrap().to_string().contains("sent no certificates"));
}

/// Pods of a Deployment have no names: they show the certificate that they share with those who dial them.
#[tokio::test]
async fn who_is_known_by_an_address_shows_the_certificate_of_all() {
    let ca = authority("one");
    let dirs: Vec<Dir> = (0..4).map(|_| Dir::new()).collect();
    let shared = ca.leaf("*.nodes.test", -HOUR, HOUR);
    let g1 = Tls::new(dirs[0].write(&shared, &ca.pem), "g1.nodes.test");
    let access = Tls::new(dirs[1].write(&shared, &ca.pem), "access.nodes.test");
    assert_eq!((g1.now().problem, access.now().problem), (None, None));
    for address in ["10.0.0.9", "fd00::9"] {
        assert_eq!(meet(&g1, &[address], &access).await, (Ok(()), Ok(())));
        assert_eq!(meet(&g1, &[address, "10.0.0.10"], &access).await, (Ok(()), Ok(())));
    }
    // Who has a name is verified by it, whatever else it is known by.
    for hosts in [&["elsewhere"][..], &["10.0.0.9", "elsewhere"]] {
        assert!(meet(&g1, hosts, &access).await.0.unwrap_err().contains("not valid for name"), "{hosts:?}");
    }
    // Another's certificate of the same authority does not stand for an address.
    let other = Tls::new(dirs[2].write(&ca.leaf("other", -HOUR, HOUR), &ca.pem), "other");
    assert!(meet(&g1, &["10.0.0.9"], &other).await.0.unwrap_err().contains("not valid for name"));
    // Nor one that is for the address of who dials.
    let bare = ca.leaf("10.0.0.8", -HOUR, HOUR);
    let bare = Tls::new(dirs[3].write(&bare, &ca.pem), "10.0.0.8");
    assert_eq!(bare.now().problem, None);
    assert!(meet(&bare, &["10.0.0.9"], &bare).await.0.unwrap_err().contains("not valid for name"));
    assert_eq!(meet(&bare, &["10.0.0.8"], &bare).await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so() {
    let (dir, ca) = (Dir::new(), authority("one"));
    let tls = Tls::new(dir.write(&ca.leaf("a", -HOUR, HOUR), &ca.pem), "a");
    let (mut client, server) = pair().await;
    let remote = server.peer_addr().unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(tls.http_door().unwrap().accept(server, remote).await.is_err());
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
}
