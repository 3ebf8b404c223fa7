// Evaluates code as Node's REPL does: as a sloppy-mode script in the global scope, where declarations persist. What a
// script cannot contain is rewritten.
import { findSourceMap } from 'node:module';
import { types } from 'node:util';
import { constants, Script } from 'node:vm';

import { note } from './causes.mjs';
import { enterFile } from './file.mjs';
import { rewrite } from './rewrite.mjs';

// User code may declare globals that hide these.
const { Error, Map, Promise, setImmediate, SyntaxError } = globalThis;
const now = performance.now.bind(performance);

const DYNAMIC_IMPORT = { importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER };
const OWN_FRAME = /^(node:vm$|node:diagnostics_channel$|node:internal\/|(file:\/\/)?\/opt\/oncebox\/)/;

/** For each script name, a function that maps a position reported by V8 to one in the code as written, or to null. */
const locators = new Map();

/** Matches code that may show in which order the event loop runs what it defers. */
const DEFERS = /\b(?:nextTick|setImmediate)\b/;

/** Matches code that may need to be rewritten. */
const MAY_NEED_REWRITING = /\b(?:await|import|export|using)\b/;

/**
 * Match files whose `this`, and whose variables, may show that they are run as a script. The parser is slow at first, so
 * these look at the start of lines only, where files have their top level.
 */
const MAY_USE_OWN_THIS = /^(?!\s)[^{\n]*\bthis\b/m;
const HAS_VARIABLES = /^var\b/m;
const MAY_USE_GLOBAL_OBJECT = /\b(?:this|global|globalThis)\b/;

/**
 * Runs `code` and resolves to `{ value }`, the value of the last expression, awaited if it is a promise. The object
 * around it keeps `await` from treating a value with a method `then` as a promise.
 *
 * With `persist`, declarations remain for later executions. `language`, if given, has `transpile(code, name)`, which turns
 * the code into JavaScript first and returns `{ code, locate, using }`, and the `extension` of its files.
 */
export async function evaluate(code, name, { persist, language }) {
  const start = now();
  enterFile(code, language?.extension ?? '.js');
  const { script, isFunction, isAsync } = compile(code, name, persist, language?.transpile);
  const run = () => script.runInThisContext({ breakOnSigint: true, displayErrors: false });
  let { value } = !isAsync && DEFERS.test(code) ? await inOwnTask(run, start + 1) : { value: run() };
  if (isFunction) value = (await value)?.value;
  return { value: types.isPromise(value) ? await value : value };
}

/**
 * Calls a function in a task of its own, as Node runs a file that is not a module: what it defers by `process.nextTick`
 * comes before its promises. The task does not end before `end`, when a timer of no time is due, which then comes before
 * what `setImmediate` defers: where Node itself starts, that time has always passed.
 */
function inOwnTask(run, end) {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve({ value: run() });
      } catch (error) {
        reject(error);
      }
      while (now() < end);
    });
  });
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

function compile(code, name, persist, transpile) {
  if (/^\s*\{/.test(code) && !/;\s*$/.test(code)) {
    try {
      return compileAs(`(${code}\n)`, name, persist, transpile); // an object literal, which would be a block
    } catch {
      // The code is a block.
    }
  }
  return compileAs(code, name, persist, transpile);
}

function compileAs(written, name, persist, transpile) {
  const { code, locate, using } = transpile?.(written, name) ?? { code: written, locate: (...place) => place };
  const options = { filename: name, ...DYNAMIC_IMPORT };
  const settings = { persist, strictImports: !transpile, using };
  let rewritten = using?.size || mayNeedRewriting(code, persist) ? tryRewrite(code, name, settings) : null;
  locators.set(name, (line, column) => {
    const place = rewritten ? rewritten.locate(line, column) : [line, column];
    return place && locate(...place);
  });
  if (!rewritten) {
    try {
      return { script: new Script(code, options), isFunction: false, isAsync: false };
    } catch (error) {
      if (persist || error.message !== 'Illegal return statement') throw error;
      rewritten = tryRewrite(code, name, settings);
    }
  }
  try {
    const { isFunction, isAsync } = rewritten;
    return { script: new Script(rewritten.code, options), isFunction, isAsync };
  } catch (error) {
    throw unquoted(error, name, written, locate);
  }
}

function mayNeedRewriting(code, persist) {
  if (MAY_NEED_REWRITING.test(code)) return true;
  if (persist) return false;
  return MAY_USE_OWN_THIS.test(code) || (HAS_VARIABLES.test(code) && MAY_USE_GLOBAL_OBJECT.test(code));
}

function tryRewrite(code, name, settings) {
  try {
    return rewrite(code, settings);
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

/** V8's error for rewritten code, with the line as written in place of the rewritten one. */
function unquoted(error, name, written, locate) {
  const rewrittenLine = Number(/^.*:(\d+)\n/.exec(error.stack)?.[1]);
  const [line] = locate(rewrittenLine, 1) ?? [];
  const quoted = written.split('\n')[line - 1];
  const place = quoted === undefined ? '' : `${name}:${line}\n${quoted}\n\n`;
  error.stack = `${place}${error.name}: ${error.message}`;
  return error;
}

/** The parser's error in V8's format: the line, and a caret below the position. */
function syntaxError(code, name, { message, loc }) {
  const error = new SyntaxError(message.replace(/ \(\d+:\d+\)$/, ''));
  const line = code.split('\n')[loc.line - 1];
  error.stack = `${name}:${loc.line}\n${line}\n${' '.repeat(loc.column)}^\n\n${error.name}: ${error.message}`;
  return error;
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
  const locate = locators.get(frame.getFileName()) ?? sourceLocator(frame.getFileName());
  if (!locate) return frame;
  const place = locate(frame.getLineNumber(), frame.getColumnNumber());
  if (!place) return null; // the runner's call of the function that it made of the code
  const [line, column] = place;
  return frame.toString().replace(/:\d+:\d+(\)?)$/, `:${line}:${column}$1`);
}

/** A locator for a file that was transpiled when it was imported. */
function sourceLocator(file) {
  const map = findSourceMap(file ?? '');
  return map && ((line, column) => {
    const { originalLine, originalColumn } = map.findEntry(line - 1, column - 1);
    return originalLine === undefined ? [line, column] : [originalLine + 1, originalColumn + 1];
  });
}
