//! A node's control port that behaves as badly as a test wants, down to the bytes: signed as a real one signs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ais_meta::auth::{self, Secret};
use ais_operator::perform::{Caller, Node};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// More than any answer may have.
const HUGE_BYTES: usize = 256 << 20;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It comes after this time.
    Late(Duration),
    /// It never comes.
    Never,
    /// The connection ends in the middle of the body.
    Cut,
    /// The body does not end.
    Huge,
    /// A byte now and then, for ever.
    Drip,
    /// This instead, signed all the same.
    Instead(String),
}

/// How it behaves now.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) view: Value,
    /// What is wrong with views and streams of them.
    pub(crate) looks: Fault,
    /// Status of answers to everything else; 200 says that it is done, which here it never is.
    pub(crate) says: u16,
    /// What is wrong with those answers.
    pub(crate) acts: Fault,
}

#[derive(Default)]
struct Log {
    /// Method and path of all but looks.
    asked: Vec<String>,
    /// Bytes of bodies that a caller took.
    taken: usize,
}

/// A node.
pub(crate) struct Daemon {
    pub(crate) node: Node,
    manners: Arc<Mutex<Manners>>,
    log: Arc<Mutex<Log>>,
}

impl Daemon {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at("127.0.0.1", 0, name).await
    }

    /// Port 0: any that is free.
    pub(crate) async fn start_at(ip: &str, port: u16, name: &str) -> Self {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let node = Node::new(ip, listener.local_addr().unwrap().port(), name);
        let manners = Manners { view: json!({}), looks: Fault::None, says: 200, acts: Fault::None };
        let daemon = Self { node, manners: Arc::new(Mutex::new(manners)), log: Arc::default() };
        let (manners, log) = (daemon.manners.clone(), daemon.log.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (manners, log) = (manners.clone(), log.clone());
                tokio::spawn(async move { drop(serve(stream, &manners, &log).await) });
            }
        });
        daemon
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    /// What it was asked besides its view.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().asked.clone()
    }

    /// Bytes of bodies that were taken from it.
    pub(crate) fn taken(&self) -> usize {
        self.log.lock().unwrap().taken
    }
}

pub(crate) fn caller() -> Caller {
    Caller::new(Caller::http().unwrap(), SECRET).unwrap()
}

/// One call after the other, until it ends the connection or the caller does.
async fn serve(mut stream: TcpStream, manners: &Mutex<Manners>, log: &Mutex<Log>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break bytes.drain(..at + 4).collect::<Vec<u8>>();
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(head).unwrap();
        let header = |name: &str| {
            let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
        while bytes.len() < length {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let body: Vec<u8> = bytes.drain(..length).collect();
        let mut first = head.split(' ');
        let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
        let host = header("host").unwrap();
        let name = host.split(['.', ':']).next().unwrap();
        let nonce = verify(name, &method, &path, &body, header("ais-auth").as_deref());
        let looks = method == "GET";
        let now = manners.lock().unwrap().clone();
        if !looks {
            log.lock().unwrap().asked.push(format!("{method} {path} {}", String::from_utf8_lossy(&body)));
        }
        let (status, text) = match looks {
            true if path == "/v1/ha/watch" => (200, format!("event: view\ndata: {}\n\n", now.view)),
            true => (200, now.view.to_string()),
            false => (now.says, json!({"message": "because"}).to_string()),
        };
        let fault = if looks { now.looks } else { now.acts };
        if !answer(&mut stream, &fault, nonce, status, text, log).await? || path == "/v1/ha/watch" {
            return Ok(());
        }
    }
}

fn verify(name: &str, method: &str, path: &str, body: &[u8], header: Option<&str>) -> auth::Nonce {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let secret = Secret::from_file_content(SECRET.as_bytes()).unwrap();
    let request = auth::Request { method, path_and_query: path, node: name, body };
    auth::verify(&secret, request, header, u64::try_from(now_ms).unwrap()).unwrap()
}

/// False if the connection is over.
async fn answer(
    stream: &mut TcpStream,
    fault: &Fault,
    nonce: auth::Nonce,
    status: u16,
    text: String,
    log: &Mutex<Log>,
) -> std::io::Result<bool> {
    let text = match fault {
        Fault::Instead(other) => other.clone(),
        Fault::Late(time) => {
            tokio::time::sleep(*time).await;
            text
        }
        Fault::Never => std::future::pending().await,
        _ => text,
    };
    let secret = Secret::from_file_content(SECRET.as_bytes()).unwrap();
    let signature = auth::sign_reply(&secret, nonce, status, text.as_bytes());
    let length = if matches!(fault, Fault::Huge | Fault::Drip) { HUGE_BYTES } else { text.len() };
    let head = format!("HTTP/1.1 {status} -\r\n{}: {signature}\r\nContent-Length: {length}\r\n\r\n", auth::HEADER);
    stream.write_all(head.as_bytes()).await?;
    match fault {
        Fault::Cut => {
            stream.write_all(&text.as_bytes()[..text.len() / 2]).await?;
            return Ok(false);
        }
        Fault::Huge => {
            let chunk = vec![b' '; 64 << 10];
            while log.lock().unwrap().taken < HUGE_BYTES {
                stream.write_all(&chunk).await?;
                log.lock().unwrap().taken += chunk.len();
            }
            return Ok(false);
        }
        Fault::Drip => loop {
            stream.write_all(b" ").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        },
        _ => stream.write_all(text.as_bytes()).await?,
    }
    Ok(true)
}
