//! The clients against a gateway in memory: an honest one passes, and one that lies is caught by its own history.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{History, Load, Options, Pool, Report, check};
use crate::wait::Wait;

/// Of every kind of call some, and of every lie.
const CALLS: usize = 600;

/// What is wrong with the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// Carries out a request as often as it comes.
    ForgetsIds,
    /// Answers and does nothing, now and then.
    LosesWrites,
    /// Every stamp is the same.
    StandsStill,
    /// Its list never has anything.
    EmptyList,
}

#[derive(Default)]
struct State {
    calls: usize,
    seq: u64,
    buckets: BTreeSet<String>,
    answered: BTreeMap<String, (u16, u64)>,
}

fn mutate(state: &mut State, lie: Lie, create: bool, bucket: &str, id: Option<String>) -> (u16, u64) {
    if let Some(known) = id.as_ref().and_then(|id| state.answered.get(id)).filter(|_| lie != Lie::ForgetsIds) {
        return *known;
    }
    state.seq += 1;
    let lost = lie == Lie::LosesWrites && state.seq.is_multiple_of(20);
    let done = match (create, lost) {
        (_, true) => true,
        (true, _) => state.buckets.insert(bucket.to_owned()),
        (false, _) => state.buckets.remove(bucket),
    };
    let status = match (create, done) {
        (_, true) => 200,
        (true, false) => 409,
        (false, false) => 404,
    };
    let answer = (status, if lie == Lie::StandsStill { 1 } else { state.seq });
    if let Some(id) = id {
        state.answered.insert(id, answer);
    }
    answer
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, lie: Lie) {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("\r\n\r\n") {
        let mut chunk = [0u8; 4096];
        match stream.read(&mut chunk) {
            Ok(got) if got > 0 => bytes.extend_from_slice(&chunk[..got]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut words = text.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let bucket = target.trim_start_matches("/v1/buckets").trim_start_matches('/').split('?').next().unwrap_or_default();
    let id = text.lines().find_map(|line| line.strip_prefix("Ais-Request-Id: ")).map(str::to_owned);
    let mut state = state.lock().unwrap();
    state.calls += 1;
    let ((status, seq), body) = match method {
        "POST" | "DELETE" => (mutate(&mut state, lie, method == "POST", bucket, id), String::new()),
        "HEAD" => ((if state.buckets.contains(bucket) { 200 } else { 404 }, state.seq), String::new()),
        _ => {
            let names = state.buckets.iter().filter(|_| lie != Lie::EmptyList);
            let list: Vec<String> = names.map(|name| format!(r#"{{"name":"{name}"}}"#)).collect();
            ((200, state.seq), format!("[{}]", list.join(",")))
        }
    };
    let length = body.len();
    let reply = format!("HTTP/1.1 {status} X\r\nAis-Stamp: 0.1.{seq}\r\nContent-Length: {length}\r\n\r\n{body}");
    drop(stream.write_all(reply.as_bytes()));
    // All of the request is read before the end, or the end would be a reset.
    drop(stream.shutdown(std::net::Shutdown::Write));
    drop(stream.read_to_end(&mut Vec::new()));
}

/// Two gateways of one state, three clients until there is enough to judge.
fn played(lie: Lie) -> Result<Report, Vec<String>> {
    let state = Arc::new(Mutex::new(State::default()));
    let gateway = |id: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = state.clone();
                std::thread::spawn(move || serve(stream, &state, lie));
            }
        });
        (id.to_owned(), address)
    };
    let pool = Pool::new(vec![gateway("g1"), gateway("g2")]);
    let load = Load::start(&pool, &Options { pause: Duration::ZERO, ..Options::new("f") });
    Wait::new("enough calls", Duration::from_secs(60))
        .every(Duration::from_millis(1))
        .until(|| Ok((state.lock().unwrap().calls >= CALLS).then_some(())))
        .unwrap();
    let ops = load.stop().unwrap();
    let names = state.lock().unwrap().buckets.clone();
    check(&History { ops, finals: [("g1".to_owned(), names)].into(), prefix: "f".into(), ..History::default() })
}

#[test]
fn an_honest_gateway_passes_with_every_kind_of_call() {
    let report = played(Lie::None).unwrap();
    assert!(report.done > 50 && report.reads > 10 && report.repeated > 2, "{report:?}");
    assert_eq!((report.failed_writes, report.stale_reads), (0, 0), "{report:?}");
}

#[test]
fn lies_are_caught() {
    for (lie, why) in [
        (Lie::ForgetsIds, "was answered"),
        (Lie::LosesWrites, "missing on g1 at the end"),
        (Lie::StandsStill, "was answered before it began"),
        (Lie::EmptyList, "does not find it"),
    ] {
        let wrong = played(lie).expect_err("a lie passed");
        assert!(wrong.iter().any(|text| text.contains(why)), "not '{why}': {:?}", &wrong[..wrong.len().min(5)]);
    }
}
