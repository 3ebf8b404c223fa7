// Gives the code a file, `main.js` or `main.ts` in the current directory, as if Node had been started with it. All that
// names the file agrees with it. The file itself is written for code that names it, such as code that starts workers.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire, isBuiltin, Module } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { Map, Object, process, URL, globalThis: global } = globalThis;

/** Matches code that may use its own file; not code that only uses its directory, or the arguments after the file. */
const NAMES_ITS_FILE = new RegExp(
  [
    /\b(?:__filename|mainModule|cluster)\b/,
    /\b(?:main|module)\s*\??\.\s*(?:filename|id)\b/,
    /\bimport\s*\.\s*meta\b(?!\s*\.\s*(?:dirname|main|resolve)\b)/,
    /\bargv\b(?!\s*(?:\[\s*[02-9]|\.\s*(?:length\b|slice\s*\(\s*[2-9])))/,
  ]
    .map(({ source }) => source)
    .join('|'),
);

/** For each file written here, its content. */
const written = new Map();

let [directory, current] = [];

/**
 * Makes the code the main module of the current directory. The name of its file is one that no other file there has.
 */
export function enterFile(code, extension) {
  const namesItsFile = NAMES_ITS_FILE.test(code);
  if (!namesItsFile && directory === process.cwd()) return;
  directory = process.cwd();
  const file = findName(extension);
  if (file !== current) define(file);
  if (!namesItsFile) return;
  try {
    writeFileSync(file, code);
    written.set(file, code);
    Module._cache[file] = global.module;
  } catch {
    // The directory is read-only or full. Code that only prints the name does not need the file.
  }
}

function findName(extension) {
  for (let number = 1; ; number++) {
    const file = join(directory, `main${number > 1 ? number : ''}${extension}`);
    if (!existsSync(file) || isOwn(file)) return file;
  }
}

/** Whether a file is as it was written here: by an earlier execution. */
function isOwn(file) {
  try {
    return written.has(file) && readFileSync(file, 'utf8') === written.get(file);
  } catch {
    return false;
  }
}

/** Defines `require`, `module`, `__filename` and the like; `import_meta` is what `import.meta` becomes. */
function define(file) {
  current = file;
  const module = new Module('.', null);
  Object.assign(module, { filename: file, path: directory, paths: Module._nodeModulePaths(directory) });
  const require = Object.assign(createRequire(file), { main: module });
  const { href: url } = pathToFileURL(file);
  const resolve = (specifier) => resolveFrom(url, require, specifier);
  const import_meta = Object.assign(Object.create(null), { dirname: directory, filename: file, main: true, resolve, url });
  const locals = { module, exports: module.exports, require, __filename: file, __dirname: directory, import_meta };
  for (const [name, value] of Object.entries(locals)) {
    Object.defineProperty(global, name, { value, configurable: true, writable: true });
  }
  process.argv = [process.execPath, file];
  process.mainModule = module;
}

/** `import.meta.resolve`: Node's own is there for real modules only. */
function resolveFrom(url, require, specifier) {
  if (isBuiltin(specifier)) return specifier.startsWith('node:') ? specifier : `node:${specifier}`;
  if (/^\.{0,2}\//.test(specifier)) return new URL(specifier, url).href;
  if (URL.canParse(specifier)) return new URL(specifier).href;
  return pathToFileURL(require.resolve(specifier)).href;
}
