// The first programs that people try, each written as its own program without knowledge of the server.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { check, create, discard, has, listed, Sandbox, sleep, WAY } from './sdk.mjs'

// The first line of every example.
const begin = async (t) => {
  const box = await Sandbox.create()
  t.after(() => discard(box))
  return box
}

check('quick start: hello world', ['sandbox.run_code', 'files.list'], async (t) => {
  const box = await begin(t)
  const execution = await box.runCode("print('hello world')")
  assert.equal(execution.logs.stdout.join(''), 'hello world\n')
  assert.ok(Array.isArray(await box.files.list('/home/user')))
})

check('quick start: the example of docs/e2b.md prints what the page shows', ['sandbox.run_code'], async (t) => {
  const text = await readFile(join(process.env.SDK_ROOT, 'docs', 'e2b.md'), 'utf8')
  const [, program, shown] = text.match(/```js\n(.*?)```\n\n```text\n(.*?)```/s)
  // The program is in this file's directory, where Node finds the package.
  const file = join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, `example-${WAY}.mjs`)
  await writeFile(file, program)
  t.after(() => rm(file))
  const { stdout } = await promisify(execFile)(process.execPath, [file])
  assert.equal(stdout, shown)
}, ['sandbox.create'])

check('quick start: streaming', ['sandbox.run_code'], async (t) => {
  const box = await begin(t)
  const out = []
  const err = []
  const results = []
  const written = []
  // If all output arrived at the end, the code would wait for ever.
  await box.runCode(
    "import os, sys, time\nprint(0, flush=True)\nwhile not os.path.exists('heard.txt'): time.sleep(.02)\n" +
      "print(1)\nprint('oops', file=sys.stderr)\n'the value'",
    {
      onStdout: (data) => {
        out.push(data.line)
        written.push(box.files.write('heard.txt', out.join('')))
      },
      onStderr: (data) => err.push(data.line),
      onResult: (result) => results.push(result.text),
      timeoutMs: 60_000,
    },
  )
  await Promise.all(written)
  assert.equal(out.join(''), '0\n1\n')
  assert.deepEqual([err.join(''), results], ['oops\n', ['the value']])
})

check('quick start: contexts', ['sandbox.create_code_context', 'sandbox.run_code'], async (t) => {
  const box = await begin(t)
  const first = await box.createCodeContext({ cwd: '/home/user', language: 'python' })
  const second = await box.createCodeContext({ cwd: '/tmp', language: 'python' })
  await box.runCode("name = 'first'", { context: first })
  await box.runCode("name = 'second'", { context: second })
  assert.equal((await box.runCode('name', { context: first })).text, 'first')
  assert.equal((await box.runCode('import os; (name, os.getcwd())', { context: second })).text, "('second', '/tmp')")
})

check('quick start: a chart is a picture', ['sandbox.run_code'], async (t) => {
  const box = await begin(t)
  const execution = await box.runCode("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3, 4])\nplt.ylabel('some numbers')\nplt.show()")
  assert.equal(Buffer.from(execution.results[0].png, 'base64').toString('latin1', 1, 4), 'PNG')
})

check('quick start: a data set is uploaded and analysed', ['files.write', 'files.read', 'sandbox.run_code'], async (t) => {
  const box = await begin(t)
  await box.files.write('/home/user/data.csv', 'city,people\nBern,134\nBasel,174\n')
  const execution = await box.runCode("import pandas as pd\npd.read_csv('/home/user/data.csv')['people'].sum()")
  assert.match(execution.text, /308/)
  await box.runCode("pd.DataFrame({'a': [1]}).to_csv('/home/user/out.csv', index=False)")
  assert.equal(await box.files.read('/home/user/out.csv'), 'a\n1\n')
})

check('quick start: commands', ['commands.run', 'handle.kill', 'handle.wait'], async (t) => {
  const box = await begin(t)
  assert.match((await box.commands.run('mkdir -p data && ls -la')).stdout, /data/)
  const seen = []
  await box.commands.run('echo hello; sleep 1; echo world', { onStdout: (data) => seen.push(data) })
  assert.equal(seen.join(''), 'hello\nworld\n')
  const handle = await box.commands.run('echo hello; sleep 1; echo world', { background: true })
  assert.equal((await handle.wait()).exitCode, 0)
  const endless = await box.commands.run('sleep 100', { background: true })
  assert.equal(await endless.kill(), true)
})

check('quick start: environment variables', ['sandbox.create', 'commands.run'], async (t) => {
  const box = await create(t, { envs: { MY_VAR: 'my_value' } })
  assert.equal((await box.runCode("import os; os.environ.get('MY_VAR')")).text, 'my_value')
  assert.equal((await box.commands.run('echo $MY_VAR')).stdout, 'my_value\n')
  assert.equal((await box.commands.run('echo $MY_VAR', { envs: { MY_VAR: 'this time' } })).stdout, 'this time\n')
})

check('quick start: a web server in a sandbox', ['sandbox.get_host'], async (t) => {
  const box = await begin(t)
  // In debug mode the SDK returns the machine itself, and not a sandbox.
  if (WAY === 'shared') return assert.equal(box.getHost(8000), 'localhost:8000')
  await box.files.write('index.html', '<h1>from inside</h1>')
  await box.commands.run('python3 -m http.server 8000', { background: true })
  for (let i = 0; ; i++) {
    const response = await fetch(`https://${box.getHost(8000)}`)
    if (response.ok) return assert.match(await response.text(), /from inside/)
    assert.ok(response.status === 502 && i < 75)
    await sleep(0.2)
  }
})

check('quick start: metadata is listed', ['sandbox.list', 'sandbox.create'], async (t) => {
  const metadata = { userId: 'uniqueID 1&2=é' }
  const box = await create(t, { metadata })
  const found = await listed({ metadata })
  assert.deepEqual(found.map((info) => info.sandboxId.split('-')[0]), [box.sandboxId.split('-')[0]])
  assert.deepEqual(found[0].metadata, metadata)
})

check('quick start: a longer life and a second client', ['sandbox.set_timeout', 'sandbox.connect', 'sandbox.get_info'], async (t) => {
  const box = await begin(t)
  const { endAt } = await box.getInfo()
  await box.setTimeout(900_000)
  assert.ok((await box.getInfo()).endAt > endAt)
  await box.runCode("left = 'here'")
  assert.equal((await (await Sandbox.connect(box.sandboxId)).runCode('left')).text, 'here')
})

check('quick start: pause and resume', ['sandbox.beta_pause', 'sandbox.connect'], async (t) => {
  const box = await begin(t)
  await box.files.write('kept.txt', 'on disk')
  await box.runCode("kept = 'in memory'")
  await (has('sandbox.pause') ? box.pause() : box.betaPause())
  const again = await Sandbox.connect(box.sandboxId)
  assert.equal((await again.runCode('kept')).text, 'in memory')
  assert.equal(await again.files.read('kept.txt'), 'on disk')
})

check('quick start: a directory is watched', ['files.watch_dir', 'files.make_dir'], async (t) => {
  const box = await begin(t)
  await box.files.makeDir('my-dir')
  const seen = []
  const handle = await box.files.watchDir('my-dir', ({ type, name }) => seen.push(`${type} ${name}`))
  await box.files.write('my-dir/my-file', 'hello')
  for (let i = 0; i < 300 && !seen.includes('write my-file'); i++) await sleep(0.1)
  assert.ok(seen.includes('write my-file'))
  await handle.stop()
})
