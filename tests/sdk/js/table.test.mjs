// `methods.json` is correct: a method is only skipped because this version does not have it.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { check, CORE, create, declarations, e2b, has, INTERPRETER, listed, METHODS, refused, Sandbox, WAY } from './sdk.mjs'

console.log(`sdk ${JSON.stringify({ version: CORE, interpreter: INTERPRETER, way: WAY })}`)

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

// The public methods of a class, from the declarations of packages.
const methods = (name, packages = ['e2b']) => {
  const found = new Set()
  for (const text of packages.map(declarations)) {
    const body = text.match(new RegExp(`^(?:export )?(?:default |abstract )*(?:declare )?(?:abstract )?class ${name}\\b[^]*?^\\}`, 'm'))?.[0] ?? ''
    // Members have the indentation of the first one; deeper lines belong to their types.
    const indent = body.match(/^ +(?=(?:\/\*\*|private|protected|readonly|static|[a-z]))/m)?.[0]
    for (const [, method] of body.matchAll(new RegExp(`^${indent}(?:static )?(?:async )?([a-zA-Z]\\w*)(?:<[^(]*>)?\\(`, 'gm')))
      if (method !== 'constructor') found.add(snake(method))
  }
  return [...found]
}

check('the table names exactly the methods of this version', ['sandbox.get_host', 'files.read'], async () => {
  const classes = {
    sandbox: [...methods('SandboxApi'), ...methods('Sandbox', ['e2b', '@e2b/code-interpreter'])],
    files: methods('Filesystem'),
    commands: methods('Commands'),
    pty: methods('Pty'),
    git: methods('Git'),
    handle: methods('CommandHandle'),
    watch: methods('WatchHandle'),
    paginator: [...methods('SandboxPaginator')],
  }
  const there = Object.entries(classes).flatMap(([part, names]) => names.map((name) => `${part}.${name}`))
  const rows = Object.keys(METHODS).filter((name) => name.split('.')[0] in classes && !name.includes('(') && has(name))
  assert.deepEqual([...new Set(there)].sort(), rows.sort())
})

const CALLS = {
  'sandbox.create_snapshot': (sandbox) => sandbox.createSnapshot(),
  'sandbox.list_snapshots': (sandbox) => sandbox.listSnapshots().nextItems(),
  'sandbox.delete_snapshot': (sandbox) => sandbox.constructor.deleteSnapshot('nothing'),
  'sandbox.fork': (sandbox) => sandbox.fork(),
  'sandbox.get_mcp_token': (sandbox) => sandbox.constructor.create('code-interpreter-v1', { mcp: { time: {} } }),
  'template.build': () => e2b.Template.build(e2b.Template().fromImage('debian:13'), 'mine'),
  'volume.create': () => e2b.Volume.create('mine'),
  'volume.list': () => e2b.Volume.list(),
  'secret.create': () => e2b.Secret.create('mine', 'value'),
  'secret.list': () => e2b.Secret.list().nextItems(),
}

check('every refusal is tried', ['sandbox.get_host'], () => {
  const rows = Object.keys(METHODS).filter((name) => METHODS[name].refused && METHODS[name].js)
  assert.deepEqual(rows.sort(), Object.keys(CALLS).sort())
})

const names = Object.keys(CALLS).filter(refused)
if (names.length)
  test(`what is not offered is refused with its name ${JSON.stringify(names)}`, async (t) => {
    const sandbox = await create(t)
    for (const name of names) await assert.rejects(async () => CALLS[name](sandbox), /501.*(is|are) not offered here/, name)
  })
else test('left out: what is not offered is refused with its name ["sandbox.create_snapshot"]', () => {})

if (refused('sandbox.get_mcp_token'))
  test('a gateway that is not there leaves no sandbox ["sandbox.get_mcp_token"]', async () => {
    for (const template of [[], ['code-interpreter-v1']]) {
      const metadata = { mark: randomUUID() }
      // The words of the SDK itself.
      await assert.rejects(Sandbox.create(...template, { mcp: { time: {} }, metadata }), (error) => error instanceof e2b.SandboxError && /Failed to start MCP gateway/.test(error.message))
      assert.deepEqual(await listed({ metadata }), [])
    }
  })
else test('left out: a gateway that is not there leaves no sandbox ["sandbox.get_mcp_token"]', () => {})
