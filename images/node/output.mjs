// Makes `process.stdout` and `process.stderr` write at once and completely, and discards late output of an interrupted
// execution, so that it does not appear in the next one.
//
// Node's own streams write from the event loop. The output of a child process could overtake theirs, process.exit()
// would lose the rest, and an interrupt during a write would leave a stream that never learns that the write is over.
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

/** Resets streams after interrupted writes: a stream would wait for such a write forever, and buffer all later ones. */
export function mendStreams() {
  for (const stream of streams) {
    if (!stream.writable) continue; // ended by the user
    const { highWaterMark } = stream._writableState;
    const options = { highWaterMark, decodeStrings: false, emitClose: false }; // as in Node's sockets
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
      wait(pause, 0, 0, 1); // a child process has made the shared pipe non-blocking
    }
  }
  return null;
}
