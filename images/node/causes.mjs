// Which limit of the sandbox, if any, is behind an error: by where it was made, never by its words alone.
const { String, WeakMap } = globalThis;

/** Whether an error was made in the code's own files, for those whose stack was formatted here. */
const madeByCode = new WeakMap();

/** Looks at the frames of an error before any is left out. */
export function note(error, frames) {
  madeByCode.set(error, frames.length > 0 && !isNative(frames[0]));
}

/** `memory` or `disk`, if the error, or one that it names as its cause, reports that there is no more. */
export function limitBehind(error) {
  try {
    for (let depth = 0; depth < 10 && typeof error === 'object' && error; depth++, error = error.cause) {
      const limit = limitOf(error);
      if (limit && !isMadeByCode(error)) return limit;
    }
  } catch {
    // The user's own, with members that cannot be read.
  }
  return undefined;
}

function limitOf({ name, message, code, errno, syscall }) {
  if (name === 'RangeError' && message === 'Array buffer allocation failed') return 'memory';
  if (code === 'ERR_MEMORY_ALLOCATION_FAILED') return 'memory';
  // The host's watches on files may be used up too.
  const isSystem = typeof errno === 'number' && typeof syscall === 'string' && syscall !== 'watch';
  return isSystem && (code === 'ENOSPC' || code === 'EDQUOT') ? 'disk' : undefined;
}

function isMadeByCode(error) {
  const { stack } = error; // which makes V8 ask for it to be formatted, if nothing has yet
  if (madeByCode.has(error)) return madeByCode.get(error);
  // It comes from another thread, or the user's own function has formatted it. Without frames it comes from the event loop.
  const first = /^ {4}at .*$/m.exec(String(stack))?.[0];
  return first !== undefined && !/\(<anonymous>\)$|[( ]node:/.test(first);
}

/** Whether V8 or Node is at work there; the built-in functions of V8 have no lines. */
function isNative(frame) {
  return frame.getFileName()?.startsWith('node:') ?? frame.getLineNumber() === null;
}
