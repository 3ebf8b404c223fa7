//! Connections to the container's ports: copies bytes between an HTTP/2 stream and a listener inside.

use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::answer::{Answer, Refused, done};
use crate::protocol::Code;
use crate::records;

/// How long to wait for a connection. The loopback interface answers at once, but a listener with a full queue never
/// does.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the port of a `CONNECT` request. Copies bytes in both directions once the answer is sent.
pub(crate) async fn connect(request: Request<Incoming>) -> Answer {
    let port = request.uri().port_u16().ok_or_else(|| Refused::invalid("the port is missing"))?;
    let mut server = dial(port).await?;
    tokio::spawn(async move {
        let Ok(client) = hyper::upgrade::on(request).await else { return };
        // If either side breaks off, the other one sees an end.
        let _ = tokio::io::copy_bidirectional(&mut records::connection(TokioIo::new(client)), &mut server).await;
    });
    Ok(done())
}

/// Connects to a port by IPv4 and then by IPv6, because a program may listen on only one of them.
async fn dial(port: u16) -> Result<TcpStream, Refused> {
    let closed =
        |err: &dyn std::fmt::Display| Refused::new(Code::PortClosed, format!("nothing listens on port {port}: {err}"));
    let dial = async {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => Ok(stream),
            Err(refused) => TcpStream::connect(("::1", port)).await.map_err(|_| refused),
        }
    };
    let stream =
        tokio::time::timeout(CONNECT_TIMEOUT, dial).await.map_err(|err| closed(&err))?.map_err(|err| closed(&err))?;
    // Interactive protocols send small messages, which should not be held back.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
