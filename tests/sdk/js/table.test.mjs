// `methods.json` says the truth: a method is left out because this version does not have it, and for no other reason.

import assert from 'node:assert/strict'
import { check, CORE, create, has, INTERPRETER, METHODS, Sandbox, WAY } from './sdk.mjs'

console.log(`sdk ${JSON.stringify({ version: CORE, interpreter: INTERPRETER, way: WAY })}`)

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
// TypeScript's private methods, which JavaScript cannot tell from others.
const HIDDEN = /^(constructor|length|name|prototype|jupyterUrl|getJupyterRequestUrl|includeDiagnostics|handleRequestError|fileUrl)$|^(default|resolve|timeoutTo|bound)|(create|fork|connect)Sandbox$/

const methods = (...objects) => {
  const names = new Set()
  for (let object of objects)
    for (; object && object !== Object.prototype && object !== Function.prototype; object = Object.getPrototypeOf(object))
      Object.getOwnPropertyNames(object).filter((name) => !HIDDEN.test(name)).forEach((name) => names.add(name))
  return [...names].map(snake)
}

check('the table names exactly the methods of this version', ['sandbox.create'], async (t) => {
  const sandbox = await create(t)
  const parts = ['files', 'commands', 'pty']
  const there = methods(Sandbox, Sandbox.prototype).map((name) => `sandbox.${name}`)
  for (const part of parts) {
    const prototype = Object.getPrototypeOf(sandbox[part])
    const own = methods(prototype).filter((name) => !/^(start|create_connect_transport|connect_.*|check_.*|supports_.*|watch_.*_internal)$/.test(name))
    there.push(...own.map((name) => `${part}.${name}`))
  }
  const rows = Object.keys(METHODS).filter((name) => ['sandbox', ...parts].includes(name.split('.')[0]) && !name.includes('(') && has(name))
  assert.deepEqual([...new Set(there)].sort(), rows.sort())
})

check('what is not offered is refused with its name', ['sandbox.create'], async (t) => {
  const sandbox = await create(t)
  const calls = {
    'sandbox.create_snapshot': () => sandbox.createSnapshot(),
    'sandbox.list_snapshots': () => sandbox.listSnapshots().nextItems(),
    'sandbox.delete_snapshot': () => Sandbox.deleteSnapshot('nothing'),
    'sandbox.fork': () => sandbox.fork(),
    'sandbox.get_mcp_token': () => Sandbox.create('code-interpreter-v1', { mcp: { time: {} } }),
  }
  const refused = Object.keys(METHODS).filter((name) => METHODS[name].refused && METHODS[name].js)
  assert.deepEqual(refused.sort(), Object.keys(calls).sort())
  for (const name of refused.filter(has)) await assert.rejects(calls[name], /501.*is not offered here/, name)
})
