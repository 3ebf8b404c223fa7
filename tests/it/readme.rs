//! The README's examples: each request is sent, and each answer compared.

use serde_json::Value;

use crate::support::server;

trials![every_example_gives_the_answer_that_the_readme_shows];

const README: &str = include_str!("../../README.md");

/// The fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let mut parts = page.split("```");
    let mut found = Vec::new();
    // Text and blocks take turns.
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        found.push(block.split_once('\n').expect("a language and a text"));
    }
    found
}

/// The body of a `curl` line.
fn body(command: &str) -> Option<Value> {
    let (_, rest) = command.split_once("-d '")?;
    let (body, _) = rest.split_once('\'')?;
    Some(serde_json::from_str(body).expect("the README's request is JSON"))
}

async fn every_example_gives_the_answer_that_the_readme_shows() {
    let blocks = blocks(README);
    let mut compared = 0;
    for (number, (_, text)) in blocks.iter().enumerate() {
        let Some(request) = body(text) else { continue };
        let mut answer = server().run_with(request.clone()).await;
        let Some(("json", expected)) = blocks.get(number + 1) else {
            let png = answer["outputs"][0]["image/png"].as_str().expect("the example without an answer draws");
            assert!(png.starts_with("iVBORw0KGgo"), "{png}");
            continue;
        };
        let mut expected: Value = serde_json::from_str(expected).expect("the README's answer is JSON");
        for answer in [&mut expected, &mut answer] {
            let members = answer.as_object_mut().expect("an object");
            members.retain(|name, _| name != "usage" && name != "sandbox");
        }
        assert_eq!(answer, expected, "{request}");
        compared += 1;
    }
    assert!(compared >= 6, "only {compared} examples were found");
}
