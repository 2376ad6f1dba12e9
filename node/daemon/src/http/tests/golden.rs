//! A file per call in `golden/`: what is asked, and the whole answer to it. `UPDATE_EXPECT=1` writes what is answered
//! now; the diff is reviewed.
//!
//! | line | means |
//! |---|---|
//! | `# ...` | a comment |
//! | `@ gateway`, `@ primary`, `@ target`, `@ starting`, `@ tokens` | a new world: g2, g1, t1, a node without State, g2 where clients need tokens |
//! | `@ proposed X`, `@ transferred X`, `@ cut off` | how the core answers from now on |
//! | `> METHOD PATH`, `>> METHOD PATH` | asked at the public, at the control listener |
//! | `> name: value` | a header of it; `{{token CLAIMS}}` is signed by the issuer |
//! | other lines | the body; `{{bytes N}}` and `{{claims N}}` (announced, never sent) |
//! | `< ...` | status and headers of the answer, then its body, up to the next line of another kind |
//!
//! What changes from run to run is blanked in the answers ([`settled`]).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use ais_meta::settings::Values;
use axum::body::Bytes;
use hyper::body::{Frame, SizeHint};

use super::*;
use crate::auth::tests::{given, signed};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/tests/golden")
}

/// Announces a length and never sends a byte.
struct Claimed(u64);

impl hyper::body::Body for Claimed {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

fn body_of(text: &str) -> Body {
    let number = |text: &str| text.parse::<u64>().unwrap();
    if let Some(n) = text.strip_prefix("{{bytes ").and_then(|rest| rest.strip_suffix("}}")) {
        return Body::from("x".repeat(usize::try_from(number(n)).unwrap()));
    }
    if let Some(n) = text.strip_prefix("{{claims ").and_then(|rest| rest.strip_suffix("}}")) {
        return Body::new(Claimed(number(n)));
    }
    Body::from(text.to_owned())
}

fn header_value(text: &str) -> String {
    match (text.find("{{token "), text.rfind("}}")) {
        (Some(from), Some(to)) => {
            let claims: Value = serde_json::from_str(&text[from + 8..to]).unwrap();
            format!("{}{}{}", &text[..from], signed(&claims), &text[to + 2..])
        }
        _ => text.to_owned(),
    }
}

/// One question of a file.
#[derive(Default)]
struct Asked {
    control: bool,
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Asked {
    fn request(&self) -> Request<Body> {
        let (method, path) = self.line.split_once(' ').unwrap();
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in &self.headers {
            request = request.header(name, header_value(value));
        }
        request.body(body_of(self.body.trim_end())).unwrap()
    }
}

/// Digits after a mark become a word: a time, a load, a size of memory.
fn blank(text: &str, mark: &str) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == 'e' || c == '-');
        let _ = write!(out, "{mark}{}{rest}", if rest.len() < part.len() { "*" } else { "" });
    }
    out
}

/// An answer without what no two runs have in common.
fn settled(text: &str) -> String {
    const MARKS: [&str; 14] = [
        "\"created\":\"",
        "\"created\": \"",
        "\"end_time\":",
        "\"mem_used\": \"",
        "\"mem_avail\": \"",
        "\"pct_mem_used\": ",
        "\"one\": ",
        "\"five\": ",
        "\"fifteen\": ",
        "\"v\": \"",
        "uptime: ",
        "\"mem_used\":\"",
        "\"mem_avail\":\"",
        "\"pct_mem_used\":",
    ];
    let mut text = MARKS.iter().fold(text.to_owned(), |text, mark| blank(&text, mark));
    for mark in ["\"one\":", "\"five\":", "\"fifteen\":", "-time\": \"", "\"age_ms\":"] {
        text = blank(&text, mark);
    }
    // mv-STAMP-MS
    let mut out = String::new();
    for (i, part) in text.split("mv-0.").enumerate() {
        match part.split_once('-').filter(|_| i > 0) {
            Some((stamp, rest)) => {
                let _ = write!(out, "mv-0.{stamp}-*{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()));
            }
            None => out.push_str(part),
        }
    }
    out
}

fn shown(answer: &Answer) -> String {
    let mut text = format!("< {}\n", answer.status);
    let mut headers: Vec<String> = Vec::new();
    for (name, value) in &answer.headers {
        if name != "content-length" {
            headers.push(format!("< {name}: {}\n", value.to_str().unwrap()));
        }
    }
    headers.sort();
    text.extend(headers);
    let body = match serde_json::from_str::<Value>(&answer.body) {
        // Errors stay as they are sent: the order of their fields counts.
        Ok(value) if answer.body.len() > 300 && answer.status < 300 => serde_json::to_string_pretty(&value).unwrap(),
        _ => answer.body.trim_end().to_owned(),
    };
    if !body.is_empty() {
        text.push_str(&body);
        text.push('\n');
    }
    settled(&text)
}

fn with_tokens() -> State {
    let state = genesis();
    let mut draft = state.draft(state.stamp().next());
    let set: Values = [("auth.client_auth_required".to_owned(), "true".to_owned())].into();
    draft.change(&Change::SetConfig { set, reset: false });
    draft.finish().unwrap().0
}

fn world(word: &str) -> World {
    match word {
        "gateway" => World::gateway(),
        "primary" => World::new("g1", Kind::Gateway, Some(genesis()), None),
        "target" => World::new("t1", Kind::Target, Some(genesis()), None),
        "starting" => World::new("g2", Kind::Gateway, None, None),
        "tokens" => World::with_keys("g2", Kind::Gateway, Some(with_tokens()), None, given()),
        "keys" => World::with_keys("g2", Kind::Gateway, Some(genesis()), None, given()),
        "target tokens" => World::new("t1", Kind::Target, Some(with_tokens()), None),
        _ => panic!("@ {word}"),
    }
}

/// A word about the core; `false`: it is a world's.
fn directed(world: Option<&World>, word: &str) -> bool {
    let Some((what, how)) = word.split_once(' ').filter(|(what, _)| ["proposed", "transferred", "cut"].contains(what))
    else {
        return false;
    };
    let mut script = world.expect("a world first").script.lock().unwrap();
    match (what, how) {
        ("proposed", "truly") => script.proposed = None,
        ("proposed", "unavailable") => script.proposed = Some(Proposed::Unavailable),
        ("proposed", "unknown") => script.proposed = Some(Proposed::Unknown { id: "g2/7#1.5".to_owned() }),
        ("proposed", "busy") => script.proposed = Some(Proposed::Busy),
        ("transferred", "done") => script.transferred = Some(Transferred::Done { epoch: 4, smap_version: 217 }),
        ("transferred", "busy") => script.transferred = Some(Transferred::Busy("a hand-over runs".to_owned())),
        ("transferred", "precondition") => {
            script.transferred = Some(Transferred::Precondition { primary: "g2".parse().unwrap(), epoch: 9 });
        }
        ("transferred", "ineligible") => {
            script.transferred = Some(Transferred::NotEligible("g4 is non-electable".to_owned()));
        }
        ("transferred", "unknown-node") => script.transferred = Some(Transferred::UnknownNode),
        ("transferred", "nobody") => script.transferred = Some(Transferred::NoPrimary),
        ("transferred", "unknown") => script.transferred = Some(Transferred::Unknown),
        ("cut", "off") => script.fresh = false,
        _ => panic!("@ {word}"),
    }
    true
}

/// Asks everything in a file again; what the file says now.
async fn played(text: &str) -> String {
    let (mut out, mut now): (String, Option<World>) = (String::new(), None);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(word) = line.strip_prefix("@ ") {
            if !directed(now.as_ref(), word) {
                now = Some(world(word));
            }
            let _ = writeln!(out, "{line}");
            continue;
        }
        let Some(question) = line.strip_prefix('>') else {
            let _ = writeln!(out, "{line}");
            continue;
        };
        let control = question.starts_with('>');
        let mut asked = Asked { control, line: question.trim_start_matches('>').trim().to_owned(), ..Asked::default() };
        let _ = writeln!(out, "{line}");
        while let Some(line) = lines.next_if(|l| l.starts_with("> ") && l.contains(": ")) {
            let (name, value) = line[2..].split_once(": ").unwrap();
            asked.headers.push((name.to_owned(), value.to_owned()));
            let _ = writeln!(out, "{line}");
        }
        let next = |l: &&str| ["> ", ">>", "@ ", "# ", "< "].iter().any(|mark| l.starts_with(mark));
        while let Some(line) = lines.next_if(|l| !next(l)) {
            asked.body.push_str(line);
            asked.body.push('\n');
        }
        let body = asked.body.trim_end();
        if !body.is_empty() {
            let _ = writeln!(out, "{body}");
        }
        // The answer of then.
        if lines.next_if(|l| l.starts_with("< ")).is_some() {
            while lines.next_if(|l| l.starts_with("< ") || !next(l)).is_some() {}
        }
        let door = if asked.control { Door::Control } else { Door::Public };
        let answer = now.as_ref().expect("a world first").send(door, asked.request()).await;
        let _ = writeln!(out, "{}", shown(&answer));
    }
    out.trim_end().to_owned() + "\n"
}

#[tokio::test]
async fn every_call_is_answered_as_its_file_says() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "the files are gone");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let before = std::fs::read_to_string(&file).unwrap();
        let after = played(&before).await;
        if before == after {
            continue;
        }
        if update {
            std::fs::write(&file, &after).unwrap();
            continue;
        }
        let differs = before.lines().zip(after.lines()).enumerate().find(|(_, (a, b))| a != b);
        let (at, (was, is)) = differs.unwrap_or((before.lines().count(), ("", "more or less lines")));
        wrong.push(format!("{}:{}\n  was {was}\n  is  {is}", file.display(), at + 1));
    }
    assert!(wrong.is_empty(), "UPDATE_EXPECT=1 writes the answers of now:\n{}", wrong.join("\n"));
}
