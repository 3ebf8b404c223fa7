// Evaluates code as Node's REPL does: as a sloppy-mode script in the global scope, where declarations persist.
import { createRequire, Module } from 'node:module';
import { join } from 'node:path';
import { types } from 'node:util';
import { constants, Script } from 'node:vm';

import { note } from './causes.mjs';
import { rewrite } from './rewrite.mjs';

// User code may declare globals that hide these.
const { Error, Map, Object, SyntaxError, globalThis: global, process } = globalThis;

const DYNAMIC_IMPORT = { importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER };
const OWN_FRAME = /^(node:vm$|node:diagnostics_channel$|node:internal\/|file:\/\/\/opt\/oncebox\/)/;

/** For each script name, a function that maps a position reported by V8 to one in the code as written, or to null. */
const locators = new Map();

/**
 * Runs `code` and resolves to `{ value }`, the value of the last expression, awaited if it is a promise. The object
 * around it keeps `await` from treating a value with a method `then` as a promise.
 *
 * `transpile(code, name)`, if given, turns the code into JavaScript first and returns `{ code, locate }`.
 */
export async function evaluate(code, name, transpile) {
  enterDirectory();
  const { script, isAsync } = compile(code, name, transpile);
  let value = script.runInThisContext({ breakOnSigint: true, displayErrors: false });
  if (isAsync) value = (await value)?.value;
  return { value: types.isPromise(value) ? await value : value };
}

const PAUSE = new Script('Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)');

/**
 * Absorbs an interrupt that arrived just when its script ended. Node delivers such an interrupt to the next
 * interruptible script: here to one that does nothing for 50 ms.
 */
export function absorbInterrupt() {
  try {
    PAUSE.runInThisContext({ breakOnSigint: true, displayErrors: false });
  } catch {
    // The interrupt is absorbed.
  }
}

/** Forgets the names of all scripts, so that they can be used again. */
export function forget() {
  locators.clear();
}

function compile(code, name, transpile) {
  if (/^\s*\{/.test(code) && !/;\s*$/.test(code)) {
    try {
      return compileAs(`(${code}\n)`, name, transpile); // an object literal, which would be a block
    } catch {
      // The code is a block.
    }
  }
  return compileAs(code, name, transpile);
}

function compileAs(written, name, transpile) {
  const { code, locate } = transpile?.(written, name) ?? { code: written, locate: (...place) => place };
  const options = { filename: name, ...DYNAMIC_IMPORT };
  const rewritten = /\b(?:await|import|export)\b/.test(code) ? tryRewrite(code, name, !transpile) : null;
  locators.set(name, (line, column) => {
    const place = rewritten ? rewritten.locate(line, column) : [line, column];
    return place && locate(...place);
  });
  if (!rewritten) return { script: new Script(code, options), isAsync: false };
  try {
    return { script: new Script(rewritten.code, options), isAsync: true };
  } catch (error) {
    error.stack = `${error.name}: ${error.message}`; // V8's stack quotes the rewritten line, which would only confuse
    throw error;
  }
}

function tryRewrite(code, name, strictImports) {
  const filename = join(process.cwd(), '[eval]');
  const meta = { dirname: process.cwd(), filename, main: true, url: `file://${filename}` };
  try {
    return rewrite(code, { meta, strictImports });
  } catch (error) {
    if (!error.loc) throw error; // not a syntax error: the code has broken built-ins that the parser uses
    try {
      new Script(code); // V8 may know syntax that the parser does not know yet.
    } catch {
      throw syntaxError(code, name, error);
    }
    return null;
  }
}

/** The parser's error in V8's format: the line, and a caret below the position. */
function syntaxError(code, name, { message, loc }) {
  const error = new SyntaxError(message.replace(/ \(\d+:\d+\)$/, ''));
  const line = code.split('\n')[loc.line - 1];
  error.stack = `${name}:${loc.line}\n${line}\n${' '.repeat(loc.column)}^\n\n${error.name}: ${error.message}`;
  return error;
}

let directory;

/** Defines `require`, `module`, `__filename` and the like as in a main module in the current directory. */
function enterDirectory() {
  if (directory === process.cwd()) return;
  directory = process.cwd();
  const filename = join(directory, '[eval]');
  const module = Object.assign(new Module(filename), { filename, paths: Module._nodeModulePaths(directory) });
  const require = Object.assign(createRequire(filename), { main: module });
  const locals = { module, exports: module.exports, require, __filename: filename, __dirname: directory };
  for (const [name, value] of Object.entries(locals)) {
    Object.defineProperty(global, name, { value, configurable: true, writable: true });
  }
  process.argv = [process.execPath, filename];
}

// Stack traces, printed ones too, show only the user's frames, at their positions in the code as written.
const format = Error.prepareStackTrace;
Error.prepareStackTrace = (error, frames) => {
  note(error, frames);
  return format(error, frames.filter(isForeign).map(describeFrame).filter(Boolean));
};

function isForeign(frame) {
  return !OWN_FRAME.test(frame.getFileName() ?? '');
}

function describeFrame(frame) {
  const locate = locators.get(frame.getFileName());
  if (!locate) return frame;
  const place = locate(frame.getLineNumber(), frame.getColumnNumber());
  if (!place) return null; // the runner's call of the function that it made of the code
  const [line, column] = place;
  return frame.toString().replace(/:\d+:\d+(\)?)$/, `:${line}:${column}$1`);
}
