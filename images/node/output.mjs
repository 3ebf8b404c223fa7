// Makes `process.stdout` and `process.stderr` write at once and whole, and keeps what an interrupted execution still
// writes from the next one.
//
// Node's own streams hand what they write to the event loop. A child process would overtake, process.exit() would lose the
// rest, and an interrupt that strikes meanwhile would leave a stream that waits for a write, or hears of one too late.
import { writeSync } from 'node:fs';
import { Writable } from 'node:stream';

import { isAbandoned } from './owner.mjs';

const { Atomics, Buffer, Int32Array, process, SharedArrayBuffer } = globalThis;
const { concat, from } = Buffer;
const { wait } = Atomics;

const streams = [process.stdout, process.stderr];
const pause = new Int32Array(new SharedArrayBuffer(4));

for (const [index, stream] of streams.entries()) {
  const fd = index + 1;
  stream._handle?.setBlocking(true);
  stream._write = (chunk, encoding, callback) => callback(tryWrite(fd, bytes({ chunk, encoding })));
  stream._writev = (pieces, callback) => callback(tryWrite(fd, concat(pieces.map(bytes))));
}

/** Forgets writes that were broken off: for their stream they never end, and it would keep all that follows. */
export function mendStreams() {
  for (const stream of streams) {
    if (!stream.writable) continue; // the user has ended it
    const { highWaterMark } = stream._writableState;
    const options = { highWaterMark, decodeStrings: false, emitClose: false }; // as Node's sockets have them
    stream._writableState = new Writable.WritableState(options, stream, true);
  }
}

function bytes({ chunk, encoding }) {
  return typeof chunk === 'string' ? from(chunk, encoding) : chunk;
}

/** Returns the error, if there is one. */
function tryWrite(fd, data) {
  if (isAbandoned()) return null;
  for (let written = 0; written < data.length; ) {
    try {
      written += writeSync(fd, data, written);
    } catch (error) {
      if (error.code !== 'EAGAIN') return error;
      wait(pause, 0, 0, 1); // a child process has made the pipe, which it shares, one that does not wait
    }
  }
  return null;
}
