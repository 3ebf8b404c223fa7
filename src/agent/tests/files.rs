use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::*;
use crate::protocol::{
    Entry, EntryKind, FileQuery, ListQuery, MoveQuery, ReadQuery, WatchEvent, WatchKind, WatchQuery, WriteQuery,
};

fn at(path: &str) -> FileQuery {
    FileQuery { path: path.into(), user: None }
}

async fn write(sandbox: &Sandbox, path: &str, text: &str) {
    sandbox.link.write_file(path, Bytes::copy_from_slice(text.as_bytes())).await.expect("it is written");
}

async fn read(sandbox: &Sandbox, query: &ReadQuery) -> Result<String, LinkError> {
    let content = sandbox.link.read_file(query).await?;
    let bytes: Vec<Bytes> = content.bytes.try_collect().await?;
    Ok(String::from_utf8(bytes.concat()).expect("text"))
}

async fn names(sandbox: &Sandbox, path: &str, depth: u32) -> Vec<String> {
    let query = ListQuery { path: path.into(), user: None, depth };
    let entries = all(sandbox.link.list_directory(&query).await.expect("a list")).await;
    let home = format!("{}/", sandbox.home());
    entries.into_iter().map(|entry: Entry| entry.path.trim_start_matches(&home).to_owned()).collect()
}

#[tokio::test]
async fn a_file_is_written_with_its_parents_and_read_back_whole_or_in_part() {
    let sandbox = Sandbox::start().await;
    write(&sandbox, "a/b/c.txt", "a longer text").await;
    write(&sandbox, "~/a/b/c.txt", "hello world").await;
    let path = format!("{}/a/./x/../b/c.txt", sandbox.home());
    let whole = ReadQuery { path, ..ReadQuery::default() };
    assert_eq!(read(&sandbox, &whole).await.expect("its text"), "hello world");
    let part = ReadQuery { offset: 6, length: Some(3), ..whole.clone() };
    assert_eq!(read(&sandbox, &part).await.expect("its text"), "wor");
    let beyond = ReadQuery { offset: 600, ..whole.clone() };
    assert_eq!(read(&sandbox, &beyond).await.expect("its text"), "");
    let content = sandbox.link.read_file(&whole).await.expect("the file");
    let entry = sandbox.link.stat(&at("a/b/c.txt")).await.expect("its entry");
    assert_eq!((content.size, content.modified_ns), (11, entry.modified_ns));
    assert_eq!((entry.kind, entry.mode, entry.target_mode), (EntryKind::File, 0o100644, None));
    assert_eq!((entry.name.as_str(), entry.path), ("c.txt", format!("{}/a/b/c.txt", sandbox.home())));
}

#[tokio::test]
async fn a_large_file_streams_both_ways() {
    let sandbox = Sandbox::start().await;
    let chunk = Bytes::from(vec![b'x'; 100_000]);
    let content = stream::iter((0..300).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let query = WriteQuery { path: "big".into(), ..WriteQuery::default() };
    sandbox.link.write_file_from(&query, content).await.expect("it is written");
    let content = sandbox.link.read_file(&ReadQuery { path: "big".into(), ..ReadQuery::default() }).await;
    let content = content.expect("the file");
    assert_eq!(content.size, 30_000_000);
    let read = content.bytes.try_fold(0, |sum, bytes| async move { Ok(sum + bytes.len()) }).await;
    assert_eq!(read.expect("its bytes"), 30_000_000);
}

#[tokio::test]
async fn a_file_of_procfs_has_size_zero_and_can_be_read() {
    let sandbox = Sandbox::start().await;
    let query = ReadQuery { path: "/proc/self/status".into(), ..ReadQuery::default() };
    assert_eq!(sandbox.link.read_file(&query).await.expect("it").size, 0);
    assert!(read(&sandbox, &query).await.expect("its text").contains("\nPid:\t"));
}

#[tokio::test]
async fn a_path_that_cannot_be_read_or_written_is_refused() {
    let sandbox = Sandbox::start().await;
    let home = sandbox.home();
    let read = async |path: &str| {
        let query = ReadQuery { path: path.into(), ..ReadQuery::default() };
        refusal(read(&sandbox, &query).await)
    };
    assert_eq!(read("no").await, (Code::NotFound, format!("path '{home}/no' does not exist")));
    assert_eq!(read("").await, (Code::InvalidArgument, format!("path '{home}' is a directory")));
    assert_eq!(read("/dev/zero").await.0, Code::InvalidArgument);
    assert_eq!(read("~root/x").await.0, Code::InvalidArgument);
    rustix::fs::mkfifoat(rustix::fs::CWD, format!("{home}/pipe"), 0o600.into()).expect("a pipe");
    // Opening a pipe does not wait for its other end.
    assert_eq!(read("pipe").await.0, Code::InvalidArgument);
    let _socket = std::os::unix::net::UnixListener::bind(format!("{home}/socket")).expect("a socket");
    assert_eq!(read("socket").await.0, Code::InvalidArgument);
    // A regular file according to its metadata, but offset 0 cannot be read.
    assert_eq!(read("/proc/self/mem").await.0, Code::InvalidArgument);
    let write = async |path: &str| refusal(sandbox.link.write_file(path, Bytes::new()).await);
    soon(write("pipe")).await;
    assert_eq!(write("directory/").await.0, Code::InvalidArgument);
    std::fs::create_dir(format!("{home}/directory")).expect("a directory");
    assert_eq!(write("directory").await.0, Code::InvalidArgument);
    std::fs::write(format!("{home}/file"), "").expect("a file");
    assert_eq!(write("file/below").await.0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_write_with_attributes_replaces_those_of_its_prefix() {
    let sandbox = Sandbox::start().await;
    let write = async |prefix: &str, attributes: Option<&str>| {
        let query = WriteQuery {
            path: "f".into(),
            attributes: attributes.map(str::to_owned),
            attribute_prefix: prefix.into(),
            ..WriteQuery::default()
        };
        sandbox.link.write_file_from(&query, stream::empty::<Result<Bytes, std::io::Error>>()).await?;
        Ok(sandbox.link.stat(&at("f")).await.expect("its entry").attributes)
    };
    let written = async |prefix, attributes| write(prefix, attributes).await.expect("it is written");
    let own = write("user.own.", Some(r#"{"user.own.a":"0"}"#)).await.expect("it is written");
    assert_eq!(own, [("user.own.a", "0")].map(owned).into());
    let both = written("user.x.", Some(r#"{"user.x.a":"1","user.x.b":"é"}"#)).await;
    assert_eq!(both, [("user.own.a", "0"), ("user.x.a", "1"), ("user.x.b", "é")].map(owned).into());
    assert_eq!(written("user.x.", None).await.len(), 3);
    let replaced = written("user.x.", Some(r#"{"user.x.c":""}"#)).await;
    assert_eq!(replaced, [("user.own.a", "0"), ("user.x.c", "")].map(owned).into());
    for (prefix, attributes) in [
        ("user.x.", "[]"),
        ("user.x.", r#"{"user.y.a":"1"}"#),
        ("", r#"{"security.capability":"1"}"#),
        ("security.", r#"{"security.capability":"1"}"#),
    ] {
        assert_eq!(refusal(write(prefix, Some(attributes)).await).0, Code::InvalidArgument, "{attributes}");
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_listing_is_in_lexical_order_and_goes_as_deep_as_asked() {
    let sandbox = Sandbox::start().await;
    for path in ["b/2", "b/1/x/y", "a", "c"] {
        write(&sandbox, path, "").await;
    }
    std::os::unix::fs::symlink("b", format!("{}/link", sandbox.home())).expect("a link");
    assert_eq!(names(&sandbox, "", 0).await, ["a", "b", "c", "link"]);
    assert_eq!(names(&sandbox, "", 2).await, ["a", "b", "b/1", "b/2", "c", "link"]);
    assert_eq!(names(&sandbox, "", 9).await, ["a", "b", "b/1", "b/1/x", "b/1/x/y", "b/2", "c", "link"]);
    // A link is followed if it is the requested path, and its entries have paths below the link.
    assert_eq!(names(&sandbox, "link", 1).await, ["link/1", "link/2"]);
    let list = async |path: &str| {
        let query = ListQuery { path: path.into(), ..ListQuery::default() };
        refusal(sandbox.link.list_directory(&query).await)
    };
    assert_eq!(list("a").await.0, Code::InvalidArgument);
    assert_eq!(list("no").await.0, Code::NotFound);
}

#[tokio::test]
async fn more_entries_than_one_answer_holds_are_listed() {
    let sandbox = Sandbox::start().await;
    let name = "x".repeat(200);
    for number in 0..3_000 {
        std::fs::write(format!("{}/{name}{number}", sandbox.home()), "").expect("a file");
    }
    assert_eq!(names(&sandbox, "", 1).await.len(), 3_000);
}

#[tokio::test]
async fn directories_are_made_moved_and_removed() {
    let sandbox = Sandbox::start().await;
    let link = &sandbox.link;
    let made = link.make_directory(&at("a/b")).await.expect("made");
    assert_eq!((made.kind, made.mode, made.name.as_str()), (EntryKind::Directory, 0o40755, "b"));
    let path = format!("{}/a/b", sandbox.home());
    let again = refusal(link.make_directory(&at("a/b")).await);
    assert_eq!(again, (Code::AlreadyExists, format!("directory already exists: {path}")));
    write(&sandbox, "file", "text").await;
    assert_eq!(refusal(link.make_directory(&at("file")).await).0, Code::InvalidArgument);
    assert_eq!(refusal(link.make_directory(&at("file/below")).await).0, Code::InvalidArgument);

    let to = |from: &str, to: &str| MoveQuery { from: from.into(), to: to.into(), user: None };
    assert_eq!(link.move_path(&to("file", "new/place")).await.expect("moved").name, "place");
    assert_eq!(refusal(link.move_path(&to("file", "other")).await).0, Code::NotFound);

    for _ in 0..2 {
        link.remove_path(&at("new")).await.expect("removed");
    }
    link.remove_path(&at("a")).await.expect("removed");
    assert!(names(&sandbox, "", 9).await.is_empty());
}

#[tokio::test]
async fn a_move_between_file_systems_keeps_everything() {
    let sandbox = Sandbox::start().await;
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { panic!("this test needs /dev/shm") };
    write(&sandbox, "tree/run", "#!/bin/sh").await;
    let home = sandbox.home();
    std::fs::set_permissions(format!("{home}/tree/run"), std::fs::Permissions::from_mode(0o751)).expect("a mode");
    std::os::unix::fs::symlink("run", format!("{home}/tree/link")).expect("a link");
    let before = sandbox.link.stat(&at("tree/run")).await.expect("its entry");
    let to = elsewhere.path().join("moved").display().to_string();
    let query = MoveQuery { from: "tree".into(), to: to.clone(), user: None };
    sandbox.link.move_path(&query).await.expect("moved");
    let after = sandbox.link.stat(&at(&format!("{to}/run"))).await.expect("its entry");
    assert_eq!((after.mode, after.modified_ns, after.owner), (before.mode, before.modified_ns, before.owner));
    assert_eq!(std::fs::read_link(format!("{to}/link")).expect("a link"), std::path::Path::new("run"));
    assert!(names(&sandbox, "", 1).await.is_empty());
}

#[tokio::test]
async fn other_requests_are_answered_while_many_files_are_listed_and_removed() {
    let sandbox = Sandbox::start().await;
    std::fs::create_dir(format!("{}/many", sandbox.home())).expect("a directory");
    for number in 0..50_000 {
        std::fs::write(format!("{}/many/{number}", sandbox.home()), "").expect("a file");
    }
    let answered_during = async |work: &mut (dyn Future<Output = ()> + Unpin)| {
        for answers in 0.. {
            tokio::select! {
                biased;
                () = &mut *work => return answers,
                metrics = sandbox.link.metrics() => drop(metrics.expect("an answer")),
            }
        }
        0
    };
    let query = ListQuery { path: "many".into(), user: None, depth: 1 };
    let mut listing = Box::pin(async { drop(sandbox.link.list_directory(&query).await.expect("a list").next().await) });
    let answers = answered_during(&mut listing).await;
    assert!(answers > 3, "{answers} answers while a large directory was read");
    let many = at("many");
    let mut removal = Box::pin(async { sandbox.link.remove_path(&many).await.expect("removed") });
    let answers = answered_during(&mut removal).await;
    assert!(answers > 10, "{answers} answers while many files were removed");
    assert!(names(&sandbox, "", 1).await.is_empty());
}

fn event(kind: WatchKind, name: &str) -> WatchEvent {
    WatchEvent { kind, name: name.into(), entry: None }
}

#[tokio::test]
async fn the_events_of_a_finished_operation_can_be_fetched_at_once() {
    let sandbox = Sandbox::start().await;
    let link = &sandbox.link;
    let query = WatchQuery { entries: true, ..WatchQuery::default() };
    let watcher = link.create_watcher(&query).await.expect("a watcher");
    for round in 0..20 {
        let name = format!("file{round}");
        write(&sandbox, &name, "text").await;
        let events = all(link.watcher_events(&watcher).await.expect("its events")).await;
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        // There is no `Chmod`, because an agent without root does not change the owner.
        assert_eq!(kinds, [WatchKind::Create, WatchKind::Write], "{events:?}");
        assert!(events.iter().all(|event| event.entry.as_ref().is_some_and(|entry| entry.name == name)));
        assert!(all(link.watcher_events(&watcher).await.expect("its events")).await.is_empty());
    }
    link.move_path(&MoveQuery { from: "file0".into(), to: "new".into(), user: None }).await.expect("moved");
    link.remove_path(&at("file1")).await.expect("removed");
    let events = all(link.watcher_events(&watcher).await.expect("its events")).await;
    let seen: Vec<_> = events.iter().map(|event| (event.kind, event.name.as_str())).collect();
    assert_eq!(seen, [(WatchKind::Rename, "file0"), (WatchKind::Create, "new"), (WatchKind::Remove, "file1")]);
    link.remove_watcher(&watcher).await.expect("removed");
    assert_eq!(refusal(link.watcher_events(&watcher).await).0, Code::NotFound);
    assert_eq!(
        refusal(link.create_watcher(&WatchQuery { path: "no".into(), ..query.clone() }).await).0,
        Code::NotFound
    );
    let on_file = WatchQuery { path: "new".into(), ..query };
    assert_eq!(refusal(link.create_watcher(&on_file).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_recursive_watch_covers_later_directories_and_reports_each_event_once() {
    let sandbox = Sandbox::start().await;
    std::fs::create_dir_all(format!("{}/old/deep", sandbox.home())).expect("directories");
    let watcher = sandbox.link.create_watcher(&WatchQuery { recursive: true, ..WatchQuery::default() }).await;
    let watcher = watcher.expect("a watcher");
    std::fs::write(format!("{}/old/deep/file", sandbox.home()), "").expect("a file");
    write(&sandbox, "new/deep/file", "").await;
    let events = all(sandbox.link.watcher_events(&watcher).await.expect("its events")).await;
    let creates: Vec<_> = events.iter().filter(|event| event.kind == WatchKind::Create).cloned().collect();
    let expected = ["old/deep/file", "new", "new/deep", "new/deep/file"];
    assert_eq!(creates, expected.map(|name| event(WatchKind::Create, name)));
    // Also once in a directory that is already watched.
    write(&sandbox, "new/deep/other", "x").await;
    let events = all(sandbox.link.watcher_events(&watcher).await.expect("its events")).await;
    let expected = [event(WatchKind::Create, "new/deep/other"), event(WatchKind::Write, "new/deep/other")];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_stream_of_events_begins_when_the_watch_is_in_place() {
    let sandbox = Sandbox::start().await;
    let mut events = sandbox.link.watch(&WatchQuery::default()).await.expect("a watch");
    write(&sandbox, "file", "x").await;
    assert_eq!(soon(events.next()).await.expect("one").expect("no error"), event(WatchKind::Create, "file"));
    assert_eq!(soon(events.next()).await.expect("one").expect("no error"), event(WatchKind::Write, "file"));
}

#[tokio::test]
async fn many_watches_share_one_inotify_instance_up_to_a_bound() {
    let sandbox = Sandbox::start().await;
    let link = &sandbox.link;
    // The kernel lets a user have 128 instances on the whole host.
    let mut watchers = Vec::new();
    for number in 0..512 {
        let path = format!("{}/{}", sandbox.home(), number % 200);
        std::fs::create_dir_all(&path).expect("a directory");
        let query = WatchQuery { path, ..WatchQuery::default() };
        watchers.push(link.create_watcher(&query).await.expect("a watcher"));
    }
    let too_many = (Code::Exhausted, "a sandbox has at most 512 watches at once".to_owned());
    assert_eq!(refusal(link.create_watcher(&WatchQuery::default()).await), too_many);
    assert_eq!(refusal(link.watch(&WatchQuery::default()).await), too_many);
    for (number, watcher) in watchers.iter().enumerate() {
        std::fs::create_dir(format!("{}/{}/{number}", sandbox.home(), number % 200)).expect("a directory");
        let events = all(link.watcher_events(watcher).await.expect("its events")).await;
        assert_eq!(events.last(), Some(&event(WatchKind::Create, &number.to_string())), "{events:?}");
    }
    link.remove_watcher(&watchers[0]).await.expect("removed");
    let stream = link.watch(&WatchQuery::default()).await.expect("there is room again");
    assert_eq!(refusal(link.watch(&WatchQuery::default()).await), too_many);
    drop(stream);
    let again = async || link.watch(&WatchQuery::default()).await.is_ok();
    soon(async { while !again().await {} }).await;
}

#[tokio::test]
async fn watches_on_one_directory_are_independent() {
    let sandbox = Sandbox::start().await;
    let link = &sandbox.link;
    std::fs::create_dir_all(format!("{}/a/b", sandbox.home())).expect("directories");
    let query = |path: &str, recursive| WatchQuery { path: path.into(), recursive, ..WatchQuery::default() };
    let whole = link.create_watcher(&query("", true)).await.expect("a watcher");
    write(&sandbox, "a/b/before", "").await;
    let one = link.create_watcher(&query("a/b", false)).await.expect("a watcher");
    let other = link.create_watcher(&query("a/b", true)).await.expect("a watcher");
    write(&sandbox, "a/b/file", "").await;
    let events = async |watcher| all(link.watcher_events(watcher).await.expect("its events")).await;
    assert_eq!(events(&one).await, [event(WatchKind::Create, "file")]);
    assert_eq!(events(&other).await, [event(WatchKind::Create, "file")]);
    let created = ["a/b/before", "a/b/file"].map(|name| event(WatchKind::Create, name));
    assert_eq!(events(&whole).await, created);

    // A directory that one watch no longer has is still watched for the others.
    link.remove_watcher(&one).await.expect("removed");
    write(&sandbox, "a/b/more", "").await;
    assert_eq!(events(&other).await, [event(WatchKind::Create, "more")]);
    assert_eq!(events(&whole).await, [event(WatchKind::Create, "a/b/more")]);
    link.move_path(&MoveQuery { from: "a/b".into(), to: "c".into(), user: None }).await.expect("moved");
    write(&sandbox, "c/last", "").await;
    assert_eq!(events(&other).await, [event(WatchKind::Create, "last")]);
    let reported = events(&whole).await;
    let expected = [(WatchKind::Rename, "a/b"), (WatchKind::Create, "c")].map(|(kind, name)| event(kind, name));
    assert_eq!(reported[..2], expected, "{reported:?}");
    let last = reported.iter().filter(|reported| **reported == event(WatchKind::Create, "c/last")).count();
    assert_eq!(last, 1, "{reported:?}");
    link.remove_watcher(&whole).await.expect("removed");
    link.remove_path(&at("c")).await.expect("removed");
    let reported = events(&other).await;
    assert!(reported.contains(&event(WatchKind::Remove, "last")), "{reported:?}");
}

#[tokio::test]
async fn a_sandbox_watches_a_bounded_number_of_directories() {
    let allowed = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").expect("the host's limit");
    let limit = match allowed.trim().parse::<u64>().expect("a number") {
        // Other tests use up a part of the kernel's limit.
        ..100_000 => "fs.inotify.max_user_watches",
        100_000.. => "at most 65536 directories",
    };
    let sandbox = Sandbox::start().await;
    let many = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for number in 0..65_536 {
        std::fs::create_dir(many.path().join(number.to_string())).expect("a directory");
    }
    let path = many.path().display().to_string();
    let query = WatchQuery { path, recursive: true, ..WatchQuery::default() };
    let (code, message) = refusal(sandbox.link.create_watcher(&query).await);
    assert!(code == Code::Exhausted && message.contains(limit), "{code:?} {message}");
    // The refused watch has left no directories behind.
    std::fs::remove_dir(many.path().join("0")).expect("removed");
    let fewer = sandbox.link.create_watcher(&query).await;
    assert_eq!(fewer.is_ok(), limit != "fs.inotify.max_user_watches", "{fewer:?}");
}

#[tokio::test]
async fn an_unread_watcher_keeps_a_bounded_number_of_bytes() {
    let sandbox = Sandbox::start().await;
    let query = WatchQuery { entries: true, ..WatchQuery::default() };
    let watcher = sandbox.link.create_watcher(&query).await.expect("a watcher");
    // JSON escapes this character as six, and the name is in each event three times: once by itself and twice in the
    // entry.
    let name = |number| format!("{}{number}", "\u{1}".repeat(100));
    for number in 0..9_000 {
        std::fs::create_dir(sandbox.home.path().join(name(number))).expect("a directory");
        // Lets the agent read events in between, because the kernel's queue has a limit of its own.
        if number % 4_000 == 0 {
            sandbox.link.metrics().await.expect("an answer");
        }
    }
    let events = all(sandbox.link.watcher_events(&watcher).await.expect("its events")).await;
    assert!(events.len() > 1_000, "{}", events.len());
    assert_eq!(events.last().map(|event| event.name.clone()), Some(name(8_999)));
    assert!(all(sandbox.link.watcher_events(&watcher).await.expect("its events")).await.is_empty());
}

#[tokio::test]
async fn metrics_are_plausible() {
    let sandbox = Sandbox::start().await;
    let metrics = sandbox.link.metrics().await.expect("metrics");
    assert!(metrics.cpu_count >= 1 && metrics.memory_total_bytes > 0, "{metrics:?}");
    assert!(metrics.disk_total_bytes > metrics.disk_used_bytes, "{metrics:?}");
}
