//! The output of a failed test: its message, shortened if it contains a flood of output.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Once;

use libtest_mimic::Failed;

/// The number of bytes that are printed of the beginning, and of the end, of a longer message.
const KEPT: usize = 2048;

/// Runs a test. If it panics, prints and returns the message, shortened.
pub(crate) fn caught(test: impl FnOnce()) -> Result<(), Failed> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        set_hook(Box::new(|info| {
            let thread = std::thread::current();
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let name = thread.name().unwrap_or("unnamed");
            eprintln!("thread '{name}' panicked at {place}:\n{}", cut(&message(info.payload())));
            // Like the standard library's own hook, if RUST_BACKTRACE asks for a backtrace.
            let backtrace = Backtrace::capture();
            if backtrace.status() == BacktraceStatus::Captured {
                eprintln!("{backtrace}");
            }
        }));
    });
    catch_unwind(AssertUnwindSafe(test)).map_err(|panic| cut(&message(&*panic)).into())
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

fn cut(message: &str) -> String {
    if message.len() <= 2 * KEPT {
        return message.to_owned();
    }
    let head = &message[..message.floor_char_boundary(KEPT)];
    let tail = &message[message.ceil_char_boundary(message.len() - KEPT)..];
    format!("{head}\n[... the message is {} bytes long ...]\n{tail}", message.len())
}
