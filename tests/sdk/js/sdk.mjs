// One interface to all versions of the SDK. Skips the tests that do not apply to a version or a way, by `methods.json`
// alone.

import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import * as e2b from 'e2b'
import { Sandbox } from '@e2b/code-interpreter'

const here = import.meta.dirname ?? dirname(new URL(import.meta.url).pathname)
const require = createRequire(import.meta.url)
const home = (name) => {
  const main = require.resolve(name)
  return main.slice(0, main.lastIndexOf(`node_modules/${name}/`) + `node_modules/${name}/`.length)
}
const installed = (name) => JSON.parse(readFileSync(join(home(name), 'package.json'), 'utf8')).version

// A package's TypeScript declarations, which unlike its JavaScript mark private members.
export const declarations = (name) => readFileSync(join(home(name), 'dist', 'index.d.ts'), 'utf8')

export const CORE = installed('e2b')
export const INTERPRETER = installed('@e2b/code-interpreter')
// In debug mode no version creates a sandbox: all requests are about one shared sandbox.
export const WAY = process.env.E2B_DEBUG?.toLowerCase() === 'true' ? 'shared' : process.env.E2B_API_URL ? 'url' : 'domain'
export const METHODS = JSON.parse(readFileSync(join(here, '..', 'methods.json'), 'utf8'))

const before = (one, other) => {
  const [a, b] = [one, other].map((version) => version.split('.').map(Number))
  const at = a.findIndex((part, index) => part !== b[index])
  return at >= 0 && a[at] < b[at]
}

// Whether this version of the SDK has a method, according to `methods.json`.
export const has = (method) => {
  const row = METHODS[method]
  if (!row) throw new Error(`${method} is not in methods.json`)
  const own = row.package === 'interpreter' ? INTERPRETER : CORE
  return row.js !== undefined && !before(own, row.js) && !(row.js_until && !before(own, row.js_until))
}

const offered = (name) =>
  name === name.toUpperCase()
    ? name in process.env
    : has(name) && !METHODS[name].refused && (METHODS[name].ways ?? [WAY]).includes(WAY)

// Whether oncebox must refuse a method that it does not offer; another server may offer it.
export const refused = (name) =>
  has(name) && METHODS[name].refused && 'SDK_OWN_SERVER' in process.env && (METHODS[name].ways ?? [WAY]).includes(WAY)

// Whether a test is skipped in a further version or way: one test for each method in each file is enough there, because
// another run has all tests.
const seen = new Set()
const isThinned = (methods) => {
  const isNew = methods.some((method) => !seen.has(method))
  methods.forEach((method) => seen.add(method))
  return 'SDK_THIN' in process.env && !isNew
}

// Defines a test of these methods; `needs` are the others that it calls. The reporter counts the tests that are left
// out.
export const check = (title, methods, body, needs = []) => {
  const names = `${title} ${JSON.stringify(methods)}`
  if (![...methods, ...needs].every(offered) || isThinned(methods)) return test(`left out: ${names}`, () => {})
  test(names, body)
}

// Creates a sandbox that ends with its test. Every test takes less than the default timeout.
export const create = async (t, { template, ...options } = {}) => {
  if (WAY === 'shared') {
    const unsent = Object.keys(options).filter((name) => name !== 'timeoutMs')
    if (template || unsent.length) throw new Error('the SDK does not send these options: the test needs sandbox.create')
    if (t) await discard()
  }
  const allOptions = { timeoutMs: 120_000, ...options }
  const sandbox = await (template ? Sandbox.create(template, allOptions) : Sandbox.create(allOptions))
  t?.after(() => discard(sandbox))
  return sandbox
}

// Ends a sandbox, which may have ended already. In debug mode the SDK's `kill` does nothing, so this calls the API
// itself and ends every sandbox, because no other suite uses this server.
export const discard = async (sandbox) => {
  if (WAY !== 'shared') return Sandbox.kill(sandbox.sandboxId)
  const headers = { 'X-API-Key': process.env.E2B_API_KEY }
  for (const { sandboxID } of await (await fetch('http://localhost:3000/v2/sandboxes', { headers })).json())
    await fetch(`http://localhost:3000/sandboxes/${sandboxID}`, { method: 'DELETE', headers })
}

// All sandboxes that match, from every page. Up to 1.x there is one page.
export const listed = async (query = {}, options = {}) => {
  const pages = await Sandbox.list({ query, ...options })
  if (Array.isArray(pages)) return pages
  const found = []
  while (pages.hasNext) found.push(...(await pages.nextItems()))
  return found
}

export const until = async (seconds, holds) => {
  const end = Date.now() + seconds * 1000
  while (!(await holds())) {
    if (Date.now() > end) throw new Error('did not come true in time')
    await sleep(0.1)
  }
}

export const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000))

// Versions throw different classes for an unknown sandbox, but the message always has the status.
export const gone = (error) => error instanceof e2b.SandboxError && /404|not found|doesn't exist/.test(error.message)

export { e2b, Sandbox }
