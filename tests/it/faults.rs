//! An engine that is slow, refuses, hangs or goes away: clients get their answer or a clear error, and nothing is left.

use std::time::Duration;

use serde_json::json;

use crate::proxy::{EngineProxy, Fate};
use crate::support::{Server, stdout};

trials![an_engine_that_takes_its_time_is_waited_for];

async fn an_engine_that_takes_its_time_is_waited_for() {
    let proxy = EngineProxy::start(|_, _| Fate::After(Duration::from_millis(300)), |_| {});
    let server = Server::start_cold(&[("DOCKER_HOST", &proxy.address())]);
    let answer = server.run_with(json!({"language": "python", "code": "print('slow')"})).await;
    assert_eq!(stdout(&answer), "slow\n");
}
