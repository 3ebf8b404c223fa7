//! The agent's side of `sudo`.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use futures::StreamExt;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Signal;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::{Forward, MAX_LINE_BYTES, Reply, Request, SOCKET};
use crate::agent::sys::{self, Processes, Started};
use crate::agent::users::Users;

/// Listens for requests and starts their commands until the agent exits.
pub(in crate::agent) fn serve(processes: Processes, users: Users) -> io::Result<()> {
    let listener = UnixListener::bind(SOCKET)?;
    std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o666))?;
    tokio::spawn(async move {
        loop {
            // For example, too many files are open. The caller waits until that changes.
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let (processes, users) = (processes.clone(), users.clone());
            // An error means that the caller has gone away, so no reply is possible.
            tokio::spawn(async move { answer(socket, &processes, &users).await });
        }
    });
    Ok(())
}

async fn answer(mut socket: UnixStream, processes: &Processes, users: &Users) -> io::Result<()> {
    let streams = receive_streams(&socket).await?;
    let (reader, mut writer) = socket.split();
    let mut lines = FramedRead::new(reader, LinesCodec::new_with_max_length(MAX_LINE_BYTES));
    let first = lines.next().await.and_then(Result::ok).ok_or(io::ErrorKind::UnexpectedEof)?;
    let reply = match start(serde_json::from_str(&first)?, streams, processes, users) {
        Ok(started) => Reply::Ended(follow(started, lines).await),
        Err(message) => Reply::Failed(message),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

fn start(request: Request, streams: [OwnedFd; 3], processes: &Processes, users: &Users) -> Result<Started, String> {
    let user = users.get(Some(&request.user)).map_err(|refused| refused.0.message)?;
    let (program, arguments) = request.command.split_first().ok_or("the command is missing")?;
    let [input, output, error] = streams;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(users.environment(&user, &request.env))
        .current_dir(request.cwd.as_deref().unwrap_or(&user.home))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(error));
    processes.spawn(command, &user).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => format!("{program}: command not found"),
        _ => format!("{program}: {err}"),
    })
}

/// Forwards signals until the command has ended, and returns its exit status. The command goes on if its caller goes
/// away, as under any `sudo`.
async fn follow(started: Started, mut lines: FramedRead<tokio::net::unix::ReadHalf<'_>, LinesCodec>) -> i32 {
    let mut exit = started.exit;
    let mut listening = true;
    loop {
        tokio::select! {
            status = &mut exit => return shell_status(status.unwrap_or_default()),
            line = lines.next(), if listening => match line {
                Some(Ok(line)) => {
                    let request = serde_json::from_str(&line).ok();
                    let signal = request.and_then(|Forward { signal }| Signal::from_named_raw(signal));
                    // To its whole process group, as a terminal does.
                    if let Some(signal) = signal {
                        sys::signal_group(started.pid, signal);
                    }
                }
                _ => listening = false,
            },
        }
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Receives one byte with the three standard streams attached.
async fn receive_streams(socket: &UnixStream) -> io::Result<[OwnedFd; 3]> {
    let received = socket
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            let rights = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(streams) => Some(streams),
                _ => None,
            });
            Ok(rights.flatten().collect::<Vec<_>>())
        })
        .await?;
    received.try_into().map_err(|_| io::ErrorKind::InvalidData.into())
}
