//! The link with a broken agent: silent, gone, sending garbage, lying.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use oncebox::engine::Pipe;
use oncebox::link::{Link, LinkError};
use oncebox::protocol::{Code, Event, Execute, OutcomeKind, PROTOCOL_VERSION, StartContext};
use oncebox::records;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

trials![
    an_honest_agent_is_understood,
    an_agent_that_falls_silent_is_given_up,
    garbage_is_a_broken_link,
    a_pipe_that_closes_is_a_broken_link,
    another_version_is_refused_by_its_number,
    answers_are_bounded,
    a_refusal_by_the_agent_keeps_its_message,
    invalid_events_break_the_link_and_keep_earlier_ones,
    a_line_without_an_end_is_not_held_for_ever,
    dropping_the_events_ends_the_request_at_the_agent,
];

/// The first answer of an agent of this version.
fn hello() -> String {
    format!(r#"{{"protocol": {PROTOCOL_VERSION}, "languages": [{{"name": "test", "version": "1.0"}}]}}"#)
}

const END: &str = r#"{"end": {"outcome": {"kind": "ok", "message": "done"}, "usage": {"wall_ms": 1, "cpu_ms": 1, "peak_memory_bytes": 1}}}"#;

type Body = BoxBody<Bytes, Infallible>;

fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).boxed())
}

/// An answer with a stream as its body.
fn streamed(pieces: impl futures::Stream<Item = Bytes> + Send + Sync + 'static) -> Response<Body> {
    let records = records::encode(pieces.map(Ok::<_, Infallible>)).map_ok(Frame::data);
    Response::new(BoxBody::new(StreamBody::new(records)))
}

fn streamed_text(text: impl Into<Bytes>) -> Response<Body> {
    streamed(futures::stream::iter([text.into()]))
}

/// An agent that gives these answers, on the other end of the pipe.
fn agent(answer: impl Fn(&str) -> Response<Body> + Send + Sync + Copy + 'static) -> Pipe {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| async move {
            let path = request.uri().path().to_owned();
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(answer(&path))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(far), service).await;
    });
    Pipe::new(near)
}

fn raw() -> (Pipe, DuplexStream) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    (Pipe::new(near), far)
}

fn assert_broken<T>(answer: Result<T, LinkError>) {
    match answer {
        Err(LinkError::Broken(_)) => {}
        Err(err) => panic!("another error: {err}"),
        Ok(_) => panic!("it was believed"),
    }
}

fn says_hi(event: Result<Event, LinkError>) {
    assert!(matches!(&event, Ok(Event::Stdout { text }) if text == "hi"), "{event:?}");
}

async fn an_honest_agent_is_understood() {
    let pipe = agent(|path| match path {
        "/hello" => text(hello()),
        "/contexts" => text(r#"{"id": "test-0", "language": "test", "cwd": "/"}"#),
        "/executions" => streamed_text(format!("{{\"stdout\": {{\"text\": \"hi\"}}}}\n{END}\n")),
        "/files" => text(""),
        _ => panic!("{path}"),
    });
    let (link, hello) = Link::open(pipe).await.expect("a link");
    assert_eq!((hello.languages[0].name.as_str(), hello.languages[0].version.as_str()), ("test", "1.0"));
    assert_eq!(link.start_context(&test_context()).await.expect("a context").id, "test-0");
    link.write_file("a b/\u{e9}", Bytes::from_static(b"x")).await.expect("a file");
    let events: Vec<_> = link.execute(&Execute::default()).await.expect("events").collect().await;
    let [Ok(Event::Stdout { text }), Ok(Event::End(end))] = &events[..] else { panic!("{events:?}") };
    assert_eq!((text.as_str(), end.outcome.kind), ("hi", OutcomeKind::Ok));
    assert!(!link.is_closed());
}

fn test_context() -> StartContext {
    StartContext { language: "test".to_owned(), ..StartContext::default() }
}

async fn an_agent_that_falls_silent_is_given_up() {
    let never_spoke = async {
        let (pipe, _far) = raw();
        assert_broken(Link::open(pipe).await);
    };
    let stopped_speaking = async {
        // Forwards bytes until it is stopped; then it only reads.
        let (near, middle) = tokio::io::duplex(64 * 1024);
        let mut inner = agent(|_| text(hello())).into_io();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            let mut middle = middle;
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut middle, &mut inner) => {}
                _ = stopped => {}
            }
            tokio::io::copy(&mut middle, &mut tokio::io::sink()).await
        });
        let (link, _) = Link::open(Pipe::new(near)).await.expect("a link");
        stop.send(()).expect("it listens");
        assert_broken(link.start_context(&test_context()).await);
        assert!(link.is_closed());
    };
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(55), futures::future::join(never_spoke, stopped_speaking))
        .await
        .expect("sooner than a launch may take");
    assert!(began.elapsed() > Duration::from_secs(5), "that was not for silence");
}

async fn garbage_is_a_broken_link() {
    for garbage in [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice(), &[0; 1000], &[0xff; 1000], b"\n\n{}\n"]
    {
        let (pipe, mut far) = raw();
        tokio::spawn(async move {
            let _ = far.write_all(garbage).await;
            let _ = tokio::io::copy(&mut far, &mut tokio::io::sink()).await;
        });
        let opened = tokio::time::timeout(Duration::from_secs(15), Link::open(pipe)).await;
        assert_broken(opened.expect("nonsense is noticed, not waited out"));
    }
}

async fn a_pipe_that_closes_is_a_broken_link() {
    let (pipe, far) = raw();
    drop(far);
    assert_broken(Link::open(pipe).await);

    let (pipe, mut far) = raw();
    tokio::spawn(async move { far.read(&mut [0; 10]).await });
    assert_broken(Link::open(pipe).await);

    // In the middle of an answer.
    let (near, middle) = tokio::io::duplex(64 * 1024);
    let mut inner = agent(|path| match path {
        "/executions" => {
            let first = futures::stream::iter([Bytes::from("{\"stdout\": {\"text\": \"hi\"}}\n")]);
            streamed(first.chain(futures::stream::pending()))
        }
        _ => text(hello()),
    })
    .into_io();
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut middle = middle;
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut middle, &mut inner) => {}
            _ = closed => {}
        }
    });
    let (link, _) = Link::open(Pipe::new(near)).await.expect("a link");
    let mut events = link.execute(&Execute::default()).await.expect("events");
    says_hi(events.next().await.expect("one"));
    close.send(()).expect("it listens");
    assert_broken(events.next().await.expect("no quiet end"));
}

async fn another_version_is_refused_by_its_number() {
    let opened = Link::open(agent(|_| text(r#"{"protocol": 99, "languages": []}"#))).await;
    let err = opened.expect_err("another version");
    assert!(matches!(err, LinkError::Version(99)), "{err:?}");
}

async fn answers_are_bounded() {
    assert_broken(Link::open(agent(|_| text("not json"))).await);
    assert_broken(Link::open(agent(|_| text(vec![b' '; 2 << 20]))).await);
    let endless = |_: &str| {
        let zeros = futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 16384]))));
        Response::new(BoxBody::new(StreamBody::new(zeros)))
    };
    let opened = tokio::time::timeout(Duration::from_secs(30), Link::open(agent(endless))).await;
    let opened = opened.expect("an endless answer is not read to its end");
    assert!(
        matches!(opened, Err(LinkError::Unfinished(_))),
        "it is this answer that is wrong, not the link: {opened:?}"
    );
}

async fn a_refusal_by_the_agent_keeps_its_message() {
    let pipe = agent(|path| match path {
        "/hello" => text(hello()),
        _ => {
            let mut response = text(r#"{"code": "no_space", "message": "there is no room"}"#);
            *response.status_mut() = StatusCode::INSUFFICIENT_STORAGE;
            response
        }
    });
    let (link, _) = Link::open(pipe).await.expect("a link");
    match link.write_file("a", Bytes::new()).await {
        Err(LinkError::Refused { code, message }) => {
            assert_eq!((code, message.as_str()), (Code::NoSpace, "there is no room"));
        }
        other => panic!("{other:?}"),
    }
}

async fn invalid_events_break_the_link_and_keep_earlier_ones() {
    let answer = |path: &str| match path {
        // Not lines of JSON.
        "/executions" => text(vec![0xff; 1024]),
        _ => text(hello()),
    };
    let (link, _) = Link::open(agent(answer)).await.expect("a link");
    assert_broken(link.execute(&Execute::default()).await.expect("events").next().await.expect("an error"));
    for line in ["not json", "{}", "{\"hello\": {}}", "{\"stdout\": {}}", "{\"end\": {}}", "[[[", "\u{0}"] {
        let body: &'static str = format!("{{\"stdout\": {{\"text\": \"hi\"}}}}\n{line}\n").leak();
        let answer = move |path: &str| match path {
            "/executions" => streamed_text(body),
            _ => text(hello()),
        };
        let (link, _) = Link::open(agent(answer)).await.expect("a link");
        let mut events = link.execute(&Execute::default()).await.expect("events");
        says_hi(events.next().await.expect("one"));
        assert_broken(events.next().await.expect("an error"));
    }
}

async fn a_line_without_an_end_is_not_held_for_ever() {
    let answer = |path: &str| match path {
        "/executions" => streamed(futures::stream::repeat_with(|| Bytes::from_static(&[b'x'; 65536]))),
        _ => text(hello()),
    };
    let (link, _) = Link::open(agent(answer)).await.expect("a link");
    let mut events = link.execute(&Execute::default()).await.expect("events");
    let first = tokio::time::timeout(Duration::from_secs(120), events.next()).await;
    assert_broken(first.expect("the bound is reached").expect("an error"));
}

async fn dropping_the_events_ends_the_request_at_the_agent() {
    let (gone, told) = tokio::sync::oneshot::channel::<()>();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let gone = std::sync::Arc::new(std::sync::Mutex::new(Some(gone)));
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let gone = gone.lock().expect("a lock").take_if(|_| request.uri().path() == "/executions");
            async move {
                let Some(gone) = gone else { return Ok::<_, Infallible>(text(hello())) };
                // The answer's body holds the sender, which is dropped with it.
                let body = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>().map(move |item| {
                    let _ = &gone;
                    item
                });
                Ok(Response::new(BoxBody::new(StreamBody::new(body))))
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(far), service).await;
    });
    let (link, _) = Link::open(Pipe::new(near)).await.expect("a link");
    let events = link.execute(&Execute::default()).await.expect("events");
    drop(events);
    let told = tokio::time::timeout(Duration::from_secs(15), told).await.expect("the agent is told");
    assert!(told.is_err(), "its sender was dropped");
    assert!(!link.is_closed(), "other operations go on");
}
