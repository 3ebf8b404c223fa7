//! Metrics of HTTP requests, by the names that OpenTelemetry gives them.
//!
//! Source: OpenTelemetry, "Semantic conventions for HTTP metrics".

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Buckets, Histograms, Metrics};

const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

/// What is counted of requests.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    duration: Histograms<RequestLabels>,
    active: Gauge,
}

impl Default for Requests {
    fn default() -> Self {
        Self { duration: Family::new_with_constructor(Buckets(&SECONDS)), active: Gauge::default() }
    }
}

impl Requests {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "The time from the head of a request to the head of its answer";
        registry.register_with_unit("http_server_request_duration", help, Unit::Seconds, self.duration.clone());
        registry.register("http_server_active_requests", "Requests without an answer yet", self.active.clone());
    }
}

/// The route of an answer: the pattern of a path, or a name for what is no route of the server's own.
#[derive(Debug, Clone)]
pub(in crate::http) struct RouteName(pub(in crate::http) String);

/// Names the route of each answer by the pattern of its path.
pub(in crate::http) async fn name_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| RouteName(path.as_str().to_owned()));
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// Measures each request. One without a route counts as `other`: a path that a client made up is no label.
pub(in crate::http) async fn measure(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let (started, method) = (Instant::now(), method(request.method()));
    let active = Active::new(metrics.requests.active.clone());
    let response = next.run(request).await;
    drop(active);
    let route = response.extensions().get::<RouteName>().map_or("other", |RouteName(name)| name);
    let labels = RequestLabels {
        http_request_method: method,
        http_route: route.to_owned(),
        http_response_status_code: response.status().as_u16(),
    };
    metrics.requests.duration.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    response
}

/// Counts a request as active until it is dropped, also when its client hangs up.
struct Active(Gauge);

impl Active {
    fn new(active: Gauge) -> Self {
        active.inc();
        Self(active)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The label of a method: one of the known ones, because a client can make up others.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}
