//! The network options of sandboxes as their descriptions show them. What the options do is tested with the real engine
//! (`tests/it/network.rs`).

use reqwest::Method;
use serde_json::{Value, json};

use crate::e2b::Sandbox;

trials![network_options_are_shown_as_they_were_sent, options_that_were_not_sent_are_not_invented];

/// The description of a sandbox with these options: `allowInternetAccess` and `network`.
async fn shown(options: Value) -> (Value, Value) {
    let mut body = json!({"templateID": "base"});
    body.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
    let sandbox = Sandbox::create(body).await;
    let detail = sandbox.api(Method::GET, "", None).await.json();
    sandbox.kill().await;
    (detail["allowInternetAccess"].clone(), detail["network"].clone())
}

async fn network_options_are_shown_as_they_were_sent() {
    for network in [
        json!({"denyOut": ["0.0.0.0/0"]}),
        json!({"denyOut": ["8.8.8.8", "9.9.9.9/32", "10.1.2.3/8"]}),
        json!({"allowOut": ["1.1.1.1"]}),
        json!({"allowOut": ["1.1.1.1", "1.1.1.0/24", "API.Example.com."], "denyOut": ["0.0.0.0/0"]}),
        json!({"allowOut": [], "denyOut": []}),
        json!({"maskRequestHost": "inside:${PORT}", "denyOut": ["1.1.1.1"]}),
    ] {
        let mut expected = json!({"allowPublicTraffic": true});
        expected.as_object_mut().expect("an object").extend(network.as_object().expect("an object").clone());
        assert_eq!(shown(json!({"network": network})).await, (json!(null), expected));
    }
    for internet in [true, false] {
        let (access, network) = shown(json!({"allow_internet_access": internet})).await;
        assert_eq!((access, network), (json!(internet), json!({"allowPublicTraffic": true})));
    }
    let both = json!({"allow_internet_access": false, "network": {"allowOut": ["1.1.1.1"]}});
    let expected = json!({"allowPublicTraffic": true, "allowOut": ["1.1.1.1"]});
    assert_eq!(shown(both).await, (json!(false), expected));
}

async fn options_that_were_not_sent_are_not_invented() {
    for options in [json!({}), json!({"network": {}}), json!({"allow_internet_access": null, "network": null})] {
        assert_eq!(shown(options).await, (json!(null), json!({"allowPublicTraffic": true})));
    }
}
