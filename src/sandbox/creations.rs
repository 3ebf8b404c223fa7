//! Creations that clients may repeat.
//!
//! A client that gets no answer to a creation does not know whether there is a sandbox. If it gave the creation a key, it
//! can send the same request again, and gets the same sandbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::owner::Owner;

/// A client's key of one creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreationKey {
    /// The key. Those of other owners are other keys.
    pub key: String,
    /// A digest of the request, which distinguishes a repetition from another request with the same key.
    pub digest: [u8; 32],
}

/// The keyed creations that are in progress, or whose sandboxes are still kept. So there are at most as many as kept
/// sandboxes and requests.
#[derive(Debug, Default)]
pub(super) struct Creations {
    known: Mutex<HashMap<(Owner, String), Arc<Creation>>>,
}

#[derive(Debug)]
struct Creation {
    digest: [u8; 32],
    /// The id of the sandbox, once there is one.
    id: OnceCell<String>,
}

/// Why a keyed creation has no sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyedError<E> {
    /// The key belongs to another request.
    OtherRequest,
    /// The creation failed.
    Failed(E),
}

impl Creations {
    /// Returns the sandbox with this key if `find` finds it by its id, and creates it otherwise. Repetitions wait for a
    /// creation that is in progress. If it fails, or its client hangs up, the next one of them creates the sandbox.
    pub(super) async fn once<T, E>(
        &self,
        owner: Owner,
        key: &CreationKey,
        find: impl Fn(&str) -> Option<T>,
        create: impl AsyncFnOnce() -> Result<(String, T), E>,
    ) -> Result<T, KeyedError<E>> {
        let mut create = Some(create);
        loop {
            let creation = self.begin(owner, key, |id| find(id).is_some());
            if creation.digest != key.digest {
                return Err(KeyedError::OtherRequest);
            }
            let mut made = None;
            let id = creation.id.get_or_try_init(async || {
                let create = create.take().expect("a creation that ran has returned its result");
                let (id, sandbox) = create().await?;
                made = Some(sandbox);
                Ok(id)
            });
            let id = id.await.map_err(KeyedError::Failed)?;
            // A sandbox that has ended in the meantime is not found, and the key is free.
            if let Some(sandbox) = made.or_else(|| find(id)) {
                return Ok(sandbox);
            }
        }
    }

    /// Returns the creation with this key. Forgets those that have failed and those whose sandboxes have ended.
    fn begin(&self, owner: Owner, key: &CreationKey, is_kept: impl Fn(&str) -> bool) -> Arc<Creation> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, creation| match creation.id.get() {
            Some(id) => is_kept(id),
            None => Arc::strong_count(creation) > 1,
        });
        let begun = known.entry((owner, key.key.clone()));
        Arc::clone(begun.or_insert_with(|| Arc::new(Creation { digest: key.digest, id: OnceCell::new() })))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    const OWNER: Owner = Owner::ANYBODY;

    fn key(key: &str, digest: u8) -> CreationKey {
        CreationKey { key: key.to_owned(), digest: [digest; 32] }
    }

    /// The ids of kept sandboxes.
    #[derive(Default)]
    struct Kept(RefCell<BTreeSet<String>>);

    impl Kept {
        fn find(&self, id: &str) -> Option<String> {
            self.0.borrow().get(id).cloned()
        }

        fn made(&self, id: &str) -> Result<(String, String), &'static str> {
            self.0.borrow_mut().insert(id.to_owned());
            Ok((id.to_owned(), id.to_owned()))
        }
    }

    #[tokio::test]
    async fn a_key_is_one_sandbox_for_as_long_as_that_is_kept() {
        let (creations, kept) = (Creations::default(), Kept::default());
        let create = async |key: CreationKey, owner: Owner, id: &str| {
            creations.once(owner, &key, |id| kept.find(id), async || kept.made(id)).await
        };
        assert_eq!(create(key("k", 1), OWNER, "a").await, Ok("a".to_owned()));
        assert_eq!(create(key("k", 1), OWNER, "b").await, Ok("a".to_owned()));
        assert_eq!(create(key("k", 2), OWNER, "b").await, Err(KeyedError::OtherRequest));
        assert_eq!(create(key("l", 2), OWNER, "c").await, Ok("c".to_owned()));
        assert_eq!(create(key("k", 2), Owner::of_key("another"), "d").await, Ok("d".to_owned()));
        kept.0.borrow_mut().clear();
        assert_eq!(create(key("k", 2), OWNER, "e").await, Ok("e".to_owned()));
        assert_eq!(creations.known.lock().expect("a lock").len(), 1, "ended sandboxes are remembered");
    }

    #[tokio::test]
    async fn a_repetition_waits_for_the_creation_in_progress() {
        let (creations, kept, key) = (Creations::default(), Kept::default(), key("k", 1));
        let (launch, launched) = oneshot::channel::<()>();
        let first = creations.once(
            OWNER,
            &key,
            |id| kept.find(id),
            async || {
                launched.await.expect("it is launched");
                kept.made("a")
            },
        );
        let second = creations.once(OWNER, &key, |id| kept.find(id), async || kept.made("b"));
        let mut both = std::pin::pin!(futures::future::join(first, second));
        assert_eq!(both.as_mut().now_or_never(), None);
        launch.send(()).expect("it waits");
        assert_eq!(both.await, (Ok("a".to_owned()), Ok("a".to_owned())));
    }

    #[tokio::test]
    async fn a_creation_that_fails_or_is_dropped_is_left_to_the_next() {
        let (creations, kept, key) = (Creations::default(), Kept::default(), key("k", 1));
        let (fail, failed) = oneshot::channel::<()>();
        let first = creations.once(
            OWNER,
            &key,
            |id| kept.find(id),
            async || {
                failed.await.expect("it fails");
                Err::<(String, String), _>("no room")
            },
        );
        let second = creations.once(
            OWNER,
            &key,
            |id| kept.find(id),
            async || std::future::pending::<Result<(String, String), &'static str>>().await,
        );
        let third = creations.once(OWNER, &key, |id| kept.find(id), async || kept.made("c"));
        let (mut second, mut third) = (Box::pin(second), Box::pin(third));
        {
            let mut first = std::pin::pin!(first);
            assert_eq!(first.as_mut().now_or_never(), None);
            assert_eq!((second.as_mut().now_or_never(), third.as_mut().now_or_never()), (None, None));
            fail.send(()).expect("it waits");
            assert_eq!(first.await, Err(KeyedError::Failed("no room")));
        }
        // The second is now creating, until its client hangs up.
        assert_eq!((second.as_mut().now_or_never(), third.as_mut().now_or_never()), (None, None));
        drop(second);
        assert_eq!(third.await, Ok("c".to_owned()));
    }

    #[tokio::test]
    async fn failures_are_forgotten() {
        let (creations, kept) = (Creations::default(), Kept::default());
        for number in 0..100 {
            let create = async || Err::<(String, String), _>("no room");
            let failed = creations.once(OWNER, &key(&number.to_string(), 1), |id| kept.find(id), create).await;
            assert_eq!(failed, Err(KeyedError::Failed("no room")));
        }
        assert_eq!(creations.known.lock().expect("a lock").len(), 1, "only the last one may be left");
        // Another request may then have the key.
        let create = async || kept.made("a");
        let made = creations.once(OWNER, &key("99", 2), |id| kept.find(id), create).await;
        assert_eq!(made, Ok("a".to_owned()));
    }
}
