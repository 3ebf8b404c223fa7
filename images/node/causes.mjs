// Finds the limit of the sandbox that caused an error. The message alone never decides: the place of creation counts
// too.
const { String, WeakMap } = globalThis;

/** For each error whose stack was formatted here: whether it was created in the code's own files. */
const madeByCode = new WeakMap();

/** Records where an error was created; takes all its frames, before any is left out. */
export function note(error, frames) {
  madeByCode.set(error, frames.length > 0 && !isNative(frames[0]));
}

/** Returns `memory` or `disk` if the error or one of its causes reports that it is used up. */
export function limitBehind(error) {
  try {
    for (let depth = 0; depth < 10 && typeof error === 'object' && error; depth++, error = error.cause) {
      const limit = limitOf(error);
      if (limit && !isMadeByCode(error)) return limit;
    }
  } catch {
    // The user's own error has members that cannot be read.
  }
  return undefined;
}

function limitOf({ name, message, code, errno, syscall }) {
  if (name === 'RangeError' && message === 'Array buffer allocation failed') return 'memory';
  if (code === 'ERR_MEMORY_ALLOCATION_FAILED') return 'memory';
  // ENOSPC of `watch` is excluded: the host's file watches are used up then, not the disk.
  const isSystem = typeof errno === 'number' && typeof syscall === 'string' && syscall !== 'watch';
  return isSystem && (code === 'ENOSPC' || code === 'EDQUOT') ? 'disk' : undefined;
}

function isMadeByCode(error) {
  const { stack } = error; // makes V8 format the stack, unless it is formatted already
  if (madeByCode.has(error)) return madeByCode.get(error);
  // The error is from another thread, or the user's own function formatted it. Without frames it is from the event
  // loop.
  const first = /^ {4}at .*$/m.exec(String(stack))?.[0];
  return first !== undefined && !/\(<anonymous>\)$|[( ]node:/.test(first);
}

/** Whether a frame belongs to V8 or Node; the built-in functions of V8 have no lines. */
function isNative(frame) {
  return frame.getFileName()?.startsWith('node:') ?? frame.getLineNumber() === null;
}
