//! The program `sudo`, which is the agent's binary under another name. It sends its command and its standard streams to
//! the agent, forwards signals, and exits with the command's status.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use futures::StreamExt;
use futures::stream::SelectAll;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::Arguments;
use super::{Forward, MAX_LINE_BYTES, Reply, Request, SOCKET};

/// Signals that are forwarded to the command.
const FORWARDED: [SignalKind; 6] = [
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::hangup(),
    SignalKind::quit(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// Variables of the caller that every command gets.
const KEPT: [&str; 4] = ["TERM", "LANG", "LC_ALL", "DISPLAY"];

/// Runs `sudo` with the arguments of this process, and returns its exit status.
pub async fn main() -> i32 {
    match run().await {
        Ok(status) => status,
        Err(message) => {
            let _ = writeln!(io::stderr(), "sudo: {message}");
            1
        }
    }
}

async fn run() -> Result<i32, String> {
    let arguments = Arguments::parse(std::env::args_os().skip(1)).map_err(|err| err.to_string())?;
    if arguments.nothing {
        return Ok(0);
    }
    let caller: BTreeMap<_, _> = std::env::vars().collect();
    let request = request(arguments, &caller, std::env::current_dir().ok());
    let socket = UnixStream::connect(SOCKET).await.map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => {
            "this sandbox's template does not let code become root (superuser = false)".to_owned()
        }
        _ => format!("the agent does not answer: {err}"),
    })?;
    converse(socket, &request).await.map_err(|err| format!("the agent went away: {err}"))?
}

/// Builds the request to the agent from the arguments and the caller's variables and working directory.
fn request(arguments: Arguments, caller: &BTreeMap<String, String>, cwd: Option<std::path::PathBuf>) -> Request {
    let own = ["HOME", "USER", "LOGNAME", "SHELL", "PWD"];
    let kept = |name: &str| KEPT.contains(&name) || (arguments.keep_env && !own.contains(&name));
    let mut env: BTreeMap<_, _> =
        caller.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    env.insert("SUDO_USER".to_owned(), caller.get("USER").cloned().unwrap_or_default());
    env.insert("SUDO_UID".to_owned(), rustix::process::getuid().as_raw().to_string());
    env.insert("SUDO_GID".to_owned(), rustix::process::getgid().as_raw().to_string());
    env.insert("SUDO_COMMAND".to_owned(), arguments.command.join(" "));
    env.extend(arguments.env);
    let command = match (arguments.login || arguments.shell, arguments.command) {
        (false, command) => command,
        (true, command) => shell(arguments.login, &command),
    };
    let user = arguments.user.unwrap_or_else(|| "root".to_owned());
    Request { user, command, env, cwd: cwd.filter(|_| !arguments.login) }
}

fn shell(login: bool, command: &[String]) -> Vec<String> {
    let mut words = vec!["/bin/bash".to_owned()];
    words.extend(login.then(|| "-l".to_owned()));
    if !command.is_empty() {
        let quoted: Vec<_> = command.iter().map(|word| quote(word)).collect();
        words.extend(["-c".to_owned(), quoted.join(" ")]);
    }
    words
}

/// Escapes a word so that the shell keeps it one word but still expands variables, as `sudo` does.
fn quote(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '$');
    word.chars().flat_map(|letter| (!plain(letter)).then_some('\\').into_iter().chain([letter])).collect()
}

/// Sends the request, forwards signals, and waits for the reply.
async fn converse(mut socket: UnixStream, request: &Request) -> io::Result<Result<i32, String>> {
    let mut signals = SelectAll::new();
    for kind in FORWARDED {
        let received =
            futures::stream::unfold(signal(kind)?, |mut signal| async { Some((signal.recv().await?, signal)) });
        signals.push(Box::pin(received.map(move |()| kind.as_raw_value())));
    }
    send_streams(&socket).await?;
    socket.write_all(&line(request)).await?;
    let (reader, mut writer) = socket.split();
    let mut reader = BufReader::new(reader.take(MAX_LINE_BYTES as u64));
    let mut answer = String::new();
    loop {
        tokio::select! {
            read = reader.read_line(&mut answer) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                return Ok(match serde_json::from_str(&answer)? {
                    Reply::Ended(status) => Ok(status),
                    Reply::Failed(message) => Err(message),
                });
            }
            Some(signal) = signals.next() => writer.write_all(&line(&Forward { signal })).await?,
        }
    }
}

fn line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("strings and numbers can be written as JSON");
    line.push(b'\n');
    line
}

/// Sends one byte with the three standard streams attached.
async fn send_streams(socket: &UnixStream) -> io::Result<()> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let streams: [BorrowedFd<'_>; 3] = [input.as_fd(), output.as_fd(), error.as_fd()];
    socket
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&streams)), "there is room for three");
            rustix::net::sendmsg(socket, &[IoSlice::new(b"+")], &mut ancillary, SendFlags::empty())?;
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> BTreeMap<String, String> {
        [("USER", "user"), ("HOME", "/home/user"), ("TERM", "xterm"), ("MINE", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn request_for(line: &str) -> Request {
        let arguments = Arguments::parse(line.split(' ').map(Into::into)).expect("arguments");
        request(arguments, &caller(), Some("/tmp".into()))
    }

    #[test]
    fn a_command_gets_root_and_few_of_the_callers_variables() {
        let request = request_for("A=1 id -u");
        assert_eq!((request.user.as_str(), &request.command[..]), ("root", &["id".to_owned(), "-u".to_owned()][..]));
        assert_eq!((request.env["A"].as_str(), request.env["TERM"].as_str()), ("1", "xterm"));
        assert_eq!(request.env["SUDO_USER"], "user");
        assert!(!request.env.contains_key("MINE") && !request.env.contains_key("HOME"));
        assert_eq!(request.cwd, Some("/tmp".into()));
        assert_eq!(request_for("-E id").env["MINE"], "1");
    }

    #[test]
    fn a_login_starts_a_shell_in_the_home() {
        assert_eq!((request_for("-i").command, request_for("-i").cwd), (vec!["/bin/bash".into(), "-l".into()], None));
        assert_eq!(request_for("-s echo a;b $X").command, ["/bin/bash", "-c", "echo a\\;b $X"]);
    }
}
