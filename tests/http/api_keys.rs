//! E2B's API of keys, for keys with the scope `admin`.

use std::time::SystemTime;

use reqwest::Method;
use serde_json::{Value, json};

use crate::key_file::{KeyFile, is_accepted, send, with_key};
use crate::support::eventually;

trials![
    a_key_is_made_listed_renamed_and_deleted,
    a_key_that_is_deleted_ends_even_if_it_deletes_itself,
    what_cannot_be_done_is_refused,
    a_file_that_cannot_be_changed_is_an_error_of_the_server,
];

const ADMIN: &[&str] = &["ops", "--scope", "admin"];

fn is_uuid(value: &Value) -> bool {
    let parts: Vec<_> = value.as_str().expect("an id").split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12]
}

async fn a_key_is_made_listed_renamed_and_deleted() {
    let (file, [admin]) = KeyFile::with([ADMIN]);
    let server = file.serve(&[("ONCEBOX_API_KEYS", "plain-key-1")]);
    let api = async |method, path: &str, body| send(&server, &admin, method, path, body).await;
    let created = api(Method::POST, "/api-keys", Some(json!({"name": "My key"}))).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let mut created = created.json();
    let key = created.as_object_mut().expect("an object").remove("key").expect("the key");
    let key = key.as_str().expect("text").to_owned();
    // It is accepted from now on, with the scopes of new keys.
    assert!(is_accepted(&server, &key).await);
    assert_eq!(send(&server, &key, Method::GET, "/v2/sandboxes", None).await.status, 200);
    assert_eq!(send(&server, &key, Method::GET, "/api-keys", None).await.status, 403);
    let mask =
        json!({"prefix": "e2b_", "valueLength": 40, "maskedValuePrefix": &key[4..6], "maskedValueSuffix": &key[40..]});
    assert_eq!((&created["name"], &created["mask"], &created["createdBy"]), (&json!("My key"), &mask, &Value::Null));
    assert!(is_uuid(&created["id"]), "{created}");
    let at = humantime::parse_rfc3339(created["createdAt"].as_str().expect("a time")).expect("a time");
    assert!(SystemTime::now().duration_since(at).is_ok_and(|ago| ago.as_secs() < 3600), "{created}");
    assert!(!file.text().contains(&key[4..]));

    let list = api(Method::GET, "/api-keys", None).await;
    assert!(!list.text().contains(&key[4..]) && !list.text().contains("plain-key"), "{}", list.text());
    let list = list.json();
    let names: Vec<_> = list.as_array().expect("a list").iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["env-1", "ops", "My key"]);
    let own = &list[2];
    assert_eq!((&own["id"], own.get("key")), (&created["id"], None));
    assert!(own["lastUsed"].is_string() && list[0]["lastUsed"].is_null(), "{list}");
    assert_eq!(list[0]["mask"]["maskedValuePrefix"], "", "a key that may be short is not shown");

    let path = format!("/api-keys/{}", created["id"].as_str().expect("an id"));
    assert_eq!(api(Method::PATCH, &path, Some(json!({"name": "renamed"}))).await.status, 200);
    assert_eq!(api(Method::GET, "/api-keys", None).await.json()[2]["name"], "renamed");
    assert!(file.keys(&["list"]).expect("a list").contains("renamed"));
    assert!(is_accepted(&server, &key).await);

    assert_eq!(api(Method::DELETE, &path, None).await.status, 204);
    assert!(!is_accepted(&server, &key).await);
    assert_eq!(api(Method::GET, "/api-keys", None).await.json().as_array().expect("a list").len(), 2);
    for (method, body) in [(Method::DELETE, None), (Method::PATCH, Some(json!({"name": "again"})))] {
        api(method, &path, body).await.error(404);
    }
    assert!(file.keys(&["list"]).expect("a list").contains("revoked "));
}

async fn a_key_that_is_deleted_ends_even_if_it_deletes_itself() {
    let (file, [admin]) = KeyFile::with([&["ops", "--scope", "admin,run"]]);
    let server = file.serve(&[]);
    let run = json!({"language": "python", "code": "import time; time.sleep(600)"});
    let running = tokio::spawn(with_key(&server, &admin, Method::POST, "/v1/run").json(&run).send());
    let id = send(&server, &admin, Method::GET, "/api-keys", None).await.json()[0]["id"].clone();
    let path = format!("/api-keys/{}", id.as_str().expect("an id"));
    assert_eq!(send(&server, &admin, Method::DELETE, &path, None).await.status, 204);
    assert!(!is_accepted(&server, &admin).await);
    assert_eq!(running.await.expect("no panic").expect("an answer").status(), 401);
}

async fn what_cannot_be_done_is_refused() {
    let (file, [admin]) = KeyFile::with([ADMIN]);
    let server = file.serve(&[("ONCEBOX_API_KEYS", "plain-key-1")]);
    let api = async |method, path: &str, body| send(&server, &admin, method, path, body).await;
    let before = file.text();
    for (name, status) in
        [(json!("ops"), 409), (json!(""), 400), (json!("env-7"), 400), (json!(7), 400), (Value::Null, 400)]
    {
        let message = api(Method::POST, "/api-keys", Some(json!({"name": name}))).await.error(status);
        assert!(message.contains("name"), "{message}");
    }
    api(Method::POST, "/api-keys", Some(json!({}))).await.error(400);
    let list = api(Method::GET, "/api-keys", None).await.json();
    let environment = format!("/api-keys/{}", list[0]["id"].as_str().expect("an id"));
    for (method, body) in [(Method::DELETE, None), (Method::PATCH, Some(json!({"name": "mine"})))] {
        let message = api(method.clone(), &environment, body.clone()).await.error(400);
        assert!(message.contains("env-1"), "{message}");
        api(method, "/api-keys/00000000-0000-8000-8000-000000000000", body).await.error(404);
    }
    assert_eq!(file.text(), before);
}

async fn a_file_that_cannot_be_changed_is_an_error_of_the_server() {
    let (file, [admin]) = KeyFile::with([ADMIN]);
    let server = file.serve(&[]);
    file.write("rubbish");
    eventually("it is logged", async || server.logged("the keys stay as they were").len() == 1).await;
    let created = send(&server, &admin, Method::POST, "/api-keys", Some(json!({"name": "new"}))).await;
    let message = created.error(500);
    assert!(!message.contains(file.path().to_str().expect("text")), "{message}");
    assert_eq!(file.text(), "rubbish");
    assert!(is_accepted(&server, &admin).await);
}
