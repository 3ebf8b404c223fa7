//! Under more load than there are places, each run ends as it must; and a server that is killed in the midst of it leaves nothing.
//! `make soak` does the same for hours.

use std::time::{Duration, Instant};

use crate::support::Server;
use crate::{kills, mix};

trials![each_end_is_named_rightly_under_full_load, a_server_killed_at_any_moment_leaves_nothing];

/// Told by the one who repeats what failed, or another each time.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("SEED={seed} repeats this");
    seed
}

async fn each_end_is_named_rightly_under_full_load() {
    let server = Server::start(&[("ONCEBOX_MAX_SANDBOXES", "6")]);
    let deadline = Instant::now() + Duration::from_secs(300);
    let tally = mix::load(&server, seed(), 150, 12, deadline, |_| {}).await;
    assert!(tally.wrong.is_empty() && tally.total() == 150, "{tally:#?}");
    server.until_busy(0, 0).await;
}

async fn a_server_killed_at_any_moment_leaves_nothing() {
    let bystander = Server::start_cold(&[("ONCEBOX_TEMPLATES__NODE__WARM", "1")]);
    for number in 0..6 {
        let round = kills::round(seed().wrapping_mul(1000) + number, &bystander).await;
        eprintln!("{round:?}");
    }
    assert_eq!(bystander.run("js", "1 + 1").await["results"], serde_json::json!(["2"]));
}
