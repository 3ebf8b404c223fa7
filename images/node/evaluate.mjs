// Evaluates code the way Node's REPL does: as a sloppy script in the global scope, where declarations persist.
import { createRequire, Module } from 'node:module';
import { join } from 'node:path';
import { types } from 'node:util';
import { constants, Script } from 'node:vm';

import { rewrite } from './rewrite.mjs';

// User code may declare globals that hide these.
const { Error, Map, Object, SyntaxError, globalThis: global, process } = globalThis;

const DYNAMIC_IMPORT = { importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER };
const OWN_FRAME = /^(node:vm$|node:diagnostics_channel$|node:internal\/|file:\/\/\/opt\/oncebox\/)/;

/** Per script name: maps a position that V8 reports to one in the code as written. */
const locators = new Map();

/**
 * Runs `code` and resolves to `{ value }`: that of the last expression, awaited if it is a promise. The object keeps
 * a value that has a method `then` from being taken for a promise.
 *
 * `transpile(code, name)`, if any, turns the code into JavaScript first and returns `{ code, locate }`.
 */
export async function evaluate(code, name, transpile) {
  enterDirectory();
  const source = transpile ? transpile(code, name) : { code, locate: (...position) => position };
  const { script, isAsync } = compile(source, name, { strictImports: !transpile });
  let value = script.runInThisContext({ breakOnSigint: true, displayErrors: false });
  if (isAsync) value = (await value)?.value;
  return { value: types.isPromise(value) ? await value : value };
}

/** Forgets the names of scripts, which then count from the start again. */
export function forget() {
  locators.clear();
}

function compile({ code, locate }, name, { strictImports }) {
  locators.set(name, locate);
  const isolated = { filename: name, ...DYNAMIC_IMPORT };
  // An object literal would be a block.
  if (/^\s*\{/.test(code) && !/;\s*$/.test(code)) {
    try {
      return { script: new Script(`(${code}\n)`, { ...isolated, columnOffset: -1 }), isAsync: false };
    } catch {
      // It is a block.
    }
  }
  const rewritten = /\b(?:await|import|export)\b/.test(code) ? tryRewrite(code, name, strictImports) : null;
  if (!rewritten) return { script: new Script(code, isolated), isAsync: false };
  locators.set(name, (line, column) => locate(...rewritten.locate(line, column)));
  try {
    return { script: new Script(rewritten.code, isolated), isAsync: true };
  } catch (error) {
    // V8 quotes the rewritten line, which would only confuse.
    error.stack = `${error.name}: ${error.message}`;
    throw error;
  }
}

function tryRewrite(code, name, strictImports) {
  const filename = join(process.cwd(), '[eval]');
  const meta = { dirname: process.cwd(), filename, main: true, url: `file://${filename}` };
  try {
    return rewrite(code, { meta, strictImports });
  } catch (error) {
    try {
      new Script(code); // V8 may know syntax that the parser does not know yet.
    } catch {
      throw syntaxError(code, name, error);
    }
    return null;
  }
}

/** The parser's error in the shape of V8's: the line and a caret below the place. */
function syntaxError(code, name, { message, loc }) {
  const error = new SyntaxError(message.replace(/ \(\d+:\d+\)$/, ''));
  const line = code.split('\n')[loc.line - 1];
  error.stack = `${name}:${loc.line}\n${line}\n${' '.repeat(loc.column)}^\n\n${error.name}: ${error.message}`;
  return error;
}

let directory;

/** Makes `require` and its companions those of a main module in the current directory. */
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

// Stack traces, printed ones too, show the user's frames at the places where the user wrote them.
const format = Error.prepareStackTrace;
Error.prepareStackTrace = (error, frames) => format(error, frames.filter(isForeign).map(describeFrame));

function isForeign(frame) {
  return !OWN_FRAME.test(frame.getFileName() ?? '');
}

function describeFrame(frame) {
  const locate = locators.get(frame.getFileName());
  if (!locate) return frame;
  const [line, column] = locate(frame.getLineNumber(), frame.getColumnNumber());
  return frame.toString().replace(/:\d+:\d+(\)?)$/, `:${line}:${column}$1`);
}
