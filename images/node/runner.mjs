// Runs JavaScript for the agent: one JSON line in, result lines and one done line out.
//
// An optional argument names a module whose `transpile` turns another language into JavaScript.
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

const transpile = process.argv[2] && (await import(process.argv[2])).transpile;
const { RUNNER_IN, RUNNER_OUT } = process.env;
delete process.env.RUNNER_IN;
delete process.env.RUNNER_OUT;

const input = new Socket({ fd: openSync(RUNNER_IN, 'r'), readable: true, writable: false });
const replies = openSync(RUNNER_OUT, 'w');
let output = openSync('/dev/null', 'w'); // until the warm-up is over

/** Leaves nothing behind: no variable, and no output, which goes to a stream of its own. */
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

/** What Node says of a script that was interrupted. */
const INTERRUPTED = 'Script execution was interrupted by `SIGINT`';

/** The execution under way: `fail(error)` ends it, `drained()` says that the event loop has nothing left to do. */
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
    heard: false,
    fail: failed.reject,
    drained: () => (isSettled ? drained.resolve() : failed.reject(unsettled())),
  };
  // A signal that the loop finds together with the request came too late for the last one.
  setImmediate(() => {
    own.heard = true;
  });
  const outer = enterEnvironment(env ?? {});
  input.unref(); // only what the user started keeps the event loop going
  let done = {};
  try {
    if (cwd) process.chdir(cwd);
    const { value } = await race([runAs(own, () => evaluate(code, `[eval${++count}]`, transpile)), failed.promise]);
    isSettled = true;
    if (value !== undefined) result({ 'text/plain': show(value) }, true);
    // A notebook leaves one turn of the loop, in which rejections that are there already are reported.
    if (mode === 'notebook') setImmediate(drained.resolve);
    await race([drained.promise, failed.promise]);
    if (process.exitCode !== undefined) done.exit_code = Number(process.exitCode);
  } catch (error) {
    done = failure(error);
    const isInterrupted = done.error.value === INTERRUPTED;
    if (isInterrupted) {
      abandon(own);
      mendStreams();
    }
    if (isInterrupted || isOfInterruptedChild(error)) absorbInterrupt();
  }
  process.exitCode = undefined;
  enterEnvironment(outer);
  running = null;
  input.ref();
  send({ done });
}

/** Sets the variables and returns what undoes it; undefined stands for a variable that was not set. */
function enterEnvironment(variables) {
  const outer = {};
  for (const [name, value] of entries(variables)) {
    outer[name] = process.env[name];
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  return outer;
}

/** Whether a child that the code waited for was interrupted, perhaps just before the code. */
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

/** An error that has no place in the user's code. */
function bare(message) {
  const error = new Error(message);
  error.stack = `Error: ${message}`;
  return error;
}

// A program that waits for nothing any more ends here; ours goes on, because its input counts again.
process.on('beforeExit', () => {
  input.ref();
  running?.drained();
});

// Code that is not waiting is interrupted by the script's own `breakOnSigint`.
process.on('SIGINT', () => {
  if (running?.heard) running.fail(interrupted());
});

process.setUncaughtExceptionCaptureCallback((error) => {
  if (isAbandoned()) return;
  if (process.emit('uncaughtException', error, 'uncaughtException')) return; // the user's own handler
  if (running) running.fail(error);
  else writeSync(2, `Uncaught ${show(error)}\n`);
});

/** Whether there is an execution for what is displayed now. */
function isHeard() {
  return running && !isAbandoned();
}

/** Shows a value beside the result; `display.mime({ 'text/html': … })` shows it in representations of one's own. */
function display(value) {
  if (isHeard()) result({ 'text/plain': show(value) }, false);
}
display.mime = (representations) => {
  if (isHeard()) result(bundle(representations), false);
};
Object.defineProperty(globalThis, 'display', { value: display, configurable: true, writable: true });

/** What notebooks for JavaScript offer: `$$.html('<b>…')` is the result, as the last expression's value would be. */
const $$ = { mime: (representations) => void (isHeard() && result(bundle(representations), true)) };
for (const [name, type] of entries(TYPES)) $$[name] = (data) => $$.mime({ [type]: data });
Object.defineProperty(globalThis, '$$', { value: $$, configurable: true, writable: true, enumerable: false });

/** Runs what a first execution would otherwise be the first to run. */
async function warmUp() {
  const { emitWarning } = process;
  process.emitWarning = () => {}; // Node warns once that the loader option of scripts is experimental
  for (const code of WARM_UP) await execute({ code });
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
