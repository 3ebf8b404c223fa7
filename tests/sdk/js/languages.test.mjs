// The languages other than Python, as E2B's notebooks show them.

import assert from 'node:assert/strict'
import { after } from 'node:test'
import { check, create, e2b, Sandbox } from './sdk.mjs'

const RUN = ['sandbox.run_code']
const shared = await create(null, { timeoutMs: 300_000 })
after(() => Sandbox.kill(shared.sandboxId))

const run = (language, code, options = {}) => shared.runCode(code, { language, ...options })

check('bash prints lines, errors among them, and keeps its variables', RUN, async () => {
  const execution = await run('bash', "kept='a b'; echo one; echo two >&2; cd /tmp")
  assert.deepEqual(execution.logs, { stdout: ['one\n', 'two\n'], stderr: [] })
  assert.deepEqual([execution.results, execution.error], [[], undefined])
  assert.deepEqual((await run('bash', 'echo "$kept"; pwd')).logs.stdout, ['a b\n', '/tmp\n'])
})

check('a status of bash that is not zero is an error', RUN, async () => {
  const { name, value, traceback } = (await run('bash', 'no_such_command')).error
  assert.deepEqual([name, value, traceback], ['', '127', ''])
})

check('a bash that ends is followed by a fresh one', RUN, async () => {
  assert.deepEqual((await run('bash', 'gone=1; exit 3')).logs.stdout, ['exit\n', 'Restarting Bash\n'])
  assert.deepEqual((await run('bash', 'echo "[$gone]"')).logs.stdout, ['[]\n'])
})

check('an interrupt of bash keeps its variables', RUN, async () => {
  await run('bash', 'before=kept')
  await assert.rejects(run('bash', 'while :; do :; done', { timeoutMs: 1000 }), e2b.TimeoutError)
  assert.deepEqual((await run('bash', 'echo $before')).logs.stdout, ['kept\n'])
})

for (const language of ['js', 'ts'])
  check(`each call that logs is an event in ${language}`, RUN, async () => {
    const { logs } = await run(language, "console.log('a'); console.log('b\\nc'); console.error('e')")
    assert.deepEqual(logs, { stdout: ['a\n', 'b\nc\n'], stderr: ['e\n'] })
    const { results } = await run(language, "$$.html('<b>x</b>')")
    assert.deepEqual(results.map(({ html, isMainResult }) => [html, isMainResult]), [['<b>x</b>', true]])
    const { error } = await run(language, "throw 'str'")
    assert.deepEqual([error.name, error.value], ['string', "'str'"])
  })

check('R displays its values', RUN, async () => {
  const execution = await run('r', "data.frame(a = 1:2, b = c('x', 'y'))")
  assert.equal(execution.text, undefined)
  const [{ html, markdown, latex }] = execution.results
  assert.match(html, /<td>x<\/td>/)
  assert.match(markdown, /\| 1 \| 1 \| x \|/)
  assert.match(latex, /1 & 1 & x/)
  const { error } = await run('r', "stop('boom')")
  assert.deepEqual([error.name, error.value], ['ERROR', 'Error: boom\n'])
})

check('Java prints the end of a line by itself', RUN, async () => {
  const { logs } = await run('java', 'System.out.println("Hello, World!");')
  assert.deepEqual(logs.stdout, ['Hello, World!', '\n'])
  assert.equal((await run('java', 'throw new IllegalStateException("wide");')).error.name, 'IllegalStateException')
})
