// Tracks the execution to which each callback and promise belongs, and ends the ones that an interrupted execution
// leaves behind: waiting code cannot be stopped, and would go on in the middle of a later execution.
import { AsyncLocalStorage, createHook, executionAsyncResource } from 'node:async_hooks';

const owners = new AsyncLocalStorage();
const run = owners.run.bind(owners);
const owner = owners.getStore.bind(owners);

/**
 * Calls `code` for `execution`, an object. Callbacks and promises that the code starts belong to the same execution.
 */
export function runAs(execution, code) {
  return run(execution, code);
}

/** Whether the running code belongs to an execution that was interrupted. */
export function isAbandoned() {
  return owner()?.isAbandoned === true;
}

/**
 * Ends an interrupted execution: none of its timers fires again, and output and errors of its other callbacks, which
 * wait for a file or a connection, are discarded.
 */
export function abandon(execution) {
  execution.isAbandoned = true;
  // The hook makes each `await` slower, so it is only enabled when it is needed.
  hook.enable();
}

const hook = createHook({
  before() {
    if (!isAbandoned()) return;
    // Node looks up the callback after this hook. An interval without `_repeat` does not fire again.
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
