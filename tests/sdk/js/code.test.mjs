// The code interpreter: `runCode`, its results, and contexts.

import assert from 'node:assert/strict'
import { after } from 'node:test'
import { check, create, discard, e2b, has } from './sdk.mjs'

const RUN = ['sandbox.run_code']
// A sandbox for tests that leave nothing behind that affects other tests.
const shared = await create(null, { timeoutMs: 300_000 })
after(() => discard(shared))

check('hello world', RUN, async () => {
  const execution = await shared.runCode("print('hello world')\n6 * 7")
  assert.deepEqual([execution.logs.stdout.join(''), execution.logs.stderr], ['hello world\n', []])
  assert.equal(execution.text, '42')
  assert.equal(execution.error, undefined)
  assert.equal(execution.results[0].isMainResult, true)
})

check('names live on, and executions are counted', RUN, async (t) => {
  const sandbox = await create(t)
  await sandbox.runCode('x = 40')
  const execution = await sandbox.runCode('x + 2')
  assert.deepEqual([execution.text, execution.executionCount], ['42', 2])
})

check('output arrives as it happens', RUN, async () => {
  const out = []
  const err = []
  const written = []
  const onStdout = ({ line }) => {
    out.push(line)
    written.push(shared.files.write('/tmp/heard', ''))
  }
  // The code waits until the callback has received its first line.
  const wait = "while not os.path.exists('/tmp/heard'): time.sleep(.02)"
  const code = `import os, sys, time\nprint('first', flush=True)\n${wait}\nprint('second')\nprint('end', file=sys.stderr)`
  await shared.runCode(code, { timeoutMs: 60_000, onStdout, onStderr: ({ line }) => err.push(line) })
  await Promise.all(written)
  assert.deepEqual([out.join(''), err.join('')], ['first\nsecond\n', 'end\n'])
})

check('results and errors arrive as they happen', RUN, async () => {
  const results = []
  const errors = []
  await shared.runCode("display('one')\n'two'", { onResult: (result) => results.push(result.text) })
  assert.deepEqual(results, ['one', 'two'])
  const execution = await shared.runCode('1 / 0', { onError: (error) => errors.push(error.name) })
  assert.deepEqual(errors, ['ZeroDivisionError'])
  assert.equal(execution.error.value, 'division by zero')
  assert.match(execution.error.traceback, /ZeroDivisionError/)
})

check('text of any alphabet arrives whole', RUN, async () => {
  const { logs } = await shared.runCode("for i in range(20_000): print('é漢🎈' * 10, i)")
  const expected = Array.from({ length: 20_000 }, (_, i) => `${'é漢🎈'.repeat(10)} ${i}\n`).join('')
  assert.ok(logs.stdout.join('') === expected)
})

check('variables of one execution are gone after it', RUN, async () => {
  const value = 'quo\'te "double" $HOME \\ é\nline'
  const code = "import os; print(os.environ.get('ONLY_NOW'), end='')"
  assert.deepEqual((await shared.runCode(code, { envs: { ONLY_NOW: value } })).logs.stdout, [value])
  assert.deepEqual((await shared.runCode(code)).logs.stdout, ['None'])
})

check('a timeout interrupts the code and keeps its variables', RUN, async () => {
  await shared.runCode("before = 'kept'")
  const begin = Date.now()
  await assert.rejects(shared.runCode('import time\nwhile True: time.sleep(.1)', { timeoutMs: 1000 }), e2b.TimeoutError)
  assert.equal((await shared.runCode('before')).text, 'kept')
  assert.ok(Date.now() - begin < 20_000)
})

check('a kill during a run is no success', ['sandbox.kill', 'sandbox.run_code'], async (t) => {
  const sandbox = await create()
  let killed
  const onStdout = () => (killed = sandbox.kill())
  const begin = Date.now()
  await assert.rejects(sandbox.runCode('import time; print(1, flush=True); time.sleep(60)', { onStdout }), (error) => {
    return !has('sandbox.pause') || (error instanceof e2b.TimeoutError && /killed/.test(error.message))
  })
  await killed
  assert.ok(Date.now() - begin < 50_000)
})

for (const [language, code, text] of [
  ['python', "print('hi')\n'a' + 'b'", 'ab'],
  ['js', "console.log('hi');\n[1, 2].map(x => x * 2)", '[ 2, 4 ]'],
  ['ts', "enum Color { Red = 3 }\nconsole.log('hi')\nColor.Red", '3'],
  ['r', "cat('hi\\n')\nsum(c(1, 2))", '[1] 3'],
  ['java', 'System.out.println("hi");\nvar x = 20;\nx + 1', '21'],
])
  check(`${language} prints and has a value`, RUN, async () => {
    const execution = await shared.runCode(code, { language })
    assert.equal(execution.error, undefined)
    assert.equal(execution.logs.stdout.join(''), 'hi\n')
    assert.equal(execution.results[0].text, text)
  })

check('a plot is a picture', RUN, async () => {
  const { results } = await shared.runCode('import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()')
  assert.equal(results.length, 1)
  assert.ok(Buffer.from(results[0].png, 'base64').subarray(1, 4).equals(Buffer.from('PNG')))
})

for (const [kind, code, elements] of [
  ['line', "plt.plot([1, 2], [3, 4], label='L')", [{ label: 'L', points: [[1, 3], [2, 4]] }]],
  ['scatter', 'plt.scatter([1, 2], [3, 4])', [{ label: '_child0', points: [[1, 3], [2, 4]] }]],
  ['bar', "plt.bar(['a', 'b'], [1, 2])", [{ label: 'a', group: 'Group 0', value: 1 }, { label: 'b', group: 'Group 0', value: 2 }]],
  ['pie', "plt.pie([1, 3], labels=['a', 'b'])", [{ label: 'a', angle: 90, radius: 1 }, { label: 'b', angle: 270, radius: 1 }]],
  [
    'box_and_whisker',
    "plt.boxplot([[1, 2, 3, 5, 8], [2, 4, 9, 9, 12, 40]], tick_labels=['a', 'b'])",
    [
      { label: 'a', min: 1, first_quartile: 2, median: 3, third_quartile: 5, max: 8, outliers: [] },
      { label: 'b', min: 2, first_quartile: 5.25, median: 9, third_quartile: 11.25, max: 12, outliers: [40] },
    ],
  ],
  ['superchart', 'plt.subplots(1, 2)[1][0].pie([1])', null],
  ['unknown', 'plt.imshow([[1, 2]])', []],
])
  check(`a ${kind} chart is described`, ['result.chart'], async () => {
    const { results } = await shared.runCode(`import matplotlib.pyplot as plt\n${code}; plt.title('T');`)
    assert.equal(results.length, 1)
    const { chart } = results[0]
    assert.equal(chart.type, kind)
    if (elements) assert.deepEqual([chart.title, chart.elements], ['T', elements])
    else assert.deepEqual(chart.elements.map(({ type }) => type), ['pie', 'line'])
  })

check('a table comes as HTML', RUN, async () => {
  const { results } = await shared.runCode("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
  assert.match(results[0].html, /<table/)
})

check('a table comes with its data', ['result.data'], async () => {
  const { results } = await shared.runCode("import pandas as pd\npd.DataFrame({'a': [1, None], 't': [pd.Timestamp('2026-01-02'), pd.NaT]})")
  assert.deepEqual(results[0].data, { a: [1, null], t: ['2026-01-02T00:00:00', 'NaT'] })
})

check('a context has a directory and variables of its own', ['sandbox.create_code_context'], async () => {
  const context = await shared.createCodeContext({ cwd: '/tmp' })
  assert.equal((await shared.runCode('import os; own = 1; os.getcwd()', { context })).text, '/tmp')
  assert.equal((await shared.runCode("'own' in globals()")).text, 'False')
  const other = await shared.createCodeContext({ language: 'js', cwd: '/tmp' })
  assert.match((await shared.runCode('process.cwd()', { context: other })).text, /\/tmp/)
})

check(
  'contexts are listed, restarted and removed',
  ['sandbox.list_code_contexts', 'sandbox.restart_code_context', 'sandbox.remove_code_context'],
  async () => {
    const context = await shared.createCodeContext()
    const ids = async () => (await shared.listCodeContexts()).map(({ id }) => id)
    assert.ok((await ids()).includes(context.id))
    await shared.runCode('own = 1', { context })
    await shared.restartCodeContext(context)
    assert.equal((await shared.runCode("'own' in globals()", { context })).text, 'False')
    await shared.removeCodeContext(context.id)
    assert.ok(!(await ids()).includes(context.id))
    await assert.rejects(shared.runCode('1', { context }), /not found/)
  },
)
