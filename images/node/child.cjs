// Node loads this before the file of a child process or a worker thread, which inherit the option that names it.
//
// Code may use `require` and top-level `await` together, in its own file too (file.mjs). There it is a module for Node,
// which lacks the names of CommonJS: here they are global.
'use strict';
const { createRequire, registerHooks } = require('node:module');
const { dirname } = require('node:path');
const { fileURLToPath } = require('node:url');

// The runner is no child: it defines the names for each execution.
if (!process.env.RUNNER_IN) {
  const hooks = registerHooks({
    load(url, context, nextLoad) {
      hooks.deregister(); // the first file is the one that was started
      if (/^file:.*\/main\d*\.[jt]s$/.test(url)) defineNames(fileURLToPath(url));
      return nextLoad(url, context);
    },
  });
}

function defineNames(file) {
  define('require', () => Object.assign(createRequire(file), { main: globalThis.module }));
  define('module', () => new module.constructor('.', null));
  define('exports', () => globalThis.module.exports);
  define('__filename', () => file);
  define('__dirname', () => dirname(file));
}

/** Defines a global whose value is made when it is first read. */
function define(name, make) {
  const set = (value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  const get = () => {
    set(make());
    return globalThis[name];
  };
  Object.defineProperty(globalThis, name, { get, set, configurable: true });
}
