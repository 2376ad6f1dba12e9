use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// A world behind real sockets; the addresses are those of its listeners.
async fn served(world: &World) -> (Server, SocketAddr, SocketAddr) {
    let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listeners = Listeners { public: bind().await, control: bind().await };
    let (public, control) = (listeners.public.local_addr().unwrap(), listeners.control.local_addr().unwrap());
    let (handle, config) = (world.app.handle.clone(), Arc::clone(&world.app.config));
    (Server::start(listeners, handle, config, Arc::new(Metrics::new())).unwrap(), public, control)
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let n = within(stream.read(&mut buffer)).await.unwrap();
        assert!(n > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    text
}

/// A State whose g1 has the addresses of a served world.
fn with_primary_at(public: SocketAddr, control: SocketAddr) -> State {
    let state = genesis();
    let mut draft = state.draft(state.stamp().next());
    let mut g1 = node("g1", Kind::Gateway, 0, 1000);
    (g1.addresses.public.port, g1.addresses.control.port) = (public.port(), control.port());
    draft.change(&Change::Join { node: Box::new(g1) });
    draft.finish().unwrap().0
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_idle_connections_are_closed() {
    let world = World::gateway();
    let (server, public, _) = served(&world).await;
    let mut idle = TcpStream::connect(public).await.unwrap();
    idle.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_until(&mut idle, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK"));
    let mut slow = TcpStream::connect(public).await.unwrap();
    let head = format!("POST /v1/buckets/nnn HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", CREATE.len());
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&CREATE.as_bytes()[..5]).await.unwrap();
    // The server has taken the connection once another one, opened later, was answered.
    let mut later = TcpStream::connect(public).await.unwrap();
    later.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut later, "\r\n\r\n").await;
    let stopped = tokio::spawn(server.stop(PATIENCE));
    assert_eq!(within(idle.read(&mut [0; 1])).await.unwrap(), 0, "closed");
    slow.write_all(&CREATE.as_bytes()[5..]).await.unwrap();
    let answer = read_until(&mut slow, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
    within(stopped).await.unwrap();
    assert!(TcpStream::connect(public).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_stream_tells_changes_and_ends_with_the_server() {
    let world = World::gateway();
    let (server, _, control) = served(&world).await;
    let mut stream = TcpStream::connect(control).await.unwrap();
    stream.write_all(b"GET /v1/ha/watch HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let first = read_until(&mut stream, "}\n\n").await;
    assert!(first.contains("text/event-stream") && first.contains("event: view\ndata: {"), "{first}");
    world.change(|view| view.peers.clear()).await;
    world.change(|view| view.ready = false).await;
    let second = read_until(&mut stream, "}\n\n").await;
    assert!(second.contains(r#""ready":false"#), "a change that nobody cares about is not told: {second}");
    within(server.stop(PATIENCE)).await;
    assert_eq!(within(stream.read(&mut [0; 64])).await.unwrap_or(0), 5, "the last, empty chunk");
}

#[tokio::test]
async fn a_reverse_call_goes_to_the_nodes_control_listener_signed() {
    const SECRET: Option<&str> = Some("0123456789abcdef");
    let g1 = World::new("g1", Kind::Gateway, Some(genesis()), SECRET);
    let (server, public, control) = served(&g1).await;
    let g2 = World::new("g2", Kind::Gateway, Some(with_primary_at(public, control)), SECRET);
    let reverse = async |id: Option<&str>, path: &str| {
        let mut request = request("GET", path, "");
        if let Some(id) = id {
            request.headers_mut().insert(NODE_ID, id.parse().unwrap());
        }
        g2.send(Door::Public, request).await
    };
    let status = reverse(Some("g1"), "/v1/reverse/daemon?what=node_status").await;
    assert_eq!(status.json()["snode"]["daemon_id"], "g1");
    let error = reverse(Some("g1"), "/v1/reverse/daemon?what=nonsense").await;
    assert_eq!((error.status, &error.json()["node"]), (400, &"p[g1]".into()), "its own words");
    assert_eq!(reverse(None, "/v1/reverse/daemon?what=snode").await.status, 400);
    assert_eq!(reverse(Some("nobody"), "/v1/reverse/daemon?what=snode").await.status, 404);
    assert_eq!(reverse(Some("g3"), "/v1/reverse/daemon?what=snode").await.status, 502);
    assert_eq!(reverse(Some("g1"), "/v1/reverse/etl").await.status, 501);

    let other =
        World::new("g2", Kind::Gateway, Some(with_primary_at(public, control)), Some("another-secret-entirely"));
    let mut call = request("GET", "/v1/reverse/daemon?what=snode", "");
    call.headers_mut().insert(NODE_ID, "g1".parse().unwrap());
    assert_eq!(other.send(Door::Public, call).await.status, 502, "an answer that is not signed is not passed on");

    assert_eq!(g2.get("/v1/health?prr=true").await.status, 200, "the primary is asked, without a signature");
    within(server.stop(PATIENCE)).await;
}

#[tokio::test]
async fn a_change_that_comes_after_the_core_has_ended_goes_to_the_primary() {
    let g1 = World::new("g1", Kind::Gateway, Some(genesis()), None);
    let (server, public, control) = served(&g1).await;
    let g2 = World::new("g2", Kind::Gateway, Some(with_primary_at(public, control)), None);
    g2.app.note_first_ready().await;
    g2.core.abort();
    within(async {
        while !g2.app.handle.ended() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let made = g2.call("POST", "/v1/buckets/nnn?provider=ais", CREATE).await;
    assert_eq!((made.status, made.header("ais-stamp")), (200, "0.1.3"));
    let again = g2.call("POST", "/v1/buckets/nnn", CREATE).await;
    assert_eq!((again.status, &again.json()["node"]), (409, &"p[g1]".into()));
    within(server.stop(PATIENCE)).await;
    let nobody = g2.call("POST", "/v1/buckets/nnn", CREATE).await;
    assert_eq!((nobody.status, nobody.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn a_head_that_is_too_large_or_no_http_ends_only_its_connection() {
    let world = World::gateway();
    let (server, public, _) = served(&world).await;
    let many = (0..200).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for bytes in [format!("GET / HTTP/1.1\r\n{many}\r\n"), long, "\u{16}\u{3}\u{1}nonsense\r\n\r\n".to_owned()] {
        let mut stream = TcpStream::connect(public).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        drop(within(stream.read_to_end(&mut answer)).await);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut stream = TcpStream::connect(public).await.unwrap();
    stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    within(server.stop(Duration::from_millis(100))).await;
}
