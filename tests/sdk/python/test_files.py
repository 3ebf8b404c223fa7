"""Files of a sandbox: `files`, and links that need no SDK."""

import time
import urllib.error
import urllib.request

import pytest
from e2b import CommandExitException, InvalidArgumentException, NotFoundException, SandboxException

import sdk


def request(url, **options):
    return urllib.request.urlopen(urllib.request.Request(url, **options), timeout=60).read()


@pytest.mark.covers("files.write", "files.read")
def test_text_is_read_back_as_it_was_written(shared):
    for text in ("", "é 漢字 🎈\r\n\x00", "long " * 400_000):
        shared.files.write("text.txt", text)
        assert shared.files.read("text.txt") == text
    assert shared.files.read("/home/user/text.txt") == text


@pytest.mark.covers("files.write", "files.read")
def test_bytes_are_read_back_as_they_were_written(shared):
    data = bytes(range(256)) * 1000
    info = shared.files.write("/tmp/new/directory/data.bin", data)
    assert info.path == "/tmp/new/directory/data.bin"
    assert bytes(shared.files.read("/tmp/new/directory/data.bin", format="bytes")) == data
    assert b"".join(shared.files.read("/tmp/new/directory/data.bin", format="stream")) == data


@pytest.mark.covers("files.write", "files.read")
def test_a_large_file_goes_in_and_comes_out(shared, tmp_path):
    source = tmp_path / "large"
    source.write_bytes(b"0123456789abcdef" * (2 << 20))
    with source.open("rb") as file:
        shared.files.write("large", file)
    assert shared.run_code("import os; os.path.getsize('/home/user/large')").text == str(32 << 20)
    assert sum(len(piece) for piece in shared.files.read("large", format="stream")) == 32 << 20
    shared.files.remove("large")


# One way is enough, with an SDK that does not hold the whole file in memory.
@pytest.mark.covers("files.write", "files.read", needs=["E2B_API_URL", "commands.stream_input"])
def test_a_gigabyte_streams_in_and_out(fresh, tmp_path):
    # The transfer may be slow, and does not extend the sandbox's deadline.
    sandbox = fresh(timeout=900)
    size, end = 1 << 30, b"the end"
    with (tmp_path / "gigabyte").open("wb") as file:
        file.truncate(size - len(end))
        file.seek(0, 2)
        file.write(end)
    with (tmp_path / "gigabyte").open("rb") as file:
        sandbox.files.write("gigabyte", file, request_timeout=300)
    assert sandbox.files.get_info("gigabyte").size == size
    seen, last = 0, b""
    for piece in sandbox.files.read("gigabyte", format="stream", request_timeout=300):
        seen, last = seen + len(piece), (last + bytes(piece))[-len(end):]
    assert (seen, last) == (size, end)


@pytest.mark.covers("files.write", "sandbox.run_code")
def test_code_sees_files_and_makes_some(shared):
    shared.files.write("data.csv", "a,b\n1,2\n")
    assert shared.run_code("open('data.csv').read()").text.startswith("a,b")
    shared.run_code("open('made.txt', 'w').write('made')")
    assert shared.files.read("made.txt") == "made"


@pytest.mark.covers("files.write_files")
def test_several_files_are_written_at_once(shared):
    written = shared.files.write_files([{"path": "many/a.txt", "data": "A"}, {"path": "many/b.bin", "data": b"\x00B"}])
    assert [info.path for info in written] == ["/home/user/many/a.txt", "/home/user/many/b.bin"]
    assert shared.files.read("many/a.txt") == "A" and bytes(shared.files.read("many/b.bin", format="bytes")) == b"\x00B"


@pytest.mark.covers("files.list", "files.make_dir")
def test_a_directory_is_made_and_listed(shared):
    assert shared.files.make_dir("tree/one/two") is True
    assert shared.files.make_dir("tree/one/two") is False
    shared.files.write("tree/file.txt", "x")
    entries = shared.files.list("tree")
    kinds = {entry.name: getattr(entry.type, "value", entry.type) for entry in entries}
    assert kinds == {"one": "dir", "file.txt": "file"}
    assert {entry.path for entry in entries} == {"/home/user/tree/one", "/home/user/tree/file.txt"}


@pytest.mark.covers("files.list", needs=["files.get_info"])
def test_a_directory_is_listed_with_what_is_below(shared):
    shared.files.write("deep/one/two/three.txt", "x")
    names = [sorted(entry.name for entry in shared.files.list("deep", depth=depth)) for depth in (1, 2, 3)]
    assert names == [["one"], ["one", "two"], ["one", "three.txt", "two"]]
    with pytest.raises(InvalidArgumentException):
        shared.files.list("deep", depth=0)


@pytest.mark.covers("files.get_info", needs=["files.write"])
def test_a_file_is_described(shared):
    shared.files.write("described.txt", "12345")
    info = shared.files.get_info("described.txt")
    assert (info.name, info.path, info.size) == ("described.txt", "/home/user/described.txt", 5)
    assert (info.owner, info.group) == ("user", "user")
    assert info.permissions.endswith("rw-r--r--")
    assert abs(info.modified_time.timestamp() - time.time()) < 60


@pytest.mark.covers("files.exists", "files.rename", "files.remove")
def test_a_file_is_renamed_and_removed(shared):
    shared.files.write("old.txt", "kept")
    entry = shared.files.rename("old.txt", "/tmp/moved.txt")
    assert entry.path == "/tmp/moved.txt"
    assert not shared.files.exists("old.txt") and shared.files.exists("/tmp/moved.txt")
    assert shared.files.read("/tmp/moved.txt") == "kept"
    shared.files.remove("/tmp/moved.txt")
    assert not shared.files.exists("/tmp/moved.txt")


@pytest.mark.covers("files.read", "files.list", "files.rename")
def test_a_missing_file_is_not_found(shared):
    for call in (lambda: shared.files.read("nothing"), lambda: shared.files.list("nothing"), lambda: shared.files.rename("nothing", "x")):
        with pytest.raises((NotFoundException, SandboxException)):
            call()


@pytest.mark.covers("files.read", "files.write", needs=["commands.run"])
def test_a_file_belongs_to_the_given_user(shared):
    shared.files.write("/tmp/mine.txt", "mine")
    shared.files.write("/tmp/secret.txt", "root's", "root")
    shared.commands.run("chmod 600 /tmp/secret.txt", user="root")
    assert shared.commands.run("stat -c %U /tmp/mine.txt /tmp/secret.txt").stdout == "user\nroot\n"
    assert shared.files.read("/tmp/secret.txt", user="root") == "root's"
    with pytest.raises(CommandExitException) as raised:
        shared.commands.run("cat /tmp/secret.txt")
    assert "Permission denied" in raised.value.stderr


@pytest.mark.covers("files.watch_dir", "watch.get_new_events", "watch.stop", needs=["files.write"])
def test_a_directory_is_watched(shared):
    shared.files.make_dir("watched")
    watch = shared.files.watch_dir("watched")
    shared.files.write("watched/new.txt", "x")
    # Each event arrives at once, and only once.
    assert [(event.type.value, event.name) for event in watch.get_new_events()] == [
        ("create", "new.txt"), ("chmod", "new.txt"), ("write", "new.txt"),
    ]
    assert watch.get_new_events() == []
    shared.files.rename("watched/new.txt", "watched/old.txt")
    assert [(event.type.value, event.name) for event in watch.get_new_events()] == [("rename", "new.txt"), ("create", "old.txt")]
    shared.files.remove("watched/old.txt")
    assert [(event.type.value, event.name) for event in watch.get_new_events()] == [("remove", "old.txt")]
    watch.stop()
    with pytest.raises(Exception):
        watch.get_new_events()


@pytest.mark.covers("sandbox.download_url", "sandbox.upload_url", needs=["files.write"])
def test_a_link_leads_to_its_file(sandbox):
    sandbox.files.write("linked.txt", "by link")
    assert request(sdk.link(sandbox.download_url, "linked.txt")) == b"by link"
    assert "up.txt" in sdk.link(sandbox.upload_url, "up.txt")


@pytest.mark.covers("sandbox.download_url", "sandbox.upload_url", needs=["files.write", "sandbox.create"])
def test_a_link_needs_no_sdk(fresh):
    sandbox = fresh(secure=True)
    sandbox.files.write("linked.txt", "by link")
    assert request(sdk.link(sandbox.download_url, "linked.txt", user="user")) == b"by link"
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="up.txt"\r\n\r\nuploaded\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request(sdk.link(sandbox.upload_url, "up.txt", user="user"), data=body, headers=headers, method="POST")
    assert sandbox.files.read("up.txt") == "uploaded"


@pytest.mark.covers("sandbox.download_url", needs=["files.write", "sandbox.create"])
def test_a_link_that_was_changed_or_is_old_opens_nothing(fresh):
    sandbox = fresh(secure=True)
    sandbox.files.write("linked.txt", "by link")
    expired = sdk.link(sandbox.download_url, "linked.txt", user="user", use_signature_expiration=-10)
    other = sdk.link(sandbox.download_url, "linked.txt", user="user").replace("linked.txt", "other.txt")
    for url, message in ((expired, b"signature is already expired"), (other, b"invalid signature")):
        with pytest.raises(urllib.error.HTTPError) as raised:
            request(url)
        assert raised.value.code == 401 and message in raised.value.read()
