// Node loads this before the runner, and before the file of a child process or a worker thread: TypeScript files are
// transpiled as the code is. Node itself refuses enums and whatever else is more than types.
'use strict';
const { readFileSync } = require('node:fs');
const { registerHooks } = require('node:module');
const { fileURLToPath } = require('node:url');
const { compileFunction } = require('node:vm');

const NAMES_OF_COMMONJS = ['exports', 'require', 'module', '__filename', '__dirname'];
const FORMATS = { '.cts': 'commonjs', '.mts': 'module' };

registerHooks({
  load(url, context, nextLoad) {
    const extension = /^file:.*(\.[cm]?ts)$/.exec(url)?.[1];
    if (!extension || url.includes('/node_modules/')) return nextLoad(url, context);
    const { transpile } = require('./transpile.mjs');
    process.setSourceMapsEnabled(true);
    const file = fileURLToPath(url);
    const { code, map } = transpile(readFileSync(file, 'utf8'), file, { keepUsing: false });
    const format = FORMATS[extension] ?? context.format?.replace(/-typescript$/, '') ?? formatOf(code);
    const source = `${code}\n//# sourceMappingURL=data:application/json;base64,${btoa(map)}`;
    return { format, source, shortCircuit: true };
  },
});

// After the hook above, so that its own comes first.
require('../javascript/child.cjs');

/** A file without a format of its own is a module if it cannot be CommonJS, as with Node. */
function formatOf(code) {
  try {
    compileFunction(code, NAMES_OF_COMMONJS);
    return 'commonjs';
  } catch {
    return 'module';
  }
}
