//! `Idempotency-Key`: a creation that is sent again is the same sandbox.

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::{Answer, KEY, OTHER_KEY, Sandbox, answer, api, request};
use crate::support::Server;

trials![
    a_creation_that_is_sent_again_is_the_same_sandbox,
    creations_with_one_key_at_the_same_time_are_one_sandbox,
    a_key_belongs_to_one_request_of_one_owner,
    a_key_is_free_again_when_its_sandbox_has_ended,
    a_failed_creation_is_not_remembered,
    keys_that_cannot_be_meant_are_refused,
];

async fn create(path: &str, api_key: &str, key: &str, body: &Value) -> Answer {
    let post = request(Method::POST, path).header("x-api-key", api_key).header("idempotency-key", key);
    answer(post.json(body)).await
}

/// A request for a sandbox that belongs to this test.
fn body(test: &str) -> Value {
    json!({"templateID": "base", "metadata": {"repeated": test}})
}

async fn listed(test: &str) -> usize {
    let list = api(Method::GET, &format!("/v2/sandboxes?metadata=repeated%3D{test}"), None).await;
    list.json().as_array().expect("a list").len()
}

async fn a_creation_that_is_sent_again_is_the_same_sandbox() {
    for (path, test) in [("/v2/sandboxes", "again-v2"), ("/sandboxes", "again-v1")] {
        let first = create(path, KEY, test, &body(test)).await;
        let sandbox = Sandbox::from(first.json());
        for _ in 0..3 {
            let again = create(path, KEY, test, &body(test)).await;
            assert_eq!((again.status, again.json()), (201, first.json()));
        }
        assert_eq!(listed(test).await, 1);
        // Without a key, and with another one, there are others.
        let others = [api(Method::POST, path, Some(body(test))).await, create(path, KEY, "other", &body(test)).await];
        assert_eq!(listed(test).await, 3);
        for other in others {
            Sandbox::from(other.json()).kill().await;
        }
        sandbox.kill().await;
    }
}

async fn creations_with_one_key_at_the_same_time_are_one_sandbox() {
    let body = body("at-once");
    let all = futures::future::join_all((0..8).map(|_| create("/v2/sandboxes", KEY, "at-once", &body))).await;
    let (status, first) = (all[0].status, all[0].json());
    assert_eq!(status, 201, "{first}");
    assert!(all.iter().all(|other| (other.status, other.json()) == (status, first.clone())), "{all:?}");
    assert_eq!(listed("at-once").await, 1);
    Sandbox::from(first).kill().await;
}

async fn a_key_belongs_to_one_request_of_one_owner() {
    let first = create("/sandboxes", KEY, "shared", &body("one")).await;
    assert_eq!(first.status, 201, "{}", first.text());
    for (path, other) in [("/sandboxes", body("two")), ("/v2/sandboxes", body("one"))] {
        assert!(create(path, KEY, "shared", &other).await.error(422).contains("`shared`"));
    }
    let theirs = create("/sandboxes", OTHER_KEY, "shared", &body("two")).await;
    assert_eq!(theirs.status, 201, "{}", theirs.text());
    assert_ne!(theirs.json()["sandboxID"], first.json()["sandboxID"]);
    let id = theirs.json()["sandboxID"].as_str().expect("an id").to_owned();
    let kill = request(Method::DELETE, &format!("/sandboxes/{id}")).header("x-api-key", OTHER_KEY);
    assert_eq!(answer(kill).await.status, 204);
    assert_eq!((listed("one").await, listed("two").await), (1, 0));
    Sandbox::from(first.json()).kill().await;
}

async fn a_key_is_free_again_when_its_sandbox_has_ended() {
    let first = Sandbox::from(create("/v2/sandboxes", KEY, "ended", &body("ended")).await.json());
    first.kill().await;
    let second = Sandbox::from(create("/v2/sandboxes", KEY, "ended", &body("ended")).await.json());
    assert_ne!(first.id, second.id);
    second.kill().await;
    let other = create("/v2/sandboxes", KEY, "ended", &body("other")).await;
    Sandbox::from(other.json()).kill().await;
}

async fn a_failed_creation_is_not_remembered() {
    let server = Server::start_cold(&[("ONCEBOX_MAX_KEPT_SANDBOXES", "1")]);
    let create = async |body: Value| {
        let post = server.http.post(format!("{}/v2/sandboxes", server.url)).header("idempotency-key", "failed");
        answer(post.json(&body)).await
    };
    let place = answer(server.http.post(format!("{}/v2/sandboxes", server.url)).json(&body("place"))).await.json();
    create(body("failed")).await.error(429);
    create(json!({"templateID": "none"})).await.error(404);
    let id = place["sandboxID"].as_str().expect("an id");
    let kill = server.http.delete(format!("{}/sandboxes/{id}", server.url));
    assert_eq!(answer(kill).await.status, 204);
    // A killed sandbox gives its place back when its container is gone.
    let mut made = create(body("other")).await;
    crate::support::eventually("there is a place", async || {
        if made.status == 429 {
            made = create(body("other")).await;
        }
        made.status != 429
    })
    .await;
    assert_eq!(made.status, 201, "{}", made.text());
    // There is no other place, and none is needed.
    assert_eq!(create(body("other")).await.json(), made.json());
    assert!(server.stop());
}

async fn keys_that_cannot_be_meant_are_refused() {
    let post = || request(Method::POST, "/v2/sandboxes").header("x-api-key", KEY).json(&body("refused"));
    for key in [&b""[..], &[b'k'; 256], b"\xe9"] {
        answer(post().header("idempotency-key", key)).await.error(400);
    }
    answer(post().header("idempotency-key", "one").header("idempotency-key", "other")).await.error(400);
    assert_eq!(listed("refused").await, 0);
    let longest = create("/v2/sandboxes", KEY, &"k".repeat(255), &body("longest")).await;
    assert_eq!(longest.status, 201, "{}", longest.text());
    Sandbox::from(longest.json()).kill().await;
}
