//! Downloads: whole, in ranges, and broken off.

use reqwest::Method;

use super::kept::{Kept, content};
use crate::e2b::{ENVD, answer};

const LARGE: &str = "/tmp/large";
const LARGE_BYTES: usize = 32 << 20;

/// Creates a large file, once: byte `n` is `n % 251`.
async fn large_file(kept: &Kept) {
    kept.large_file
        .get_or_init(|| async {
            let code = format!("bytes(range(251)) * {} ", LARGE_BYTES / 251 + 1);
            let command = format!("python3 -c \"open('{LARGE}', 'wb').write(({code})[:{LARGE_BYTES}])\"");
            kept.shell(&command).await;
        })
        .await;
}

/// File `n` has `n` bytes.
pub(super) async fn of_tiny_files(kept: &Kept, number: u64) {
    const FILES: u64 = 20;
    let make = async || {
        for file in 0..FILES {
            let upload = kept.octets(&format!("/tmp/tiny-{file}")).body(content(file, file as usize));
            assert_eq!(answer(upload).await.status, 200);
        }
    };
    kept.tiny_files.get_or_init(make).await;
    let file = number % FILES;
    let found = kept.read(&format!("/tmp/tiny-{file}")).await;
    assert!(found.status == 200 && found.body == content(file, file as usize), "{}", found.text());
}

pub(super) async fn of_a_large_file(kept: &Kept, _: u64) {
    large_file(kept).await;
    let found = kept.read(LARGE).await;
    assert_eq!((found.status, found.body.len()), (200, LARGE_BYTES));
    assert!(found.body.iter().zip(0..).all(|(byte, at)| *byte == (at % 251) as u8), "other content");
}

pub(super) async fn of_ranges(kept: &Kept, number: u64) {
    large_file(kept).await;
    let (first, length) = ((number as usize * 99_991) % (LARGE_BYTES - 2000), 1 + number as usize % 2000);
    let request = kept.envd(Method::GET, "/files").query(&[("path", LARGE)]);
    let part = answer(request.header("range", format!("bytes={first}-{}", first + length - 1))).await;
    assert_eq!((part.status, part.body.len()), (206, length));
    assert!(part.body.iter().zip(first..).all(|(byte, at)| *byte == (at % 251) as u8), "other content");
}

/// The client hangs up when the answer has begun, after the first bytes, or when unread bytes hold up the rest. Most
/// hang up early, while the agent still sends as much as it may.
pub(super) async fn broken_off(kept: &Kept, number: u64) {
    large_file(kept).await;
    let begun = if number.is_multiple_of(8) {
        let mut unread = kept.unread(ENVD, Method::GET, &format!("/files?path={LARGE}"), "", Vec::new()).await;
        unread.take(100).await
    } else {
        let request = kept.envd(Method::GET, "/files").query(&[("path", LARGE)]);
        let mut response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        match number % 2 {
            0 => Vec::new(),
            _ => response.chunk().await.expect("it goes on").expect("content").to_vec(),
        }
    };
    assert!(begun.iter().zip(0..).all(|(byte, at)| *byte == (at % 251) as u8), "other content");
}
