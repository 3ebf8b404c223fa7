// Runs JavaScript for the agent: reads a JSON line per request, and answers with `result` lines and one `done` line.
//
// An optional argument names a module of another language: its `transpile` turns code into JavaScript.
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';

import { absorbInterrupt, evaluate, forget } from './evaluate.mjs';
import { abandon, isAbandoned, runAs } from './owner.mjs';
import { mendStreams } from './output.mjs';
import { bundle, encode, failure, show } from './report.mjs';

// User code may declare globals that hide these, and overwrite their members.
const { Error, Object, Promise, process, setImmediate } = globalThis;
const { parse } = globalThis.JSON;
const { entries } = Object;
const { concat } = globalThis.Buffer;
const race = Promise.race.bind(Promise);
const withResolvers = Promise.withResolvers.bind(Promise);

const language = process.argv[2] && (await import(process.argv[2]));
const { RUNNER_IN, RUNNER_OUT } = process.env;
delete process.env.RUNNER_IN;
delete process.env.RUNNER_OUT;

const input = new Socket({ fd: openSync(RUNNER_IN, 'r'), readable: true, writable: false });
const replies = openSync(RUNNER_OUT, 'w');
let output = openSync('/dev/null', 'w'); // until the warm-up is over

/** Examples that leave no variable and no output behind; they print to a stream of their own. */
const WARM_UP = [
  '{ number: 1 + 1, list: ["a"], map: new Map() }',
  `import "node:path";
   { const one = await 1; class One {} }
   for (let i = 0; i < 1; i++) ((a) => a)(i);
   await Promise.resolve({ value: "warm" })`,
  'throw new Error("warm")',
  `{ const { Console, PassThrough } = { ...require("node:console"), ...require("node:stream") };
     new Console(new PassThrough()).log("%s", "warm", { list: [1] }, [1.5]);
     process.stdout.write("");
     display(1) };`,
];

/** The kinds of `$$`. */
const TYPES = {
  text: 'text/plain', html: 'text/html', svg: 'image/svg+xml', png: 'image/png', jpeg: 'image/jpeg',
};

/** Node's message for a script that was interrupted. */
const INTERRUPTED = 'Script execution was interrupted by `SIGINT`';

// Kept, because the code may change `process`.
const exitProcess = process.reallyExit.bind(process);
const activeResources = process.getActiveResourcesInfo.bind(process);

/** The running execution: `fail(error)` ends it; `drained()` reports that the event loop has nothing left to do. */
let running = null;
let count = 0;

function send(message) {
  writeFileSync(output, encode(message));
}

function result(data, main) {
  send({ result: { data, main } });
}

async function execute({ code, env, cwd, mode }) {
  const failed = withResolvers();
  const drained = withResolvers();
  let isSettled = false;
  const own = running = {
    interruptible: false,
    fail: failed.reject,
    drained: () => (isSettled ? drained.resolve() : failed.reject(unsettled())),
  };
  // A signal that the event loop sees together with the request was meant for the execution before, and came too late.
  setImmediate(() => {
    own.interruptible = true;
  });
  const outer = enterEnvironment(env ?? {});
  input.unref(); // only the user's own handles keep the event loop running
  let done = {};
  let isInterrupted = false;
  try {
    if (cwd) process.chdir(cwd);
    const settings = { persist: mode === 'notebook', language };
    const { value } = await race([runAs(own, () => evaluate(code, `[eval${++count}]`, settings)), failed.promise]);
    isSettled = true;
    if (value !== undefined) result({ 'text/plain': show(value) }, true);
    // A notebook waits for one turn of the event loop, in which existing rejections are reported.
    if (mode === 'notebook') setImmediate(drained.resolve);
    await race([drained.promise, failed.promise]);
    if (process.exitCode !== undefined) done.exit_code = Number(process.exitCode);
  } catch (error) {
    done = failure(error);
    isInterrupted = done.error.value === INTERRUPTED;
    if (isInterrupted) {
      abandon(own);
      mendStreams();
    }
    if (isInterrupted || isOfInterruptedChild(error)) absorbInterrupt();
  }
  if (mode === 'script' && !isInterrupted) {
    send({ ending: done });
    done = endProgram(done);
  }
  process.exitCode = undefined;
  enterEnvironment(outer);
  running = null;
  input.ref();
  send({ done });
  // The program has ended. The agent starts another process for the next request.
  if (mode === 'script') exitProcess(0);
}

/** Runs the code's exit handlers, as Node does at the end of a program; returns how the code has finished with them. */
function endProgram(done) {
  if (process._exiting) return done;
  process._exiting = true;
  try {
    process.emit('exit', process.exitCode ?? (done.error ? 1 : 0));
  } catch (error) {
    return done.error ? done : failure(error);
  }
  if (done.error || process.exitCode === undefined) return done;
  return { exit_code: Number(process.exitCode) };
}

/** Sets variables and returns their previous values; undefined stands for a variable that was not set. */
function enterEnvironment(variables) {
  const outer = {};
  for (const [name, value] of entries(variables)) {
    outer[name] = process.env[name];
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  return outer;
}

/**
 * Whether the error is about an interrupted child process; the interrupt may still be about to reach the code itself.
 */
function isOfInterruptedChild(error) {
  try {
    return error?.signal === 'SIGINT';
  } catch {
    return false; // user code may throw anything
  }
}

function unsettled() {
  return bare('the code awaits a promise that nothing is left to settle');
}

function interrupted() {
  const error = bare(INTERRUPTED);
  return Object.assign(error, { code: 'ERR_SCRIPT_EXECUTION_INTERRUPTED' });
}

/** An error without a position in the user's code. */
function bare(message) {
  const error = new Error(message);
  error.stack = `Error: ${message}`;
  return error;
}

// The event loop is empty: the code has ended, unless a handler of this event that the code registered starts something.
// The runner goes on, because its input keeps the loop running again.
process.on('beforeExit', () => {
  const before = activeResources().length;
  process.nextTick(() => {
    // What a handler starts may be gone before it keeps the event loop running. The loop then comes here again.
    if (activeResources().length > before) return setImmediate(() => {});
    input.ref();
    running?.drained();
  });
});

// Handles signals while the code waits. Code that is not waiting is interrupted by the script's own `breakOnSigint`.
process.on('SIGINT', () => {
  if (running?.interruptible) running.fail(interrupted());
});

process.setUncaughtExceptionCaptureCallback((error) => {
  if (isAbandoned()) return;
  if (process.emit('uncaughtException', error, 'uncaughtException')) return; // the user's own handler
  if (running) running.fail(error);
  else writeSync(2, `Uncaught ${show(error)}\n`);
});

/** Whether there is a running execution to which displayed values belong. */
function canDisplay() {
  return running && !isAbandoned();
}

/** Shows a value in addition to the result; `display.mime({ 'text/html': … })` shows given representations of it. */
function display(value) {
  if (canDisplay()) result({ 'text/plain': show(value) }, false);
}
display.mime = (representations) => {
  if (canDisplay()) result(bundle(representations), false);
};
Object.defineProperty(globalThis, 'display', { value: display, configurable: true, writable: true });

/** As in JavaScript notebooks: `$$.html('<b>…')` sends a result, as the value of the last expression would be. */
const $$ = { mime: (representations) => void (canDisplay() && result(bundle(representations), true)) };
for (const [name, type] of entries(TYPES)) $$[name] = (data) => $$.mime({ [type]: data });
Object.defineProperty(globalThis, '$$', { value: $$, configurable: true, writable: true, enumerable: false });

/** Runs the examples, so that the first request does not wait for anything to be loaded and compiled. */
async function warmUp() {
  const { emitWarning } = process;
  process.emitWarning = () => {}; // Node warns once that the loader option of scripts is experimental
  for (const code of WARM_UP) await execute({ code, mode: 'warm-up' });
  process.emitWarning = emitWarning;
  forget();
  count = 0;
}

async function* lines(chunks) {
  let rest = [];
  for await (const chunk of chunks) {
    let start = 0;
    for (let end; (end = chunk.indexOf(10, start)) !== -1; start = end + 1) {
      yield concat([...rest, chunk.subarray(start, end)]).toString();
      rest = [];
    }
    rest = [...rest, chunk.subarray(start)];
  }
}

await warmUp();
closeSync(output);
output = replies;
send({ ready: {} });
for await (const line of lines(input)) await execute(parse(line));
process.exit(0);
