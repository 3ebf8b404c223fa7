// The control plane: sandboxes, their deadlines, and errors.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { check, create, e2b, gone, has, listed, Sandbox, sleep, until, WAY } from './sdk.mjs'

const UNKNOWN = 'i0123456789abcdefghij'
const WRONG = { apiKey: `e2b_${'0'.repeat(40)}` }
const secondsLeft = (info) => (info.endAt - Date.now()) / 1000
const own = (id) => id.split('-')[0]

check('a sandbox is described as it was asked for', ['sandbox.create', 'sandbox.get_info'], async (t) => {
  const metadata = { user: 'ada', 'a b': 'c&d=é' }
  const sandbox = await create(t, { timeoutMs: 90_000, metadata })
  const info = await sandbox.getInfo()
  assert.deepEqual(info.metadata, metadata)
  assert.ok([info.name, info.templateId].includes('code-interpreter-v1'))
  assert.ok(Math.abs(info.startedAt - Date.now()) < 30_000)
  assert.ok(secondsLeft(info) > 60 && secondsLeft(info) <= 91)
  const again = await Sandbox.getInfo(sandbox.sandboxId)
  assert.equal(own(again.sandboxId), own(sandbox.sandboxId))
})

check('a full description has everything about a sandbox', ['sandbox.get_full_info'], async (t) => {
  const sandbox = await create(t)
  const info = await Sandbox.getFullInfo(sandbox.sandboxId)
  assert.equal(info.state, 'running')
  assert.ok(info.cpuCount >= 1 && info.memoryMB >= 512)
})

check('variables of the sandbox are seen by its code', ['sandbox.create', 'sandbox.run_code'], async (t) => {
  const value = 'quo\'te "double" $HOME \\ é\nline'
  const sandbox = await create(t, { envs: { GREETING: value } })
  const { logs } = await sandbox.runCode("import os; print(os.environ['GREETING'], end='')")
  assert.deepEqual(logs.stdout, [value])
})

check('every connection finds the same interpreter', ['sandbox.connect', 'sandbox.run_code'], async (t) => {
  const sandbox = await create(t)
  await sandbox.runCode('secret = 6 * 7')
  const again = await Sandbox.connect(sandbox.sandboxId)
  assert.equal((await again.runCode('secret')).text, '42')
})

check('sandboxes are found by their metadata', ['sandbox.list'], async (t) => {
  const mark = `${randomUUID()} &=%+é`
  const mine = await create(t, { metadata: { mark, kind: 'one' } })
  await create(t, { metadata: { mark, kind: 'two' } })
  assert.equal((await listed({ metadata: { mark } })).length, 2)
  const found = await listed({ metadata: { mark, kind: 'one' } })
  assert.deepEqual(found.map((info) => own(info.sandboxId)), [own(mine.sandboxId)])
  assert.deepEqual(found[0].metadata, { mark, kind: 'one' })
})

check(
  'a list comes in pages, newest first',
  ['sandbox.list', 'paginator.next_items'],
  async (t) => {
    const metadata = { mark: randomUUID() }
    const made = []
    for (let i = 0; i < 3; i++) made.push((await create(t, { metadata })).sandboxId)
    const pages = Sandbox.list({ query: { metadata }, limit: 2 })
    assert.deepEqual((await pages.nextItems()).map((info) => info.sandboxId), [made[2], made[1]])
    assert.ok(pages.hasNext)
    assert.deepEqual((await pages.nextItems()).map((info) => info.sandboxId), [made[0]])
    assert.ok(!pages.hasNext)
  },
)

check('a paused sandbox keeps its memory', ['sandbox.beta_pause', 'sandbox.pause', 'sandbox.connect'], async (t) => {
  const metadata = { mark: randomUUID() }
  const sandbox = await create(t, { metadata })
  await sandbox.runCode("kept = 'kept'")
  assert.equal(await sandbox.pause(), true)
  assert.equal(await sandbox.betaPause(), false)
  assert.equal(await sandbox.isRunning(), false)
  assert.equal((await listed({ metadata, state: ['paused'] })).length, 1)
  assert.equal((await listed({ metadata, state: ['running'] })).length, 0)
  const resumed = await Sandbox.connect(sandbox.sandboxId)
  assert.equal((await resumed.runCode('kept')).text, 'kept')
  assert.equal((await listed({ metadata, state: ['running'] })).length, 1)
})

check('a sandbox that asked for it is paused at its deadline', ['sandbox.pause'], async (t) => {
  const sandbox = await create(t, { timeoutMs: 2000, lifecycle: { onTimeout: 'pause' } })
  await until(30, async () => (await sandbox.getInfo()).state === 'paused')
})

check('a killed sandbox is gone', ['sandbox.kill'], async (t) => {
  const sandbox = await create()
  await sandbox.kill()
  assert.equal(await Sandbox.kill(sandbox.sandboxId), false)
  await assert.rejects(Sandbox.getInfo(sandbox.sandboxId), gone)
})

check('isRunning reports the state', ['sandbox.is_running'], async (t) => {
  const sandbox = await create(t)
  assert.equal(await sandbox.isRunning(), true)
  if (WAY === 'shared') return
  await sandbox.kill()
  assert.equal(await sandbox.isRunning(), false)
})

check('a deadline is moved both ways', ['sandbox.set_timeout'], async (t) => {
  const sandbox = await create(t, { timeoutMs: 60_000 })
  await sandbox.setTimeout(300_000)
  assert.ok(secondsLeft(await sandbox.getInfo()) > 200)
  await Sandbox.setTimeout(sandbox.sandboxId, 30_000)
  assert.ok(secondsLeft(await sandbox.getInfo()) <= 31)
})

check('a sandbox dies at its deadline and not before', ['sandbox.set_timeout', 'sandbox.create'], async (t) => {
  const sandbox = await create(t)
  const begin = Date.now()
  await sandbox.setTimeout(3000)
  await until(15, () => sandbox.getInfo().then(() => false, gone))
  assert.ok(Date.now() - begin > 2000)
})

check('metrics report usage and limits', ['sandbox.get_metrics'], async (t) => {
  const sandbox = await create(t)
  let readings = []
  await until(30, async () => (readings = await sandbox.getMetrics()).length > 0)
  const { cpuCount, memUsed, memTotal } = readings.at(-1)
  assert.ok(cpuCount >= 1 && memUsed > 0 && memUsed < memTotal)
})

check(
  'rules that come too late are refused',
  ['sandbox.update_network'],
  async (t) => {
    const sandbox = await create(t)
    await sandbox.updateNetwork({})
    await assert.rejects(sandbox.updateNetwork({ denyOut: ['1.2.3.4/32'] }), /400.*only be chosen when/)
  },
  ['SDK_OWN_SERVER'],
)

check('a sandbox without internet reaches nothing', ['sandbox.create(allow_internet_access)'], async (t) => {
  const sandbox = await create(t, { allowInternetAccess: false })
  const { error } = await sandbox.runCode("import socket; socket.create_connection(('1.1.1.1', 53), 3)")
  assert.match(error.name, /OSError|TimeoutError|ConnectionRefusedError/)
})

check('a template exists or not', ['template.exists'], async () => {
  assert.equal(await e2b.Template.exists('code-interpreter-v1'), true)
  assert.equal(await e2b.Template.exists('no-such-template'), false)
})

for (const timeoutMs of [-5000, (24 * 3600 + 1) * 1000])
  check(`a timeout of ${timeoutMs} ms is refused`, ['sandbox.create'], () => assert.rejects(create(null, { timeoutMs }), /400.*Timeout/))

check('an unknown template is named', ['sandbox.create'], () =>
  assert.rejects(create(null, { template: 'no-such-template' }), /404.*template 'no-such-template' not found/))

check('an unknown sandbox is not found', ['sandbox.get_info', 'sandbox.set_timeout', 'sandbox.kill'], async () => {
  await assert.rejects(Sandbox.getInfo(UNKNOWN), gone)
  await assert.rejects(Sandbox.setTimeout(UNKNOWN, 1000), gone)
  assert.equal(await Sandbox.kill(UNKNOWN), false)
})

check('an unknown sandbox is of the newest class', ['sandbox.pause', 'sandbox.connect'], async () => {
  for (const call of ['getInfo', 'pause', 'connect', 'getMetrics'])
    await assert.rejects(Sandbox[call](UNKNOWN), e2b.SandboxNotFoundError, call)
})

check(
  'a wrong key opens nothing',
  ['sandbox.create', 'sandbox.list', 'sandbox.get_info'],
  async (t) => {
    const sandbox = await create(t)
    const refused = (error) => error instanceof e2b.AuthenticationError || /401|[Ii]nvalid API key/.test(error.message)
    await assert.rejects(create(null, WRONG), refused)
    await assert.rejects(Sandbox.getInfo(sandbox.sandboxId, WRONG), refused)
    await assert.rejects(listed({}, WRONG), refused)
  },
  ['E2B_OTHER_API_KEY'],
)

check('a wrong key is of its class', ['sandbox.pause'], () => assert.rejects(Sandbox.create(WRONG), e2b.AuthenticationError))

check(
  "another key sees nothing of this one's sandboxes",
  ['sandbox.get_info', 'sandbox.list'],
  async (t) => {
    const other = { apiKey: process.env.E2B_OTHER_API_KEY }
    const sandbox = await create(t)
    await assert.rejects(Sandbox.getInfo(sandbox.sandboxId, other), gone)
    assert.equal(await Sandbox.kill(sandbox.sandboxId, other), false)
    assert.ok(!(await listed({}, other)).some((info) => info.sandboxId === sandbox.sandboxId))
  },
  ['E2B_OTHER_API_KEY'],
)

// The limit that a creation is refused for, without an SDK.
const refusal = async ({ apiKey }) => {
  const headers = { 'X-API-Key': apiKey, 'Content-Type': 'application/json' }
  const request = { method: 'POST', headers, body: JSON.stringify({ templateID: 'base' }) }
  const refused = await fetch(`${process.env.SDK_OWN_SERVER}/sandboxes`, request)
  assert.equal(refused.status, 429)
  return (await refused.json()).message.split(' ')[0]
}

check(
  'only what waiting cures is repeated',
  ['sandbox.create'],
  // The key may keep one sandbox and start four in a minute, and each try of the SDK is a start.
  async (t) => {
    const key = { apiKey: process.env.E2B_LIMITED_API_KEY }
    const full = (error) => error instanceof e2b.RateLimitError && /max_kept_sandboxes = 1/.test(error.message)
    const sandbox = await Sandbox.create(key)
    t.after(() => Sandbox.kill(sandbox.sandboxId, key))
    await assert.rejects(Sandbox.create(key), full)
    // So two starts are left, and no more.
    for (const limit of ['max_kept_sandboxes', 'max_kept_sandboxes', 'max_starts_per_minute'])
      assert.equal(await refusal(key), limit)
    // The SDK waits until another start is possible, and then there is no room.
    await assert.rejects(Sandbox.create(key), full)
  },
  // Older SDKs repeat nothing by themselves.
  ['E2B_LIMITED_API_KEY', 'sandbox.pause'],
)

check('a port has a name of its own', ['sandbox.get_host'], async (t) => {
  const sandbox = await create(t)
  assert.ok(sandbox.getHost(3000).startsWith(WAY === 'shared' ? 'localhost:3000' : `3000-${sandbox.sandboxId}.`))
})

check('the port of MCP has a name', ['sandbox.get_mcp_url'], async (t) => {
  const sandbox = await create(t)
  assert.equal(sandbox.getMcpUrl(), `https://${sandbox.getHost(50005)}/mcp`)
})
