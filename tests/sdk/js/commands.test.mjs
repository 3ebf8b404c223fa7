// Commands and terminals of a sandbox.

import assert from 'node:assert/strict'
import { after } from 'node:test'
import { check, create, discard, e2b, has, until } from './sdk.mjs'

const shared = await create(null, { timeoutMs: 300_000 })
after(() => discard(shared))
// Versions without the option give every command an input.
const INPUT = has('commands.close_stdin') ? { stdin: true } : {}

check('a command prints and ends', ['commands.run'], async () => {
  const { stdout, stderr, exitCode } = await shared.commands.run('echo out; echo err >&2')
  assert.deepEqual([stdout, stderr, exitCode], ['out\n', 'err\n', 0])
})

check('a command that fails is an error with what it printed', ['commands.run'], () =>
  assert.rejects(shared.commands.run('echo before; exit 3'), (error) => {
    assert.ok(error instanceof e2b.CommandExitError)
    assert.deepEqual([error.exitCode, error.stdout], [3, 'before\n'])
    return true
  }))

check('output arrives as it happens', ['commands.run'], async () => {
  const seen = []
  const written = []
  const onStdout = (text) => {
    seen.push(text)
    written.push(shared.files.write('/tmp/heard', ''))
  }
  // The command waits until the callback has received its first line.
  await shared.commands.run('echo first; until [ -e /tmp/heard ]; do sleep .02; done; echo second', { onStdout })
  await Promise.all(written)
  assert.equal(seen.join(''), 'first\nsecond\n')
})

check('a command runs in the given directory as the given user', ['commands.run'], async () => {
  const options = { cwd: '/tmp', envs: { Q: 'it\'s "é"' } }
  assert.equal((await shared.commands.run('pwd; whoami; echo "$Q"', options)).stdout, '/tmp\nuser\nit\'s "é"\n')
  assert.equal((await shared.commands.run('whoami', { user: 'root' })).stdout, 'root\n')
})

check('a command that takes too long is stopped', ['commands.run'], () =>
  assert.rejects(shared.commands.run('sleep 30', { timeoutMs: 1000 }), e2b.TimeoutError))

check('a command in the background is listed and killed', ['commands.list', 'commands.kill', 'handle.wait', 'handle.kill'], async () => {
  const handle = await shared.commands.run('sleep 64', { background: true })
  assert.ok((await shared.commands.list()).some(({ pid }) => pid === handle.pid))
  assert.equal(await shared.commands.kill(handle.pid), true)
  await assert.rejects(handle.wait())
  assert.equal(await shared.commands.kill(handle.pid), false)
  const other = await shared.commands.run('sleep 65', { background: true })
  assert.equal(await other.kill(), true)
  await assert.rejects(other.wait(), e2b.CommandExitError)
})

check('a command whose sandbox is killed ends with that reason', ['sandbox.kill', 'commands.run'], async (t) => {
  const sandbox = await create(t)
  const handle = await sandbox.commands.run('sleep 60', { background: true })
  const ended = assert.rejects(handle.wait(), (error) => error instanceof e2b.TimeoutError && /sandbox was killed|sandbox timeout/.test(error.message))
  await sandbox.kill()
  await ended
})

check('a pid is the sandbox\'s own, and the dead are gone', ['commands.run', 'handle.kill'], async () => {
  const handle = await shared.commands.run('sleep 66', { background: true })
  assert.equal((await shared.commands.run(`kill -0 ${handle.pid}`)).exitCode, 0)
  await handle.kill()
  await assert.rejects(handle.wait(), (error) => error.exitCode === -1)
  // No zombie is left either: `kill -0` would find it.
  await assert.rejects(shared.commands.run(`kill -0 ${handle.pid}`), e2b.CommandExitError)
})

check('a command is connected to again', ['commands.connect', 'handle.disconnect'], async () => {
  const handle = await shared.commands.run('until [ -e /tmp/again ]; do sleep .02; done; echo late', { background: true })
  await handle.disconnect()
  const again = await shared.commands.connect(handle.pid)
  await shared.files.write('/tmp/again', '')
  assert.equal((await again.wait()).stdout, 'late\n')
})

check('a command reads its input', ['commands.send_stdin'], async () => {
  const handle = await shared.commands.run('read line; echo got $line', { background: true, ...INPUT })
  await shared.commands.sendStdin(handle.pid, 'héllo\n')
  assert.equal((await handle.wait()).stdout, 'got héllo\n')
})

check('a command sees the end of its input', ['commands.close_stdin', 'handle.send_stdin', 'handle.close_stdin'], async () => {
  const handle = await shared.commands.run('cat; echo end', { background: true, stdin: true })
  await shared.commands.sendStdin(handle.pid, 'a')
  await shared.commands.closeStdin(handle.pid)
  assert.equal((await handle.wait()).stdout, 'aend\n')
  const other = await shared.commands.run('cat; echo end', { background: true, stdin: true })
  await other.sendStdin('b')
  await other.closeStdin()
  assert.equal((await other.wait()).stdout, 'bend\n')
})

check('a terminal is typed into, resized and killed', ['pty.create', 'pty.send_input', 'pty.resize', 'pty.kill'], async () => {
  let seen = ''
  const handle = await shared.pty.create({ cols: 70, rows: 20, timeoutMs: 30_000, onData: (data) => (seen += Buffer.from(data)) })
  const typed = async (text, answer) => {
    await shared.pty.sendInput(handle.pid, new TextEncoder().encode(text))
    await until(30, () => seen.includes(answer))
  }
  await typed('echo at $((6*7)) in $(stty size)\n', 'at 42 in 20 70')
  await shared.pty.resize(handle.pid, { cols: 90, rows: 30 })
  await typed('stty size\n', '30 90')
  assert.equal(await shared.pty.kill(handle.pid), true)
  await assert.rejects(handle.wait())
})

check('a terminal is connected to again', ['pty.connect'], async () => {
  const first = await shared.pty.create({ cols: 70, rows: 20, onData: () => {} })
  await first.disconnect()
  let seen = ''
  const again = await shared.pty.connect(first.pid, { onData: (data) => (seen += Buffer.from(data)) })
  await shared.pty.sendInput(first.pid, new TextEncoder().encode('echo $((6*7)); exit\n'))
  await again.wait()
  assert.match(seen, /42/)
})
