// Turns values and errors into protocol messages. Values may be hostile: getters that throw, proxies, `inspect`
// methods that fail.
import { inspect, types } from 'node:util';

import { limitBehind } from './causes.mjs';

// User code may declare globals that hide these, and overwrite their members.
const { ArrayBuffer, Buffer, Error, Object, String } = globalThis;
const { stringify } = globalThis.JSON;

/** Encodes a message as one line of JSON. Lone surrogates, which UTF-8 lacks, become replacement characters. */
export function encode(message) {
  const json = stringify(message);
  if (!json.includes('\\ud')) return `${json}\n`;
  return `${json.replace(/\\(?:(ud[89a-f][0-9a-f]{2})|.)/g, (escape, lone) => (lone ? '\ufffd' : escape))}\n`;
}

/**
 * The value as Node's REPL prints it, with a far higher limit for strings, because the agent truncates large output.
 */
export function show(value) {
  try {
    return inspect(value, { showProxy: true, maxStringLength: 10_000_000 });
  } catch (error) {
    return `[${typeof value} that cannot be inspected: ${messageOf(error)}]`;
  }
}

/** Makes a bundle of representations by mime type. There is always a text; bytes become base64. */
export function bundle(representations) {
  const data = {};
  for (const [mime, value] of Object.entries(representations)) {
    if (mime === 'application/json') data[mime] = value;
    else if (ArrayBuffer.isView(value)) data[mime] = Buffer.from(value).toString('base64');
    else data[mime] = String(value);
  }
  data['text/plain'] ??= `[${Object.keys(data).join(', ')}]`;
  return data;
}

/** The members of the `done` message for code that threw `thrown`. */
export function failure(thrown) {
  if (!isError(thrown)) {
    const value = show(thrown);
    return { error: { name: typeof thrown, value, traceback: `Uncaught ${value}` } };
  }
  const error = { name: nameOf(thrown), value: messageOf(thrown), traceback: traceOf(thrown) };
  const cause = limitBehind(thrown);
  return { error, ...(cause && { cause }) };
}

function isError(value) {
  try {
    return types.isNativeError(value) || value instanceof Error;
  } catch {
    return false;
  }
}

/** The error as Node prints it, but without the brackets around an error without frames. */
function traceOf(error) {
  const text = show(error);
  const bracketed = /^\[([^]*)\]( \{\n[^]*\n\})?$/.exec(text);
  return bracketed ? bracketed[1] + (bracketed[2] ?? '') : text;
}

/** The error's own name, or the name of its class if the class did not set one. */
function nameOf(error) {
  try {
    const name = String(error.name);
    return (name === 'Error' && error.constructor?.name) || name;
  } catch {
    return 'Error';
  }
}

function messageOf(error) {
  try {
    return String(error.message);
  } catch {
    return '';
  }
}
