// Knows which execution a callback or a promise belongs to, and ends what an interrupted one has left behind: its code
// cannot be stopped while it waits, and would go on in the midst of a later execution.
import { AsyncLocalStorage, createHook, executionAsyncResource } from 'node:async_hooks';

const owners = new AsyncLocalStorage();
const run = owners.run.bind(owners);
const owner = owners.getStore.bind(owners);

/** Calls `code` for `execution`, an object; what it starts belongs to the same execution. */
export function runAs(execution, code) {
  return run(execution, code);
}

/** Whether what runs now belongs to an execution that was interrupted. */
export function isAbandoned() {
  return owner()?.isAbandoned === true;
}

/**
 * Ends an interrupted execution: none of its timers fires again, and nobody hears of the rest, which is what waits for a
 * file or a connection.
 */
export function abandon(execution) {
  execution.isAbandoned = true;
  // Makes each `await` slower, so it is not there before it is needed.
  hook.enable();
}

const hook = createHook({
  before() {
    if (!isAbandoned()) return;
    // Node looks up the callback after this. An interval without a repetition is over.
    const resource = executionAsyncResource();
    if ('_onTimeout' in resource) {
      resource._onTimeout = nothing;
      resource._repeat = null;
    } else if ('_onImmediate' in resource) {
      resource._onImmediate = nothing;
    }
  },
});

function nothing() {}
