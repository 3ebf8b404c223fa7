use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn bytes_go_both_ways_and_each_direction_ends_on_its_own() {
    let sandbox = Sandbox::start().await;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let echo = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await.expect("all of it");
            stream.write_all(&question).await.expect("written");
        });
        let mut stream = soon(sandbox.link.connect(port)).await.expect("a connection");
        stream.write_all(&vec![7; 1_000_000]).await.expect("written");
        stream.shutdown().await.expect("shut down");
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.expect("all of it");
        assert_eq!(answer, vec![7; 1_000_000]);
        soon(echo).await.expect("it echoed");
    }
}

#[tokio::test]
async fn a_port_without_a_listener_has_its_own_refusal() {
    let sandbox = Sandbox::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    drop(listener);
    let (code, message) = refusal(sandbox.link.connect(port).await);
    assert_eq!(code, Code::PortClosed);
    assert!(message.starts_with(&format!("nothing listens on port {port}: ")), "{message}");
}

#[tokio::test]
async fn dropping_a_connection_closes_it_inside() {
    let sandbox = Sandbox::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let stream = sandbox.link.connect(listener.local_addr().expect("its address").port()).await.expect("it");
    let (mut inside, _) = listener.accept().await.expect("a connection");
    drop(stream);
    let mut rest = Vec::new();
    // Either an end or a reset closes the connection.
    let _ = soon(inside.read_to_end(&mut rest)).await;
}
